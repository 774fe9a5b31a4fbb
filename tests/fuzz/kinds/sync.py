"""asyncio's events, futures, locks, semaphores, conditions, barriers and queues, which all tasks of a program share."""

from __future__ import annotations

import asyncio
from typing import Any

from fuzz.kinds import inner, leaf
from fuzz.play import Boom, Play, PythonFuture
from fuzz.program import Node


@leaf(lambda dice: (dice.randrange(3),), weight=4)
async def event(play: Play, which: int) -> bool:
    return await play.events[which].wait()


@leaf(lambda dice: (dice.randrange(3),), weight=3)
async def set_event(play: Play, which: int) -> None:
    play.events[which].set()


@leaf(lambda dice: (dice.randrange(3),), weight=1)
async def clear_event(play: Play, which: int) -> None:
    play.events[which].clear()


@leaf(lambda dice: (dice.randrange(2),), weight=3)
async def future(play: Play, which: int) -> Any:
    return await play.futures[which]


@leaf(lambda dice: (dice.randrange(2), dice.randrange(3)), weight=3)
async def set_future(play: Play, which: int, how: int) -> None:
    target = play.futures[which]
    if not target.done():
        (target.set_result, lambda _: target.set_exception(Boom("future")), lambda _: target.cancel("future"))[how](how)


@leaf(lambda dice: (dice.randrange(2),), weight=1)
async def new_future(play: Play, which: int) -> None:
    play.futures[which] = PythonFuture(loop=play.loop) if which else play.loop.create_future()


@leaf(lambda dice: (dice.randrange(1, 4),), weight=3)
async def lock(play: Play, steps: int) -> None:
    async with play.lock:
        for _ in range(steps):
            await asyncio.sleep(0)


@inner(lambda dice: (dice.node(),))
async def in_semaphore(play: Play, node: Node) -> Any:
    async with play.semaphore:
        return await play.node(node)


@leaf(weight=2)
async def condition(play: Play) -> bool:
    async with play.condition:
        return await play.condition.wait()


@leaf(lambda dice: (dice.randrange(3),), weight=1)
async def condition_for(play: Play, which: int) -> bool:
    async with play.condition:
        return await play.condition.wait_for(play.events[which].is_set)


@leaf(lambda dice: (dice.randrange(1, 3),), weight=2)
async def notify(play: Play, most: int) -> None:
    async with play.condition:
        play.condition.notify(most)


@leaf(weight=2)
async def barrier(play: Play) -> int:
    return await play.barrier.wait()


@leaf(lambda dice: (dice.choice(["abort", "reset"]),), weight=1)
async def end_barrier(play: Play, how: str) -> None:
    await getattr(play.barrier, how)()


@leaf(lambda dice: (dice.randrange(2),), weight=3)
async def get(play: Play, which: int) -> Any:
    return await play.queues[which].get()


@leaf(lambda dice: (dice.randrange(2), dice.randrange(3)), weight=3)
async def put(play: Play, which: int, item: int) -> None:
    await play.queues[which].put(item)


@leaf(lambda dice: (dice.randrange(2),), weight=1)
async def task_done(play: Play, which: int) -> None:
    try:
        play.queues[which].task_done()
    except ValueError:
        play.log("task_done too often")


@leaf(lambda dice: (dice.randrange(2),), weight=1)
async def join_queue(play: Play, which: int) -> None:
    await play.queues[which].join()


@leaf(lambda dice: (dice.randrange(2), dice.random() < 0.5), weight=1, since=(3, 13))
async def shut_queue(play: Play, which: int, now: bool) -> None:
    play.queues[which].shutdown(now)
