"""The same small program on asyncio's loop and in plait's main strand: what it returns must be the same.

Each is what was left of a random program that differed (tests/fuzz).
"""

from __future__ import annotations

import asyncio
import functools
import gc
import socket
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import plait


def same(program: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Make a test of a program that returns what it saw."""

    def wrapper() -> None:
        assert plait.run(program()) == asyncio.run(program())

    functools.update_wrapper(wrapper, program)
    del wrapper.__wrapped__  # type: ignore[attr-defined]
    return wrapper


async def ending(awaitable: Any) -> str:
    """How awaitable ends: its result or exception."""
    try:
        return repr(await awaitable)
    except (Exception, asyncio.CancelledError) as error:
        return repr(error) if not isinstance(error, RuntimeError) else "RuntimeError"


async def steps(count: int) -> None:
    """Yield so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


# Cancelled twice: the first cancel's error has been made by then


@same
async def test_a_second_cancel_in_the_same_iteration_does_not_change_the_message() -> Any:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(wait())
    await steps(1)
    task.cancel("first")
    task.cancel("second")
    return await ending(task), task.cancelling()


@same
async def test_a_second_cancel_while_a_joined_task_is_just_done() -> Any:
    async def join(other: Any) -> str:
        return await ending(other)

    async def seen(inner: Coroutine[Any, Any, Any], message: str | None) -> Any:
        other = asyncio.create_task(inner)
        task = asyncio.create_task(join(other))
        other.add_done_callback(lambda _: task.cancel("second"))  # before the task is woken, which is queued by then
        await steps(1)
        if message is not None:
            other.cancel(message)
        return await ending(task), other.cancelling()

    return await seen(asyncio.sleep(3600), "first"), await seen(asyncio.sleep(0, "result"), None)


@same
async def test_a_c_task_that_joins_a_cancelled_one_is_cancelled_with_its_message() -> Any:
    other = asyncio.create_task(asyncio.sleep(3600))
    task = asyncio.Task(ending(other), loop=asyncio.get_running_loop())
    other.add_done_callback(lambda _: task.cancel("second"))
    await steps(1)
    other.cancel("first")
    return await ending(task)


# A cancel that meets an error of waiting


class Yields:
    """Yields something that no task can wait for."""

    def __await__(self) -> Any:
        yield 7


@same
async def test_a_cancel_comes_before_the_error_of_a_bad_yield() -> Any:
    async def bad() -> None:
        await Yields()

    async def cancelled() -> None:
        asyncio.current_task().cancel("mine")  # type: ignore[union-attr]
        await Yields()

    task = asyncio.create_task(bad())
    await steps(1)
    task.cancel("theirs")
    return await ending(task), await ending(asyncio.create_task(cancelled()))


@same
async def test_a_task_that_awaits_itself_is_cancelled() -> Any:
    async def itself() -> None:
        await task

    task = asyncio.create_task(itself())
    await steps(1)
    task.cancel("why")
    await asyncio.wait([task])
    return task.cancelled()


@same
async def test_a_cancel_that_is_taken_back_before_it_came() -> Any:
    """3.13 and later: then it doesn't come."""

    async def take_back() -> str:
        task: Any = asyncio.current_task()
        task.cancel("mine")
        left = task.uncancel()
        return f"{left} {await ending(asyncio.sleep(0))}"

    return await ending(asyncio.create_task(take_back()))


# The order of steps


@same
async def test_who_joins_a_task_is_woken_in_the_iteration_in_which_its_callbacks_run() -> Any:
    seen: list[Any] = []

    async def join(name: str, other: Any) -> None:
        await other
        seen.append(name)

    async def started(name: str) -> None:
        seen.append(name)

    def in_callback(_task: Any) -> None:
        seen.append("callback")
        later.append(asyncio.create_task(started("made by the callback")))

    later: list[Any] = []
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(steps(3))
    task.add_done_callback(in_callback)
    joining = [asyncio.Task(join("a C task", task), loop=loop), asyncio.create_task(join("a task", task))]
    await asyncio.wait(joining)
    await asyncio.wait(later)
    return seen


@same
async def test_a_c_task_is_current_while_it_runs_after_a_join() -> Any:
    async def join(other: Any) -> Any:
        await other
        async with asyncio.timeout(3600):
            return asyncio.current_task() is task

    async def yields() -> None:
        await steps(2)
        seen.append(asyncio.current_task() is other)

    seen: list[Any] = []
    other = asyncio.create_task(yields())
    task = asyncio.Task(join(other), loop=asyncio.get_running_loop())
    return await task, seen


# What a closed loop keeps


def kept(run: Callable[..., Any]) -> int:
    """How many of its callbacks' arguments are kept by a loop that was closed with a reader, a timer and a callback left."""

    class Argument:
        pass

    async def leave() -> Any:
        loop = asyncio.get_running_loop()
        arguments = [Argument() for _ in range(3)]
        loop.add_reader(ours, print, arguments[0])
        loop.call_later(3600, print, arguments[1])
        future = loop.create_future()
        future.add_done_callback(functools.partial(lambda argument, _: loop.call_soon(print, argument), arguments[2]))
        future.cancel()
        return loop, [weakref.ref(each) for each in arguments]

    ours, theirs = socket.socketpair()
    with ours, theirs:
        loop, arguments = run(leave())
        gc.collect()
        assert loop.is_closed()
        return sum(each() is not None for each in arguments)


def test_a_closed_loop_keeps_no_callback(capsys: Any) -> None:
    assert kept(plait.run) == kept(asyncio.run) == 0
