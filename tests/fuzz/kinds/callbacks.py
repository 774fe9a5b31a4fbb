"""Callbacks: of the loop, and of tasks that are done."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from fuzz.kinds import inner, leaf
from fuzz.play import Base, Boom, Play, end, name_of, variable
from fuzz.program import Dice, Node

_WHAT = ("log", "raise", "cancel", "removed", "spawn", "context", "twice", "base", "add")


@leaf(weight=2)
async def soon(play: Play) -> Any:
    future = play.loop.create_future()
    play.loop.call_soon(lambda: future.done() or future.set_result("soon"))
    return await future


@leaf(lambda dice: (dice.name(),), weight=3)
async def cancel_soon(play: Play, name: str) -> None:
    play.loop.call_soon(_cancel, play, name)


def _cancel(play: Play, name: str) -> None:
    play.log(f"callback: {play.cancel(name, 'callback')}, {asyncio.current_task()}, {variable.get()}")


@leaf(lambda dice: (dice.randrange(4),), weight=1)
async def cancelled_handle(play: Play, which: int) -> None:
    handles = [play.loop.call_soon(play.log, "handle", number) for number in range(4)]
    handles[which].cancel()


@leaf(weight=1)
async def in_other_context(play: Play) -> None:
    play.loop.call_soon(lambda: play.log(f"variable {variable.get()}"), context=_other_context())


@leaf(lambda dice: (dice.name(),), weight=2)
async def cancel_from_thread(play: Play, name: str) -> None:
    """As a thread does it, which has asked before the loop looks."""
    if (target := play.names.get(name)) is not None:
        play.thread.submit(play.loop.call_soon_threadsafe, target.cancel, "from a thread").result()


@leaf(weight=1)
async def callback_raises(play: Play) -> None:
    play.loop.call_soon(_boom, None)


@leaf(lambda dice: (dice.randrange(2), dice.choice(_WHAT), dice.name()), weight=3)
async def when_set(play: Play, which: int, what: str, name: str) -> None:
    """A callback of a future."""
    play.futures[which].add_done_callback(_when_done(play, what, 20, name))


def _boom(_task: Any) -> None:
    raise Boom("in a callback")


def _of_done(dice: Dice) -> tuple[Any, ...]:
    return dice.node(), [dice.choice(_WHAT) for _ in range(dice.randint(1, 3))], dice.name()


@inner(_of_done, weight=4)
async def when_done(play: Play, node: Node, what: list[str], name: str) -> Any:
    """Callbacks of a task, added and removed."""
    task = play.spawn(node)
    for number, each in enumerate(what):
        callback = _when_done(play, each, number, name)
        task.add_done_callback(callback, **({"context": _other_context()} if each == "context" else {}))
        if each == "twice":
            task.add_done_callback(callback)
        if each == "removed":
            play.log(f"removed {task.remove_done_callback(callback)}")
    return await play.join(task)


def _other_context() -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(variable.set, 100)
    return context


def _when_done(play: Play, what: str, number: int, name: str) -> Any:
    def callback(task: Any) -> None:
        play.log(f"done {number}: {name_of(task)} {end(task)} {what}, {asyncio.current_task()}, {variable.get()}")
        if what == "raise":
            raise Boom("when done")
        if what == "base":
            raise (Base("when done"), asyncio.CancelledError("when done"))[number % 2]
        if what == "add":
            task.add_done_callback(_when_done(play, "log", number + 10, name))
        if what == "cancel":
            play.cancel(name, "when done")
        if what == "spawn":
            play.spawn(Node("steps", (1,)))

    return callback


@inner(lambda dice: (dice.node(),), weight=1)
async def when_done_late(play: Play, node: Node) -> None:
    """Added when it is done already."""
    task = play.spawn(node)
    await play.outcome(task)
    task.add_done_callback(_when_done(play, "log", 0, "a"))
    task.add_done_callback(_boom)


@inner(lambda dice: (dice.node(), dice.node()), weight=1)
async def report(play: Play, first: Node, second: Node) -> None:
    """What a program tells its loop's exception handler, between two things to do."""
    await play.node(first)
    play.loop.call_exception_handler({"message": "told by hand", "exception": Boom("told")})
    await play.node(second)
