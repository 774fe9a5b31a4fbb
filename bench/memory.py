"""Bytes of Python memory per task that is suspended in one shared `Event().wait()`, by tracemalloc.

Counted is all that a task keeps: handle, strand, context, coroutine frame and the event's waiter; not the list of
handles. A first batch warms everything that exists once (threads, pools, caches) and stays out of the count. The same
coroutine on `asyncio.create_task` and `asyncio.Event` for asyncio and uvloop.
"""

import asyncio
import gc
import importlib
import tracemalloc
from typing import Any

from bench import common


async def suspended(event: Any) -> None:
    await event.wait()


async def batch(peer: str, tasks: int) -> float:
    """Spawn that many and say how many bytes each added."""
    spawn = common.spawner(peer)
    event: Any = importlib.import_module("plait" if peer == "plait" else "asyncio").Event()
    handles: list[Any] = [None] * tasks
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for i in range(tasks):
        handles[i] = spawn(suspended(event))
        if i % 100 == 0:
            await asyncio.sleep(0)  # tracing is slow: no step long enough for a stall report, which would count
    for _ in range(5):
        await asyncio.sleep(0.05)  # all of them wait then
    gc.collect()
    await asyncio.sleep(0.2)  # a collection that takes long is reported, and what the report takes is no task's
    per_task = (tracemalloc.get_traced_memory()[0] - before) / tasks
    event.set()
    for handle in handles:
        await handle
    return per_task


async def measure(peer: str, tasks: int) -> dict[str, float]:
    tracemalloc.start()
    await batch(peer, tasks // 10)
    return {"bytes": await batch(peer, tasks)}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    args = parser.parse_args()
    common.emit(common.run(args.peer, measure, args.peer, args.tasks))


if __name__ == "__main__":
    main()
