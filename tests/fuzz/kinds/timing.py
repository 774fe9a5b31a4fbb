"""Time-outs and timers that are due at once, or never while the program runs."""

from __future__ import annotations

import asyncio
from typing import Any

from fuzz.kinds import inner, leaf
from fuzz.play import Play, end, name_of
from fuzz.program import Node


@leaf()
async def sleep_long(_play: Play) -> None:
    await asyncio.sleep(3600)


@inner(lambda dice: (dice.choice([None, 0, -1, 3600]), dice.node()), weight=4)
async def timeout(play: Play, seconds: float | None, node: Node) -> Any:
    async with asyncio.timeout(seconds):
        return await play.node(node)


@inner(lambda dice: (dice.choice([None, 0, 3600]), dice.choice([None, 0, 3600]), dice.node()), weight=2)
async def timeout_nested(play: Play, outer: float | None, within: float | None, node: Node) -> Any:
    async with asyncio.timeout(outer) as first:
        async with asyncio.timeout(within) as second:
            await play.node(node)
    return first.expired(), second.expired()


@inner(lambda dice: (dice.choice([None, -1, 3600]), dice.choice([None, -1]), dice.node(), dice.node()), weight=2)
async def timeout_moved(play: Play, seconds: float | None, to: float | None, first: Node, second: Node) -> Any:
    """Rescheduled half way."""
    async with asyncio.timeout(seconds) as scope:
        await play.node(first)
        scope.reschedule(None if to is None else play.loop.time() + to)
        await play.node(second)
    return scope.expired()


@leaf(lambda dice: (dice.choice([0, -1]),), weight=2, anywhere=False)
async def timer(play: Play, seconds: float) -> Any:
    """Due in the next iteration, behind what is queued by then."""
    future = play.loop.create_future()
    play.loop.call_later(seconds, lambda: future.done() or future.set_result("timer"))
    return await future


@leaf(
    lambda dice: ([dice.choice(["soon", "later", "past", "threadsafe", "cancelled"]) for _ in range(4)],),
    weight=2,
    anywhere=False,
)
async def timers(play: Play, how: list[str]) -> None:
    """What is due at once, in its order."""
    loop = play.loop
    now = loop.time()
    for number, each in enumerate(how):
        if each == "soon":
            loop.call_soon(play.log, "call_soon", number)
        elif each == "threadsafe":
            loop.call_soon_threadsafe(play.log, "call_soon_threadsafe", number)
        elif each == "cancelled":
            loop.call_later(0, play.log, "cancelled", number).cancel()
        elif each == "later":
            loop.call_later(0, play.log, "call_later", number)
        else:
            loop.call_at(now - number, play.log, "call_at", number)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@leaf(lambda dice: (dice.name(),), weight=2, anywhere=False)
async def cancel_by_timer(play: Play, name: str) -> None:
    play.loop.call_later(0, play.cancel, name, "timer")


@inner(lambda dice: (dice.choice([0, 1e-9]), dice.node()), weight=2, anywhere=False)
async def timeout_at_once(play: Play, seconds: float, node: Node) -> Any:
    """Due in the next iteration."""
    async with asyncio.timeout(seconds):
        return await play.node(node)


# By a clock that goes by iterations (play.seconds)


@leaf(lambda dice: (dice.randrange(5),), weight=3, anywhere=False)
async def sleep(play: Play, iterations: int) -> str:
    return await asyncio.sleep(play.seconds(iterations), "slept")


@inner(lambda dice: (dice.randrange(5), dice.node()), weight=3, anywhere=False)
async def timeout_after(play: Play, iterations: int, node: Node) -> Any:
    async with asyncio.timeout(play.seconds(iterations)):
        return await play.node(node)


@inner(lambda dice: (dice.randrange(5), dice.node()), weight=2, anywhere=False)
async def wait_for_after(play: Play, iterations: int, node: Node) -> Any:
    return await asyncio.wait_for(play.node(node), play.seconds(iterations))


@inner(lambda dice: (dice.randrange(4), dice.nodes(1, 3)), weight=2, anywhere=False)
async def wait_after(play: Play, iterations: int, nodes: list[Node]) -> list[str]:
    tasks = [play.spawn(each) for each in nodes]
    done, _ = await play.all(tasks, asyncio.wait(tasks, timeout=play.seconds(iterations)))
    return [f"{name_of(each)} {end(each)}" for each in tasks if each in done]


@inner(lambda dice: (dice.randrange(4), dice.nodes(1, 3)), weight=2, anywhere=False)
async def as_completed_within(play: Play, iterations: int, nodes: list[Node]) -> int:
    tasks = [task for each in nodes if not (task := play.spawn(each)).done()]
    found = 0
    for each in asyncio.as_completed(tasks, timeout=play.seconds(iterations)):
        await play.all(tasks, each)
        found += 1
    return found


@inner(lambda dice: (dice.randrange(4), dice.randrange(4), dice.node(), dice.node()), weight=2, anywhere=False)
async def timeout_moved_after(play: Play, before: int, after: int, first: Node, second: Node) -> Any:
    async with asyncio.timeout(play.seconds(before)) as scope:
        await play.node(first)
        scope.reschedule(play.loop.time() + play.seconds(after))
        await play.node(second)
    return scope.expired()


@leaf(lambda dice: (dice.name(), dice.randrange(4)), weight=3, anywhere=False)
async def cancel_after(play: Play, name: str, iterations: int) -> None:
    play.loop.call_later(play.seconds(iterations), play.cancel, name, "after a while")


@leaf(lambda dice: (dice.randrange(4), dice.randrange(4)), weight=1, anywhere=False)
async def timer_cancelled(play: Play, iterations: int, steps: int) -> bool:
    timer = play.loop.call_later(play.seconds(iterations), play.log, "timer")
    for _ in range(steps):
        await asyncio.sleep(0)
    timer.cancel()
    return timer.cancelled()
