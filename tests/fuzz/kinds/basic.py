"""Steps, results, exceptions, and what is done about them."""

from __future__ import annotations

import asyncio
from typing import Any

from fuzz.kinds import inner, leaf
from fuzz.play import Base, Boom, Play, show, variable
from fuzz.program import Node


@leaf(lambda dice: (dice.randrange(6),), weight=6)
async def steps(_play: Play, count: int) -> int:
    for _ in range(count):
        await asyncio.sleep(0)
    return count


@leaf()
async def value(_play: Play) -> int:
    return 7


@leaf(weight=3)
async def raise_(_play: Play) -> None:
    raise Boom("boom")


@leaf(weight=1)
async def raise_base(_play: Play) -> None:
    raise Base("base")


@leaf(weight=1)
async def raise_cancelled(_play: Play) -> None:
    raise asyncio.CancelledError("by hand")


@leaf()
async def never(_play: Play) -> None:
    await asyncio.get_running_loop().create_future()


@leaf()
async def result_of_sleep(_play: Play) -> str:
    return await asyncio.sleep(0, "slept")


class _Yields:
    def __init__(self, what: Any) -> None:
        self._what = what

    def __await__(self) -> Any:
        return (yield self._what)


@leaf(lambda dice: (dice.randrange(3),), weight=1)
async def bad_yield(_play: Play, which: int) -> Any:
    future = asyncio.get_running_loop().create_future()
    return await _Yields((7, future, (each for each in ()))[which])


@leaf(weight=1)
async def variable_(_play: Play) -> int:
    variable.set(variable.get() + 1)
    return variable.get()


@leaf(weight=1)
async def tasks_left(_play: Play) -> int:
    return sum(not task.done() for task in asyncio.all_tasks())


@inner(lambda dice: (dice.nodes(2, 4),), weight=4)
async def seq(play: Play, nodes: list[Node]) -> list[Any]:
    return [await play.node(each) for each in nodes]


@inner(lambda dice: (dice.choice(["swallow", "reraise", "other", "value", "steps", "uncancel"]), dice.node()), weight=4)
async def catch(play: Play, how: str, node: Node) -> Any:
    try:
        return await play.node(node)
    except (asyncio.CancelledError, Boom, BaseExceptionGroup, TimeoutError, RuntimeError) as error:
        if how == "reraise":
            raise
        if how == "other":
            raise Boom("instead") from None
        if how == "value":
            return show(error)
        if how == "steps":
            await steps(play, 2)
        if how == "uncancel":
            return play.me().uncancel()
    return None


@inner(lambda dice: (dice.node(), dice.node(2)), weight=3)
async def finally_(play: Play, node: Node, after: Node) -> Any:
    try:
        return await play.node(node)
    finally:
        await play.node(after)
