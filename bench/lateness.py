"""How late 100 tasks are while 64 others block their threads for a second each (`time.sleep(1)`), in milliseconds.

Each of the 100 is due at t0 + k * 5 ms for every k and notes how late it woke. A due time is never moved, so a task
that is late for one tick is late for the next as well (nothing is omitted while everybody hangs). Three times the 64
are spawned at once. A round's figures are over the ticks due from its first spawn to the end of its last blocker;
`quiet` is over the ticks before the first round: what the machine does by itself. plait: 2 workers, on a GIL build 1.
"""

import asyncio
import importlib
import time
from array import array
from typing import Any

from bench import common

PERIOD_NS = 5_000_000
QUIET_S, GAP_S = 0.5, 0.5


async def ticker(sleep: Any, begin: int, stop: list[bool], seen: array[int]) -> None:
    """Append each due time and how late it was (to an array: what is measured is not the collection of our own notes)."""
    due = begin
    while not stop:
        due += PERIOD_NS
        await sleep(max(0, due - time.perf_counter_ns()) / 1e9)
        seen.append(due)
        seen.append(time.perf_counter_ns() - due)


async def blocker(seconds: float) -> int:
    time.sleep(seconds)
    return time.perf_counter_ns()


def summary(label: str, seen: list[array[int]], begin: int, end: int) -> dict[str, Any]:
    late = sorted(ns / 1e6 for one in seen for due, ns in zip(one[::2], one[1::2], strict=True) if begin <= due <= end)
    return {
        "round": label,
        "ticks": len(late),
        "p50": common.quantile(late, 0.5),
        "p99": common.quantile(late, 0.99),
        "p999": common.quantile(late, 0.999),
        "max": late[-1],
        "seconds": (end - begin) / 1e9,
    }


async def measure(tickers: int, blockers: int, rounds: int, seconds: float) -> dict[str, Any]:
    plait: Any = importlib.import_module("plait")
    stop: list[bool] = []
    seen = [array("q") for _ in range(tickers)]
    begin = time.perf_counter_ns() + 50_000_000
    others = [plait.spawn(ticker(plait.sleep, begin, stop, mine)) for mine in seen]
    await asyncio.sleep(QUIET_S)
    windows = [("quiet", begin, time.perf_counter_ns() - 50_000_000)]
    for number in range(rounds):
        start = time.perf_counter_ns()
        ends = [await task for task in [plait.spawn(blocker(seconds)) for _ in range(blockers)]]
        windows.append((str(number + 1), start, max(ends)))
        await asyncio.sleep(GAP_S)
    stop.append(True)
    for task in others:
        await task
    return {"rounds": [summary(label, seen, start, end) for label, start, end in windows]}


def main() -> None:
    parser = common.parser(__doc__, ("plait",))
    parser.add_argument("--tickers", type=int, default=100)
    parser.add_argument("--blockers", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    workers = 1 if common.is_gil_enabled() else 2
    found = common.run("plait", measure, args.tickers, args.blockers, args.rounds, args.seconds, workers=workers)
    common.emit(found)


if __name__ == "__main__":
    main()
