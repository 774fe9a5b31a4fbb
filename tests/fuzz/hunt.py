"""Many seeds, in processes of their own: one that hangs is cut, one that dies is told, and the hunt goes on behind it."""

from __future__ import annotations

import gc
import json
import logging
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fuzz import kinds
from fuzz.modes import AT_ONCE, Mode
from fuzz.program import make

SHARE = 1000  # seeds a process

_ROOT = Path(__file__).parents[2]


class Finding(NamedTuple):
    """A seed that differs, and how."""

    seed: int
    mode: str
    lines: list[str]

    def __str__(self) -> str:
        """How to see it again, and where the traces part (-: asyncio's, +: plait's)."""
        command = f"PYTHONPATH=src:tests {sys.executable} -m fuzz --mode {self.mode} --seed {self.seed} --shrink"
        return "\n".join(
            [f"seed {self.seed} on {platform.python_version()}: {command}", *(f"    {line}" for line in self.lines)]
        )


def hunt(seeds: range, mode: str, jobs: int = 1) -> Iterator[Finding]:
    """Those of seeds that differ."""
    shares = [range(first, min(first + SHARE, seeds.stop)) for first in range(seeds.start, seeds.stop, SHARE)]
    with ThreadPoolExecutor(jobs) as pool:
        for found in pool.map(lambda share: _share(share, mode), shares):
            yield from found


def _share(seeds: range, mode: str) -> list[Finding]:
    found: list[Finding] = []
    first = seeds.start
    while first < seeds.stop:
        command = [sys.executable, "-m", "fuzz", "--child", "--mode", mode, "--seeds", f"{first}:{seeds.stop}"]
        path = os.pathsep.join([str(_ROOT / "src"), str(_ROOT / "tests")])
        child = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False)
        told = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("[")]
        found += [Finding(seed, mode, lines) for seed, lines in told if lines]
        if child.returncode == 0:
            break
        first = max([first, *(seed for seed, _ in told)])
        some = range(first, min(first + AT_ONCE, seeds.stop))
        why = [f"hangs or dies, it or one of the {len(some) - 1} after it (exit code {child.returncode}):"]
        alone = [each for seed in some for each in _share(range(seed, seed + 1), mode)] if len(some) > 1 else []
        found += alone or [Finding(first, mode, why + child.stderr.splitlines()[-60:])]
        first = some.stop
    return found


def prepare() -> None:
    """Nothing but the programs decides what is collected when, and the logs say nothing."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None
    gc.collect()
    gc.freeze()
    gc.disable()


def follow(seeds: range, mode: Mode) -> None:
    """In a process of its own: a line before some seeds are run, another for each that differs."""
    menu = kinds.menu(mode.anywhere)
    prepare()
    for first in range(seeds.start, seeds.stop, AT_ONCE):
        some = range(first, min(first + AT_ONCE, seeds.stop))
        print(json.dumps([first, None]), flush=True)
        programs = [make(seed, menu) for seed in some]
        for seed, lines in zip(some, mode.differences(programs), strict=True):
            if lines:
                print(json.dumps([seed, lines]), flush=True)
