"""gather, wait, shield, as_completed, wait_for."""

from __future__ import annotations

import asyncio
from typing import Any

from fuzz.kinds import inner
from fuzz.play import Boom, Play, end, name_of, show
from fuzz.program import Dice, Node

_WHEN = ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION")


def _gathered(dice: Dice) -> tuple[Any, ...]:
    nodes = dice.nodes(1, 3)
    return dice.random() < 0.5, [dice.random() < 0.6 for _ in range(3)], nodes


@inner(_gathered, weight=6)
async def gather(play: Play, as_results: bool, as_tasks: list[bool], nodes: list[Node]) -> list[Any]:
    children = [play.spawn(each) if task else play.node(each) for each, task in zip(nodes, as_tasks, strict=False)]
    return [show(each) for each in await play.join(asyncio.gather(*children, return_exceptions=as_results))]


@inner(_gathered, weight=2)
async def gather_let_go(play: Play, as_results: bool, as_tasks: list[bool], nodes: list[Node]) -> str:
    """A gathering future that nobody awaits: cancelled after a while, it may have an exception that nobody asks for."""
    children = [play.spawn(each) if task else play.node(each) for each, task in zip(nodes, as_tasks, strict=False)]
    gathered = asyncio.gather(*children, return_exceptions=as_results)
    await asyncio.sleep(0)
    gathered.cancel("let go")
    return end(gathered)


@inner(lambda dice: (dice.choice(_WHEN), dice.nodes(1, 3)), weight=4)
async def wait(play: Play, when: str, nodes: list[Node]) -> list[str]:
    return await _wait(play, when, None, nodes)


@inner(lambda dice: (dice.nodes(1, 3),), weight=2, anywhere=False)
async def wait_no_longer(play: Play, nodes: list[Node]) -> list[str]:
    """The time is over in the next iteration."""
    return await _wait(play, "ALL_COMPLETED", 0, nodes)


async def _wait(play: Play, when: str, timeout: float | None, nodes: list[Node]) -> list[str]:
    tasks = [play.spawn(each) for each in nodes]
    done, pending = await play.all(tasks, asyncio.wait(tasks, return_when=getattr(asyncio, when), timeout=timeout))
    ends = [f"{name_of(each)} {end(each)}" for each in tasks if each in done]
    for each in tasks:
        if each in pending:
            each.cancel("waited enough")
    return ends


@inner(lambda dice: (dice.random() < 0.5, dice.node()), weight=2)
async def gather_again(play: Play, as_results: bool, node: Node) -> list[Any]:
    """The same task twice, and a future that others know."""
    task = play.spawn(node)
    gathered = asyncio.gather(task, play.futures[0], task, return_exceptions=as_results)
    return [show(each) for each in await play.all([task], gathered)]


@inner(lambda dice: (dice.choice(_WHEN), dice.node()), weight=2)
async def wait_again(play: Play, when: str, node: Node) -> Any:
    """A task, and futures that others know."""
    task = play.spawn(node)
    awaited = asyncio.wait([task, *play.futures], return_when=getattr(asyncio, when))
    done, _ = await play.all([task], awaited)
    return [each in done for each in (task, *play.futures)]


@inner(lambda dice: (dice.node(),), weight=1)
async def shield_future(play: Play, node: Node) -> Any:
    """Of a future, while something else goes on."""
    task = play.spawn(node)
    shielded = asyncio.shield(play.futures[1])
    await play.join(task)
    return await shielded


@inner(lambda dice: (dice.node(),), weight=3)
async def shield(play: Play, node: Node) -> Any:
    return await play.join(asyncio.shield(play.spawn(node)))


@inner(lambda dice: (dice.node(), dice.randrange(3)), weight=2)
async def shield_twice(play: Play, node: Node, steps: int) -> Any:
    """Cancelled once: wait on, shielded again."""
    task = play.spawn(node)
    try:
        return await play.join(asyncio.shield(task))
    except asyncio.CancelledError:
        for _ in range(steps):
            await asyncio.sleep(0)
        return await play.join(asyncio.shield(task))


def _not_done(play: Play, nodes: list[Node]) -> list[Any]:
    """Without those that are done at once: as_completed gives these in the order of a set."""
    return [task for each in nodes if not (task := play.spawn(each)).done()]


@inner(lambda dice: (dice.nodes(1, 4), dice.randrange(1, 5)), weight=3)
async def as_completed(play: Play, nodes: list[Node], most: int) -> list[Any]:
    """All of them, or the first few, the others left."""
    found: list[Any] = []
    tasks = _not_done(play, nodes)
    for each in asyncio.as_completed(tasks):
        try:
            found.append(await play.all(tasks, each))
        except Boom as error:
            found.append(show(error))
        if len(found) == most:
            break
    return found


@inner(lambda dice: (dice.nodes(1, 3),), since=(3, 13))
async def as_completed_async(play: Play, nodes: list[Node]) -> list[str]:
    """From 3.13 on it gives the tasks themselves."""
    tasks = _not_done(play, nodes)
    return [f"{name_of(each)} {end(each)}" async for each in asyncio.as_completed(tasks)]


@inner(lambda dice: (dice.choice([None, 0, -1, 3600]), dice.random() < 0.5, dice.node()), weight=4)
async def wait_for(play: Play, timeout: float | None, as_task: bool, node: Node) -> Any:
    return await asyncio.wait_for(play.spawn(node) if as_task else play.node(node), timeout)


@inner(lambda dice: (dice.node(), dice.randrange(4)), weight=2)
async def wait_for_race(play: Play, node: Node, steps: int) -> Any:
    """Who waits is cancelled about when what is waited for ends."""
    waiting = play.make(asyncio.wait_for(play.node(node), 3600))
    for _ in range(steps):
        await asyncio.sleep(0)
    waiting.cancel("race")
    return await play.outcome(waiting)
