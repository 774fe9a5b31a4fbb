"""Task groups."""

from __future__ import annotations

import asyncio
from typing import Any

from fuzz.kinds import inner
from fuzz.play import Group, Play, end
from fuzz.program import Node


@inner(lambda dice: (dice.nodes(1, 3), dice.node()), weight=6)
async def group(play: Play, nodes: list[Node], body: Node) -> list[str]:
    tasks = []
    async with Group() as members:
        for each in nodes:
            tasks.append(members.create_task(play.node(each), name=play.new_name()))
            play.keep(tasks[-1])
        await play.node(body)
    return [end(each) for each in tasks]


@inner(lambda dice: (dice.nodes(1, 3), dice.node(), dice.randrange(5), dice.randrange(3)), weight=4)
async def group_cancelled(play: Play, nodes: list[Node], body: Node, steps: int, times: int) -> str:
    """A group in a task that is cancelled from outside, perhaps again while it ends."""
    task = play.make(group(play, nodes, body))
    for number in range(times + 1):
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel(f"outside {number}")
    return await play.outcome(task)


@inner(lambda dice: (dice.node(), dice.node(), dice.node()), weight=3)
async def group_in_group(play: Play, first: Node, second: Node, body: Node) -> Any:
    async with Group() as outer:
        play.keep(outer.create_task(play.node(first), name=play.new_name()))
        async with Group() as within:
            play.keep(within.create_task(play.node(second), name=play.new_name()))
            return await play.node(body)


@inner(lambda dice: (dice.node(), dice.node()), weight=2)
async def group_grows(play: Play, first: Node, second: Node) -> None:
    """A member makes another member, perhaps of a group that is on its way out."""

    async def member() -> None:
        try:
            await play.node(first)
        finally:
            coro = play.node(second)
            try:
                play.keep(members.create_task(coro, name=play.new_name()))
            except RuntimeError:
                coro.close()
                play.log("the group takes no more")

    async with Group() as members:
        play.keep(members.create_task(member(), name=play.new_name()))
