"""Tasks of all sorts, made, joined and cancelled by name."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import types
from collections.abc import Coroutine
from typing import Any

from fuzz.kinds import inner, leaf
from fuzz.play import Boom, NewerTask, Play, PythonTask, name_of
from fuzz.program import Node


@inner(lambda dice: (dice.name(), dice.random() < 0.5, dice.node()), weight=6)
async def task(play: Play, name: str, wait: bool, node: Node) -> Any:
    new = play.names[name] = play.spawn(node, name)
    return await play.join(new) if wait else None


@inner(lambda dice: (dice.node(),), weight=2)
async def c_task(play: Play, node: Node) -> Any:
    """asyncio's own, in C."""
    return await play.join(play.spawn(node, make=asyncio.Task))


@inner(lambda dice: (dice.node(),), weight=2)
async def python_task(play: Play, node: Node) -> Any:
    """asyncio's own, in Python, and a class of somebody's."""
    return await play.join(play.spawn(node, make=PythonTask))


@inner(lambda dice: (dice.node(),), weight=1)
async def newer_task(play: Play, node: Node) -> Any:
    """A class of somebody's over the one in C."""
    return await play.join(play.spawn(node, make=NewerTask))


@inner(lambda dice: (dice.node(),), since=(3, 12))
async def eager(play: Play, node: Node) -> Any:
    return await play.join(play.spawn(node, make=asyncio.Task, eager_start=True))


@inner(lambda dice: (dice.name(), dice.node()), since=(3, 12))
async def eager_named(play: Play, name: str, node: Node) -> None:
    play.names[name] = play.spawn(node, name, make=asyncio.Task, eager_start=True)


class _Foreign(Coroutine[Any, Any, Any]):
    """A coroutine that isn't the interpreter's, as compilers make them."""

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self._coro = coro
        self.send, self.throw, self.close = coro.send, coro.throw, coro.close

    def send(self, value: Any) -> Any: ...
    def throw(self, *error: Any) -> Any: ...
    def close(self) -> None: ...

    def __await__(self) -> Any:
        return self._coro.__await__()


@inner(lambda dice: (dice.name(), dice.random() < 0.5, dice.node()), weight=3)
async def foreign(play: Play, name: str, wait: bool, node: Node) -> Any:
    task = play.names[name] = play.make(_Foreign(play.node(node)), name)
    return await play.join(task) if wait else None


@inner(lambda dice: (dice.node(),), weight=1)
async def generator_based(play: Play, node: Node) -> Any:
    @types.coroutine
    def steps() -> Any:
        yield
        return (yield from play.node(node).__await__())

    return await steps()


@inner(lambda dice: (dice.node(), dice.node()))
async def own_context(play: Play, first: Node, second: Node) -> list[Any]:
    """Two tasks that share one context."""
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    if sys.version_info < (3, 12) and play.factory != "none":  # a factory can't be told
        return []
    tasks = [play.keep(loop.create_task(play.node(each), context=context)) for each in (first, second)]
    return [await play.join(each) for each in tasks]


@inner(lambda dice: (dice.nodes(2, 3), dice.randrange(3)))
async def cancel_some(play: Play, nodes: list[Node], steps: int) -> list[Any]:
    """Start some, cancel one of them, then another, and see how they end."""
    tasks = [play.spawn(each) for each in nodes]
    for _ in range(steps):
        await asyncio.sleep(0)
    said = [each.cancel(f"some {number}") for number, each in enumerate(tasks[:2])]
    return said + [await play.outcome(each) for each in tasks]


@leaf(weight=1)
async def raise_unseen(play: Play) -> None:
    """Nobody asks for the exception: reported when the task goes."""

    async def raises() -> None:
        raise Boom("unseen")

    play.loop.create_task(raises())


@leaf(weight=1)
async def drop_pending(play: Play) -> None:
    """A task that nobody knows, and nobody wakes: reported when it goes."""

    async def waits(future: Any) -> None:
        await future

    play.loop.create_task(waits(play.loop.create_future()))


@leaf(lambda dice: (dice.name(),), weight=3)
async def join(play: Play, name: str) -> Any:
    return await play.join(play.names.get(name))


@leaf(lambda dice: (dice.name(),), weight=7)
async def cancel(play: Play, name: str) -> Any:
    return play.cancel(name, name)


@leaf(lambda dice: (dice.name(),), weight=2)
async def cancel_twice(play: Play, name: str) -> Any:
    said = play.cancel(name, "first"), play.cancel(name, "second")
    await asyncio.sleep(0)
    return said, play.cancel(name, "third")


@leaf(lambda dice: (dice.name(), dice.randrange(3)))
async def uncancel_other(play: Play, name: str, steps: int) -> Any:
    """Cancel, and think better of it."""
    target = play.names.get(name)
    if target is None:
        return None
    target.cancel("not meant")
    for _ in range(steps):
        await asyncio.sleep(0)
    return target.uncancel()


@leaf(weight=3)
async def cancel_self(play: Play) -> None:
    play.me().cancel("self")
    await asyncio.sleep(0)


@leaf(weight=2)
async def cancel_self_and_end(play: Play) -> str:
    """The cancel meets the task in its last step."""
    play.me().cancel("at the end")
    return "ended"


@leaf(weight=2)
async def cancel_self_and_wait(play: Play) -> Any:
    """The cancel meets what the task waits for only afterwards."""
    play.me().cancel("before it waits")
    return await play.futures[0]


@leaf(weight=3)
async def uncancel(play: Play) -> int:
    return play.me().uncancel()


@leaf(weight=1)
async def uncancel_self(play: Play) -> Any:
    """Cancel, take it back, and go on (3.13: then it doesn't come)."""
    play.me().cancel("back")
    left = play.me().uncancel()
    await asyncio.sleep(0)
    return left


@leaf(weight=1)
async def await_itself(play: Play) -> str:
    """Told, not awaited: who awaits a task that awaited itself has an error from CPython (left_out.txt)."""

    async def itself() -> None:
        await play.me()

    return await play.outcome(play.make(itself()))


@leaf(lambda dice: (dice.name(),), weight=1)
async def look(play: Play, name: str) -> Any:
    """What others may ask of a task."""
    target = play.names.get(name)
    if target is None:
        return None
    stack = [frame.f_code.co_name for frame in target.get_stack()][-1:]  # of one that runs it has the loop's frames
    return target.done(), target.cancelled(), target.cancelling(), name_of(target), target.get_loop() is play.loop, stack
