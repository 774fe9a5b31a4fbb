"""Hunt for seeds that differ.

PYTHONPATH=src:tests python -m fuzz --seeds 0:1000    the seeds that differ, and where
PYTHONPATH=src:tests python -m fuzz --seed 17         one program, its trace, and where plait's parts from it
PYTHONPATH=src:tests python -m fuzz --seed 17 --shrink    a smaller program that differs as well
"""

from __future__ import annotations

import argparse
import sys

from fuzz import hunt, kinds
from fuzz.modes import MODES, Mode
from fuzz.program import make
from fuzz.run import run_asyncio
from fuzz.shrink import shrink


def _show(seed: int, mode: Mode, small: bool, tries: int) -> None:
    program = make(seed, kinds.menu(mode.anywhere))
    if small:
        program = shrink(program, mode, tries)
    print(program)
    (trace,) = run_asyncio([program])
    print(*trace.lines, sep="\n", flush=True)
    for lines in mode.differences([program] * tries):
        print("the difference (-: asyncio's, +: plait's):", *(lines or ["none"]), sep="\n")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:1000", help="from:to")
    parser.add_argument("--seed", type=int, help="show this one")
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--tries", type=int, default=1, help="with --seed: run it so often, for what comes by chance")
    parser.add_argument("--mode", choices=list(MODES), default="main")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seed is not None:
        hunt.prepare()
        _show(options.seed, MODES[options.mode], options.shrink, options.tries)
        return 0
    seeds = range(*map(int, options.seeds.split(":")))
    if options.child:
        hunt.follow(seeds, MODES[options.mode])
        return 0
    found = 0
    for finding in hunt.hunt(seeds, options.mode, options.jobs):
        found += 1
        print(finding, flush=True)
    print(f"{found} of {len(seeds)} seeds differ")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
