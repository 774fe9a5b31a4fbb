"""Microseconds to spawn and finish a task that does nothing.

group: 10,000 in one TaskGroup (`plait.TaskGroup` against `asyncio.TaskGroup`), the default number of workers.
one: `await spawn(...)` 2,000 times from the main strand (`asyncio.create_task` on the peers).
The garbage collector stays on, as in a user's program. Median of several repeats after one that is thrown away.
"""

import asyncio
import importlib
import statistics
import time
from typing import Any

from bench import common


async def nothing() -> None:
    pass


async def group(peer: str, tasks: int) -> float:
    group_type: Any = importlib.import_module("plait" if peer == "plait" else "asyncio").TaskGroup
    begin = time.perf_counter()
    async with group_type() as tg:
        for _ in range(tasks):
            tg.create_task(nothing())
    return (time.perf_counter() - begin) / tasks * 1e6


async def one_by_one(peer: str, tasks: int) -> float:
    spawn = common.spawner(peer)
    begin = time.perf_counter()
    for _ in range(tasks):
        await spawn(nothing())
    return (time.perf_counter() - begin) / tasks * 1e6


async def measure(peer: str, tasks: int, repeats: int) -> dict[str, float]:
    groups, ones = [], []
    for _ in range(repeats + 1):
        groups.append(await group(peer, tasks))
        ones.append(await one_by_one(peer, tasks // 5))
        await asyncio.sleep(0)
    return {"group_us": statistics.median(groups[1:]), "one_us": statistics.median(ones[1:])}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    common.emit(common.run(args.peer, measure, args.peer, args.tasks, args.repeats))


if __name__ == "__main__":
    main()
