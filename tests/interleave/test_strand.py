"""Turns: posting against the end of a turn (S1, S2, S4)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from .baton import seeds
from .rig import SCHEDULING, Item, rig

FOCUS = (SCHEDULING, ("_rt/strand/strand.py",), ("_rt/strand/strand.py",))


@pytest.mark.parametrize("workers", [1, 2])
def test_post_against_end_of_turn(workers: int) -> None:
    """Nothing is lost, nothing runs twice, one holder at a time, each poster's items in order.

    Mutations caught: `_end_turn` puts IDLE in without looking after it; `_post` looks for IDLE before it appends; `_post`
    schedules without removing IDLE.
    """
    for seed in seeds():
        with rig(seed, FOCUS[seed % 3], workers) as r:
            strand = r.strand()
            log: list[str] = []

            def post(poster: int, r: Any = r, strand: Any = strand, log: Any = log) -> None:
                for number in range(4):
                    r.pause()
                    strand._post(Item(r, strand, f"{poster}.{number}", log))

            for poster in range(3):
                r.actor(f"poster{poster}", lambda poster=poster: post(poster))  # type: ignore[misc]
            r.run()
            counts = Counter(log)
            r.expect(len(log) == 12 and set(counts.values()) == {1}, f"ran {log}")
            for poster in range(3):
                mine = [name for name in log if name.startswith(f"{poster}.")]
                r.expect(mine == sorted(mine), f"out of order: {log}")
            r.check_quiet(strand)
