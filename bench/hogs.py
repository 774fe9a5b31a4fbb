"""How late 100 tasks are beside tasks that compute for 0.3 s without a pause: 2, then 4 at once, in milliseconds.

As in `lateness`, each of the 100 is due at t0 + k * 5 ms. Three rounds each: "cold" is the first, before plait knows the
place, "learned" are the others together. `work` is what the hogs got done in a second of their own threads' CPU time, over what
one does alone in a process that does nothing else: what preempting them costs. plait: 2 workers, on a GIL build 1.
"""

import asyncio
import importlib
import statistics
import time
from array import array
from typing import Any

from bench import common
from bench.lateness import summary, ticker

ROUNDS, GAP_S = 5, 0.4
LOOPS = 1_000


def work(seconds: float) -> float:
    """Compute for so many seconds of this thread's CPU time; returns the loops done a second of it."""
    began = now = time.thread_time()
    done = 0
    while now - began < seconds:
        sum(range(LOOPS))
        done += 1
        now = time.thread_time()
    return done / (now - began)


async def hog(seconds: float) -> tuple[float, int]:
    speed = work(seconds)
    return speed, time.perf_counter_ns()


async def measure(hogs: int, tickers: int, seconds: float) -> dict[str, Any]:
    plait: Any = importlib.import_module("plait")
    alone = [work(seconds / 3) for _ in range(5)]
    stop: list[bool] = []
    seen = [array("q") for _ in range(tickers)]
    begin = time.perf_counter_ns() + 50_000_000
    others = [plait.spawn(ticker(plait.sleep, begin, stop, mine)) for mine in seen]
    await asyncio.sleep(GAP_S)
    windows, speeds = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        results = [await task for task in [plait.spawn(hog(seconds)) for _ in range(hogs)]]
        windows.append((start, max(end for _, end in results)))
        speeds += [speed for speed, _ in results]
        await asyncio.sleep(GAP_S)
    stop.append(True)
    for task in others:
        await task
    alone += [work(seconds / 3) for _ in range(5)]  # before and after: the machine's mood changes
    rounds = [summary(str(number), seen, *window) for number, window in enumerate(windows)]
    return {
        f"cold{hogs}": rounds[0]["p99"],
        f"learned{hogs}": statistics.median(each["p99"] for each in rounds[-3:]),
        f"work{hogs}": statistics.median(speeds) / statistics.median(alone),
    }


def main() -> None:
    parser = common.parser(__doc__, ("plait",))
    parser.add_argument("--tickers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.3)
    args = parser.parse_args()
    workers = 1 if common.is_gil_enabled() else 2
    found: dict[str, Any] = {}
    for hogs in (2, 4):  # each in a runtime of its own, which knows no place yet
        found |= common.run("plait", measure, hogs, args.tickers, args.seconds, workers=workers)
    common.emit(found)


if __name__ == "__main__":
    main()
