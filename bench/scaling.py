"""Speed of two workers against one, on a free-threaded build; the reference is two independent processes at once.

switch: 1,000 strands that only yield. cpu: 200 strands with some 20 us of arithmetic between two yields.
`--mode one` and `--mode two` are one process with that many workers; `--mode pair` starts two processes of one worker
each, lets them go together, and counts their work over the time from the first start to the last end. The pair is what
the machine gives to programs that share nothing, so two/pair is how much sharing one runtime costs. `speed` is steps a
second.
"""

import asyncio
import importlib
import json
import subprocess
import sys
import time
from typing import Any

from bench import common

SHAPES = {"switch": 1000, "cpu": 200}


async def switching(plait: Any, n: int, gate: Any) -> tuple[int, int]:
    await gate.wait()
    begin = time.perf_counter_ns()
    for _ in range(n):
        await plait.checkpoint()
    return begin, time.perf_counter_ns()


async def computing(plait: Any, n: int, gate: Any) -> tuple[int, int]:
    await gate.wait()
    begin = time.perf_counter_ns()
    x = 1
    for _ in range(n):
        for i in range(250):
            x = (x * 31 + i * i) & 255  # no constant above 256: 3.13t counts references to those, and threads fight
        await plait.checkpoint()
    return begin, time.perf_counter_ns()


async def measure(shape: str, n: int, wait_for_go: bool) -> tuple[int, int]:
    """The first start and the last end, on the system's monotonic clock, which two processes share."""
    plait: Any = importlib.import_module("plait")
    gate = plait.Event()
    work = switching if shape == "switch" else computing
    handles = [plait.spawn(work(plait, n, gate)) for _ in range(SHAPES[shape])]
    await asyncio.sleep(0.2)
    if wait_for_go:
        print("ready", flush=True)
        sys.stdin.readline()
    gate.set()
    spans = [await handle for handle in handles]
    return min(begin for begin, _ in spans), max(end for _, end in spans)


def pair(shape: str, n: int, timeout: float) -> tuple[int, int]:
    command = [sys.executable, "-m", "bench.scaling", "--mode", "half", "--shape", shape, "--n", str(n)]
    halves: list[subprocess.Popen[str]] = []
    try:
        for _ in range(2):
            halves.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for half in halves:
            if half.stdout is None or half.stdout.readline().strip() != "ready":
                raise RuntimeError("half of the pair did not start")
        for half in halves:
            if half.stdin is not None:
                half.stdin.write("go\n")
                half.stdin.flush()
        spans = [json.loads(half.communicate(timeout=timeout)[0])["span"] for half in halves]
    finally:
        for half in halves:
            half.kill()
            half.wait()
    return min(begin for begin, _ in spans), max(end for _, end in spans)


def main() -> None:
    parser = common.parser(__doc__, ("plait",))
    parser.add_argument("--mode", choices=("one", "two", "pair", "half"), default="two")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="switch")
    parser.add_argument("--n", type=int, default=1000, help="steps of each strand")
    parser.add_argument("--timeout", type=float, default=60.0)
    args = parser.parse_args()
    if args.mode == "pair":
        span = pair(args.shape, args.n, args.timeout)
    else:
        workers = 2 if args.mode == "two" else 1
        span = common.run("plait", measure, args.shape, args.n, args.mode == "half", workers=workers)
    steps = SHAPES[args.shape] * args.n * (2 if args.mode == "pair" else 1)
    common.emit({"span": span, "speed": steps / (span[1] - span[0]) * 1e9})


if __name__ == "__main__":
    main()
