"""A hunt for programs that differ: short and always the same in `make test`, long in `make stress` (PLAIT_STRESS=1).

PLAIT_SEEDS=from:to hunts elsewhere. What is found says how to see it again.
"""

from __future__ import annotations

import os

import pytest

from fuzz.hunt import hunt

LONG = bool(os.environ.get("PLAIT_STRESS"))


def seeds(short: int, long: int) -> range:
    """Which to try."""
    given = os.environ.get("PLAIT_SEEDS")
    return range(*map(int, given.split(":"))) if given else range(long if LONG else short)


@pytest.mark.timeout(0 if LONG else 120)
@pytest.mark.parametrize(
    ("mode", "short", "long"),
    [("main", 1000, 100_000), ("pooled", 200, 20_000), ("pinned", 100, 5_000), ("busy", 100, 5_000)],
)
def test_programs_see_the_same_as_on_asyncio(mode: str, short: int, long: int) -> None:
    found = list(hunt(seeds(short, long), mode))
    assert not found, "\n".join([f"{len(found)} programs differ (-: asyncio's trace, +: plait's)", *map(str, found[:20])])
