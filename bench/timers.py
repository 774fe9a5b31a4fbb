"""Many timers: what a pending one costs, and what is left of those that were cancelled.

call_later   pending `loop.call_later`s in the main strand
sleep        pending tasks in `asyncio.sleep`, in the main strand
spawned      pending tasks in the peer's own sleep, each in a strand of its own (for asyncio and uvloop: the same as sleep)
pooled       pending `loop.call_later`s in one spawned strand (for asyncio and uvloop: the same as call_later)
cancels      `call_later` and cancel, a million times, 1,000 between two turns of the loop
timeouts     `asyncio.timeout` around an await that completes, a million times, by 100 tasks

Deadlines lie between one and two hours ahead, in no order. Seconds: until all are set and the loop has looked at them, in
one run without tracing. Bytes: what all of it keeps, by tracemalloc, in a second run; not the list of handles. For cancels
and timeouts they are what the second half million left behind.
"""

import asyncio
import gc
import importlib
import random
import time
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any

from bench import common

HOUR = 3600.0


def nothing() -> None:
    pass


def spread(count: int) -> list[float]:
    chance = random.Random(1)
    return [HOUR + chance.random() * HOUR for _ in range(count)]


async def looked_at() -> None:
    """Let the loop, and a pool's workers, take in what was set."""
    await asyncio.sleep(0.001)
    await asyncio.sleep(0.001)


class Pending:
    """That many timers of one kind, which wait."""

    def __init__(self, peer: str, count: int) -> None:
        self.peer, self.delays = peer, spread(count)
        self.held: list[Any] = [None] * count

    async def call_later(self) -> None:
        call_later, held = asyncio.get_running_loop().call_later, self.held
        for number, delay in enumerate(self.delays):
            held[number] = call_later(delay, nothing)

    async def pooled(self) -> None:
        await common.spawner(self.peer)(self.call_later())

    async def sleep(self) -> None:
        await self._start(asyncio.create_task, asyncio.sleep)

    async def spawned(self) -> None:
        sleep = importlib.import_module("plait").sleep if self.peer == "plait" else asyncio.sleep
        await self._start(common.spawner(self.peer), self._asleep, sleep)

    async def _asleep(self, delay: float, sleep: Any) -> None:
        await sleep(delay)

    async def _start(self, start: Any, coroutine: Any, *args: Any) -> None:
        held = self.held
        for number, delay in enumerate(self.delays):
            held[number] = start(coroutine(delay, *args))
            if number % 1000 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        if start is not asyncio.create_task and self.peer == "plait":
            timers = importlib.import_module("plait").current_strand()._pool.timers  # stats() would count the tasks as well
            while len(timers) < len(held):
                await asyncio.sleep(0.001)

    async def stop(self) -> None:
        for handle in self.held:
            handle.cancel()
        if hasattr(self.held[0], "done"):
            for begin in range(0, len(self.held), 1000):
                await asyncio.wait(self.held[begin : begin + 1000])
        self.held.clear()


async def pending(peer: str, kind: str, count: int) -> dict[str, float]:
    gc.collect()
    batch = Pending(peer, count)
    begun, cpu = time.perf_counter(), time.process_time()
    await getattr(batch, kind)()
    await looked_at()
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    await batch.stop()
    await looked_at()
    tracemalloc.start()
    batch = Pending(peer, count)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    await getattr(batch, kind)()
    await looked_at()
    gc.collect()
    bytes_each = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    await batch.stop()
    return {"seconds": seconds, "cpu_s": cpu_s, "bytes": bytes_each}


async def cancels(count: int) -> None:
    call_later = asyncio.get_running_loop().call_later
    for _ in range(count // 1000):
        for handle in [call_later(HOUR, nothing) for _ in range(1000)]:
            handle.cancel()
        await asyncio.sleep(0)


async def timeouts(count: int) -> None:
    async def work() -> None:
        for _ in range(count // 100):
            async with asyncio.timeout(HOUR):
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(work())


async def gone(kind: Callable[[int], Coroutine[Any, Any, None]], count: int) -> dict[str, float]:
    """Seconds for all of them; then what the second half leaves behind that the first did not."""
    begun, cpu = time.perf_counter(), time.process_time()
    await kind(count)
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    tracemalloc.start()
    await kind(count // 2)
    await looked_at()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    await kind(count // 2)
    await looked_at()
    gc.collect()
    return {"seconds": seconds, "cpu_s": cpu_s, "kilobytes": (tracemalloc.get_traced_memory()[0] - before) / 1024}


PENDING = ("call_later", "sleep", "spawned", "pooled")
GONE: dict[str, Callable[[int], Coroutine[Any, Any, None]]] = {"cancels": cancels, "timeouts": timeouts}


async def measure(peer: str, kind: str, count: int) -> dict[str, float]:
    return await (gone(GONE[kind], count) if kind in GONE else pending(peer, kind, count))


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--kind", choices=(*PENDING, *GONE), default="call_later")
    parser.add_argument("--count", type=int, default=1_000_000)
    args = parser.parse_args()
    common.emit(common.run(args.peer, measure, args.peer, args.kind, args.count))


if __name__ == "__main__":
    main()
