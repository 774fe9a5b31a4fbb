"""What is set in the main strand holds in the others of its pool: task factory, exception handler, executor, slow callbacks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import warnings
from collections.abc import Coroutine
from typing import Any

import pytest
from unit_helpers import LONG, eventually, forever, in_plait, raises, value

import plait

KINDS = ("spawn", "group", "spawned in a strand", "called", "called, pinned")


async def start(kind: str, coro: Coroutine[Any, Any, Any]) -> Any:
    """Run coro in another strand."""
    if kind == "spawn":
        return await plait.spawn(coro)
    if kind == "group":
        async with plait.TaskGroup() as group:
            task = group.create_task(coro)
        return task.result()
    strand = plait.Strand(pinned="pinned" in kind)
    return await (strand.spawn(coro) if "spawned" in kind else strand.call(coro))


class Factory:
    """Makes C tasks, and notes of what."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, loop: Any, coro: Any, **options: Any) -> Any:
        self.made.append(coro.__name__)
        return asyncio.Task(coro, loop=loop, **options)


@pytest.mark.parametrize("kind", KINDS)
@in_plait
async def test_the_task_factory(kind: str) -> None:
    loop = asyncio.get_running_loop()
    factory = Factory()

    async def inner() -> str:
        return "result"

    async def outer() -> str:
        return await asyncio.create_task(inner())

    before = plait.Strand()
    loop.set_task_factory(factory)
    assert await start(kind, outer()) == "result"
    assert factory.made == ["outer", "inner"]
    assert await before.call(outer()) == "result"
    assert factory.made == ["outer", "inner"] * 2
    with pytest.raises(ValueError, match="mine"):
        await start("spawn", raises(ValueError("mine")))
    loop.set_task_factory(None)
    assert await start(kind, outer()) == "result"
    assert factory.made == ["outer", "inner"] * 2 + ["raises"]


@in_plait
async def test_a_pinned_strand_that_is_older_than_the_factory_has_it_too() -> None:
    factory = Factory()
    older, own = plait.Strand(pinned=True), plait.Strand(pinned=True)

    async def set_own(factory: Any) -> None:
        asyncio.get_running_loop().set_task_factory(factory)

    others = Factory()
    await own.call(set_own(others))
    asyncio.get_running_loop().set_task_factory(factory)
    assert await older.call(value(1)) == 1
    assert await own.call(value(1)) == 1
    assert (factory.made, others.made) == (["value"], ["value"])


@in_plait
async def test_a_pooled_strands_own_factory_goes_first() -> None:
    mains, own = Factory(), Factory()
    asyncio.get_running_loop().set_task_factory(mains)

    async def body() -> None:
        asyncio.get_running_loop().set_task_factory(own)
        await asyncio.create_task(value(1))

    await plait.spawn(body())
    assert (mains.made, own.made) == (["body"], ["value"])


@in_plait
async def test_what_a_factory_made_is_cancelled_with_its_task() -> None:
    loop = asyncio.get_running_loop()
    factory = Factory()
    loop.set_task_factory(factory)
    ended: list[Any] = []

    async def body() -> None:
        try:
            await forever()
        except asyncio.CancelledError as error:
            ended.append(error.args)
            raise

    task = plait.spawn(body(), name="mine")
    await eventually(lambda: "body" in factory.made)
    await asyncio.sleep(0.01)
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, LONG)
    assert ended == [("why",)]
    assert "body" in repr(task)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing was never awaited
        task = plait.spawn(body())
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("kind", KINDS)
@in_plait
async def test_handler_executor_and_slow_callback_duration(kind: str) -> None:
    loop = asyncio.get_running_loop()
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: contexts.append(context))
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1, "mine"))
    loop.slow_callback_duration = 7.0

    async def body() -> tuple[float, str]:
        strand = asyncio.get_running_loop()
        strand.call_exception_handler({"message": "lost"})
        name = await strand.run_in_executor(None, lambda: threading.current_thread().name)
        return strand.slow_callback_duration, name

    for _ in range(2):  # (a pinned strand that ends leaves the executor alone)
        seconds, thread = await start(kind, body())
        assert seconds == 7.0
        assert thread.startswith("mine")
    assert [context["message"] for context in contexts] == ["lost", "lost"]

    async def own() -> float:
        strand = asyncio.get_running_loop()
        strand.set_exception_handler(lambda _loop, _context: None)
        strand.slow_callback_duration = 8.0
        strand.call_exception_handler({"message": "not told"})
        return strand.slow_callback_duration

    assert await start(kind, own()) == 8.0
    assert loop.slow_callback_duration == 7.0
    assert len(contexts) == 2


def test_a_pinned_strand_that_is_closed_leaves_mains_executor_alone() -> None:
    executor = concurrent.futures.ThreadPoolExecutor(1)

    async def main() -> Any:
        asyncio.get_running_loop().set_default_executor(executor)
        strand = plait.Strand(pinned=True)
        assert await strand.call(value(1)) == 1
        await strand.aclose()
        assert strand._closed
        return await asyncio.get_running_loop().run_in_executor(None, int, "7")

    assert plait.run(main()) == 7
