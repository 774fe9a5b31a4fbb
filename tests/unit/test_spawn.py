"""plait.spawn: strands of their own, in parallel."""

from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import gc
import logging
import sys
import threading
import weakref
from collections.abc import Generator
from typing import Any

import pytest
from unit_helpers import LONG, eventually, everywhere, forever, in_plait, raises, value

import plait

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@everywhere
async def test_each_task_has_a_strand_of_its_own() -> None:
    async def where() -> tuple[Any, Any]:
        await plait.checkpoint()
        return plait.current_strand(), asyncio.get_running_loop()

    first, second = plait.spawn(where()), plait.spawn(where())
    strands = {plait.current_strand(), (await first)[0], (await second)[0]}
    assert len(strands) == 3
    for task in (first, second):
        strand, loop = await task
        assert strand is loop
    assert isinstance(first, plait.Task)


@in_plait(workers=2)
async def test_strands_run_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=LONG)

    async def meet() -> int:
        return both.wait()

    assert sorted([await task for task in (plait.spawn(meet()), plait.spawn(meet()))]) == [0, 1]


def test_an_idle_worker_steals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The children are queued by one worker, which blocks in one of them: nobody hands off, so the other must steal."""
    monkeypatch.setenv("PLAIT_MONITOR", "0")
    both = threading.Barrier(2, timeout=LONG)

    async def meet() -> None:
        both.wait()

    async def parent() -> None:
        children = [plait.spawn(meet()) for _ in range(8)]
        for child in children:
            await child

    async def main() -> None:
        for _ in range(20):
            await plait.spawn(parent())

    plait.run(main(), workers=2)


@in_plait
async def test_task_knows_itself_and_its_loop() -> None:
    async def look() -> tuple[Any, Any]:
        await plait.checkpoint()
        return asyncio.current_task(), plait.current_strand()

    task = plait.spawn(look())
    current, strand = await task
    assert current is task
    assert task.get_loop() is plait.current_strand() is not strand  # it may be awaited here


@in_plait
async def test_names() -> None:
    task = plait.spawn(value(1), name="chosen")
    assert task.get_name() == "chosen"
    one, two = plait.spawn(value(1)), plait.spawn(value(1))
    assert one.get_name().startswith("Task-")
    assert one.get_name() == one.get_name() != two.get_name()
    one.set_name(42)
    assert one.get_name() == "42"
    assert "42" in repr(one)
    await asyncio.wait([task, one, two])


@in_plait
async def test_spawn_site_is_the_callers_line() -> None:
    task, line = plait.spawn(value(1)), sys._getframe().f_lineno
    named = plait.spawn(value(1), name="named")
    for each, at in ((task, line), (named, line + 1)):
        assert each.spawn_site is not None
        assert f"{__file__}:{at} in test_spawn_site_is_the_callers_line" in each.spawn_site
        assert str(at) in repr(each)
    await asyncio.wait([task, named])


# Context


@everywhere
async def test_the_callers_context_is_copied() -> None:
    async def change() -> str:
        seen = variable.get()
        variable.set("inside")
        await plait.checkpoint()
        assert variable.get() == "inside"
        return seen

    variable.set("outside")
    assert await plait.spawn(change()) == "outside"
    assert variable.get() == "outside"


@in_plait
async def test_a_given_context_is_run_in_a_copy() -> None:
    async def change() -> str:
        seen = variable.get()
        variable.set("inside")
        return seen

    context = contextvars.Context()
    context.run(variable.set, "given")
    first, second = plait.spawn(change(), context=context), plait.spawn(change(), context=context)
    assert [await first, await second] == ["given", "given"]
    assert context[variable] == "given"
    assert await context.run(lambda: plait.spawn(change(), context=context)) == "given"  # entered: a copy is none the less
    assert context[variable] == "given"


# Exceptions


@in_plait
async def test_an_exception_nobody_retrieves_is_logged_with_the_spawn_site(caplog: pytest.LogCaptureFixture) -> None:
    task = plait.spawn(raises(ValueError("lost")), name="loser")
    line = sys._getframe().f_lineno - 1
    await eventually(task.done)
    del task
    with caplog.at_level(logging.ERROR):
        await eventually(lambda: (gc.collect() and False) or "lost" in caplog.text)
    assert "never retrieved" in caplog.text
    assert "loser" in caplog.text
    assert f"{__file__}:{line}" in caplog.text


@in_plait
async def test_a_retrieved_exception_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        with pytest.raises(ValueError, match="found"):
            await plait.spawn(raises(ValueError("found")))
        task = plait.spawn(raises(ValueError("looked at")))
        await asyncio.wait([task])
        assert isinstance(task.exception(), ValueError)
        del task
    gc.collect()
    await plait.spawn(value(1))
    assert "never retrieved" not in caplog.text


def test_lost_exceptions_are_logged_at_the_end_at_the_latest(program: Any) -> None:
    code, _, err = program(
        "import plait\n"
        "async def lose():\n"
        "    raise ValueError('lost')\n"
        "async def main():\n"
        "    task = plait.spawn(lose())\n"
        "    while not task.done():\n"
        "        await plait.sleep(0.001)\n"
        "plait.run(main())\n"
    ).end()
    assert code == 0
    assert "ValueError: lost" in err
    assert "program.py:5 in main" in err


# Lifetime


@in_plait
async def test_running_tasks_are_held() -> None:
    class Local:
        pass

    async def wait() -> None:
        local = Local()
        references.append(weakref.ref(local))
        await asyncio.get_running_loop().create_future()  # nobody else knows this future
        del local

    references: list[Any] = []
    plait.spawn(wait())
    await eventually(lambda: references)
    gc.collect()
    gc.collect()
    assert references[0]() is not None
    assert plait.stats().tasks == 1


@in_plait
async def test_finished_tasks_are_let_go() -> None:
    tasks = [weakref.ref(plait.spawn(value(1))) for _ in range(10)]
    await eventually(lambda: (gc.collect() and False) or plait.stats().tasks == 0)
    await plait.spawn(value(1))  # a worker's locals may hold the last one
    await plait.spawn(value(1))
    await eventually(lambda: (gc.collect() and False) or sum(task() is not None for task in tasks) <= 1)


# Who may spawn


def test_spawn_outside_is_refused() -> None:
    coro = value(1)
    with pytest.raises(RuntimeError, match=r"plait\.run"):
        plait.spawn(coro)
    coro.close()


def test_spawn_in_asyncios_loop_is_refused() -> None:
    async def main() -> None:
        coro = value(1)
        with pytest.raises(RuntimeError, match=r"plait\.run"):
            plait.spawn(coro)
        coro.close()

    asyncio.run(main())


@in_plait
async def test_spawn_from_a_plain_thread_is_refused() -> None:
    def refused() -> None:
        coro = value(1)
        with pytest.raises(RuntimeError, match="no strand"):
            plait.spawn(coro)
        coro.close()

    await plait.to_thread(refused)


@pytest.mark.parametrize("wrong", [None, 42, value, "coro"])
def test_spawn_refuses_what_is_no_coroutine(wrong: Any) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="coroutine"):
            plait.spawn(wrong)

    plait.run(main())


@in_plait
async def test_spawn_says_that_the_function_must_be_called() -> None:
    with pytest.raises(TypeError, match="call it"):
        plait.spawn(value)  # type: ignore[arg-type]


@everywhere
async def test_spawn_from_a_callback() -> None:
    loop = asyncio.get_running_loop()
    made: asyncio.Future[plait.Task[int]] = loop.create_future()
    loop.call_soon(lambda: made.set_result(plait.spawn(value(4))))
    assert await (await made) == 4


@in_plait
async def test_spawn_nests() -> None:
    async def tree(depth: int) -> int:
        if depth == 0:
            return 1
        children = [plait.spawn(tree(depth - 1)) for _ in range(2)]
        return sum([await child for child in children])

    assert await plait.spawn(tree(8)) == 256


@in_plait(workers=2)
async def test_thousands() -> None:
    async def add(number: int) -> int:
        await plait.checkpoint()
        return number

    tasks = [plait.spawn(add(number)) for number in range(3000)]
    assert sum([await task for task in tasks]) == sum(range(3000))


class Counted(collections.abc.Coroutine):  # type: ignore[type-arg]
    """A coroutine that no `async def` made, as Cython's aren't."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def send(self, _value: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise StopIteration("counted")

    def throw(self, kind: Any, error: Any = None, _traceback: Any = None) -> None:
        raise error or kind

    def __await__(self) -> Generator[Any, None, Any]:
        yield

    def close(self) -> None:
        pass


@in_plait
async def test_any_kind_of_coroutine() -> None:
    assert await plait.spawn(Counted(3)) == "counted"
    event = plait.Event()
    waiting = plait.spawn(event.wait())
    endless = plait.spawn(Counted(-1))
    event.set()
    assert await waiting is True
    endless.cancel()
    with pytest.raises(asyncio.CancelledError):
        await endless


@in_plait
async def test_unawaited_handles_do_not_matter() -> None:
    done = plait.Event()

    async def work() -> None:
        await plait.checkpoint()
        done.set()

    plait.spawn(work())
    assert await done.wait()
    plait.spawn(forever())  # left running: the end of run cancels it
