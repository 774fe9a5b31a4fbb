"""Instructions that the asyncio programs (bench/programs.py) take on asyncio's loop and by `plait.run`, in millions.

    PYTHONPATH=src python -m bench.instructions [--program NAME ...]

They are counted by valgrind's callgrind, on the Python that runs this: the same from run to run, however busy the machine.
It is the program's own instructions alone, not the kernel's, and says nothing of caches. What start-up takes is left out: each
program runs in two sizes, and the difference counts.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from bench.programs import PROGRAMS

PEERS = ("asyncio", "plait")
SIZES = (0.3, 0.05)
COUNT = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
ROOT = Path(__file__).resolve().parent.parent


def count(program: str, peer: str, size: float) -> int:
    """What a run takes in all."""
    command = (*COUNT, sys.executable, "-m", "bench.programs", "--peer", peer, "--program", program, "--scale", str(size))
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return int(re.findall(r"Collected : (\d+)", done.stderr)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", action="append", choices=tuple(PROGRAMS), help="only this one; repeatable")
    print("| program | asyncio | plait | plait / asyncio |\n|---|---|---|---|")
    for program in parser.parse_args().program or PROGRAMS:
        large, small = ([count(program, peer, size) for peer in PEERS] for size in SIZES)
        asyncio, plait = (more - less for more, less in zip(large, small, strict=True))
        print(f"| {program} | {asyncio / 1e6:,.0f} | {plait / 1e6:,.0f} | {plait / asyncio:.2f}x |", flush=True)


if __name__ == "__main__":
    main()
