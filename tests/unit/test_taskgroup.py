"""plait.TaskGroup: asyncio.TaskGroup's semantics, a strand for each task."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import warnings
from typing import Any

import pytest
from unit_helpers import LONG, eventually, everywhere, forever, in_plait, other_strand, raises, value

import plait

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@everywhere
async def test_all_are_done_when_it_ends() -> None:
    async def work(number: int) -> tuple[int, Any]:
        await plait.sleep(0.001 * (number % 3))
        return number, plait.current_strand()

    async with plait.TaskGroup() as group:
        tasks = [group.create_task(work(number)) for number in range(20)]
    assert [task.result()[0] for task in tasks] == list(range(20))
    assert len({task.result()[1] for task in tasks} | {plait.current_strand()}) == 21


@in_plait(workers=2)
async def test_its_tasks_run_in_parallel() -> None:
    async def meet() -> int:
        return both.wait()

    both = threading.Barrier(2, timeout=LONG)
    async with plait.TaskGroup() as group:
        tasks = [group.create_task(meet()) for _ in range(2)]
    assert {task.result() for task in tasks} == {0, 1}


@everywhere
async def test_one_that_raises_cancels_the_others_and_the_body() -> None:
    async def wait() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            cancelled.append("child")
            raise

    cancelled: list[str] = []
    started = plait.Event()
    with pytest.raises(ExceptionGroup) as caught:
        async with plait.TaskGroup() as group:
            sibling = group.create_task(wait())
            await eventually(lambda: sibling.get_stack() and sibling.get_coro().cr_await is not None)
            group.create_task(raises(ValueError("child")))
            started.set()
            try:
                await forever()
            except asyncio.CancelledError:
                cancelled.append("body")
                raise
    assert [str(error) for error in caught.value.exceptions] == ["child"]
    assert sorted(cancelled) == ["body", "child"]
    assert sibling.cancelled()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0  # the group took its own cancel back


@everywhere
async def test_all_errors_come_out() -> None:
    async def stubborn() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise KeyError("on the way out") from None

    with pytest.raises(ExceptionGroup) as caught:
        async with plait.TaskGroup() as group:
            task = group.create_task(stubborn())
            await eventually(lambda: task.get_coro().cr_await is not None)
            raise ValueError("body")
    assert {type(error) for error in caught.value.exceptions} == {ValueError, KeyError}


@everywhere
async def test_a_cancel_from_outside_cancels_the_tasks_and_waits_for_them() -> None:
    ended: list[str] = []
    inside = plait.Event()

    async def wait() -> None:
        try:
            inside.set()
            await forever()
        finally:
            await plait.sleep(0.001)
            ended.append("child")

    async def outer() -> None:
        try:
            async with plait.TaskGroup() as group:
                group.create_task(wait())
        finally:
            ended.append("group")

    for start in (plait.spawn, asyncio.create_task):
        ended.clear()
        inside.clear()
        task: Any = start(outer())  # type: ignore[operator]
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["child", "group"]


@everywhere
async def test_inside_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):
            async with plait.TaskGroup() as group:
                task = group.create_task(forever())
    assert task.cancelled()


@everywhere
async def test_groups_nest() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with plait.TaskGroup() as outer:
            sibling = outer.create_task(forever())
            async with plait.TaskGroup() as inner:
                inner.create_task(raises(ValueError("inner")))
                inner.create_task(forever())
    inner_group = caught.value.exceptions[0]
    assert isinstance(inner_group, ExceptionGroup)
    assert str(inner_group.exceptions[0]) == "inner"
    assert sibling.cancelled()


@everywhere
async def test_a_cancelled_child_harms_nobody() -> None:
    async with plait.TaskGroup() as group:
        cancelled, other = group.create_task(forever()), group.create_task(plait.Event().wait())
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert not other.done()
        other.cancel()
    assert cancelled.cancelled()
    assert other.cancelled()


@in_plait
async def test_children_make_children() -> None:
    async def tree(depth: int) -> int:
        if depth:
            tasks.extend(group.create_task(tree(depth - 1)) for _ in range(2))
        return 1

    tasks: list[plait.Task[int]] = []
    async with plait.TaskGroup() as group:
        tasks.append(group.create_task(tree(6)))
    assert len(tasks) == 127
    assert sum(task.result() for task in tasks) == 127


@in_plait
async def test_create_task_from_other_strands() -> None:
    async with plait.TaskGroup() as group:
        tasks = [await other_strand(lambda: group.create_task(value(1))) for _ in range(5)]
    assert [task.result() for task in tasks] == [1] * 5


@in_plait
async def test_only_an_open_group_takes_tasks() -> None:
    group = plait.TaskGroup()

    def refused(match: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the coroutine is closed, so nothing says that it was never awaited
            with pytest.raises(RuntimeError, match=match):
                group.create_task(value(1))

    async def fail_and_look() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            await eventually(lambda: group._aborting)
            refused("shutting down")
            raise

    refused("entered")
    with pytest.raises(ExceptionGroup):
        async with group:
            task = group.create_task(fail_and_look())
            await eventually(lambda: task.get_coro().cr_await is not None)
            group.create_task(raises(ValueError("shut down")))
    refused("finished")
    with pytest.raises(ExceptionGroup):  # of a TypeError, as the body raised it
        async with plait.TaskGroup() as other:
            other.create_task(42)  # type: ignore[arg-type]


@in_plait
async def test_name_context_and_spawn_site() -> None:
    async def look() -> str:
        seen = variable.get()
        variable.set("inside")
        return seen

    context = contextvars.Context()
    context.run(variable.set, "given")
    variable.set("caller's")
    async with plait.TaskGroup() as group:
        task = group.create_task(look(), name="child")
        line = sys._getframe().f_lineno - 1
        given = group.create_task(look(), context=context)
    assert task.get_name() == "child"
    assert task.spawn_site is not None
    assert f"{__file__}:{line}" in task.spawn_site
    assert (task.result(), given.result()) == ("caller's", "given")
    assert (variable.get(), context[variable]) == ("caller's", "given")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_interrupts_come_out_bare(stop: type[BaseException]) -> None:
    async def main() -> None:
        async with plait.TaskGroup() as group:
            group.create_task(forever())
            group.create_task(raises(stop()))

    with pytest.raises(stop):
        plait.run(main())


@in_plait(workers=2)
async def test_the_last_child_is_not_missed() -> None:
    """Children finish while the body does: whoever is last, the group ends."""
    for round_ in range(150):
        async with asyncio.timeout(LONG):
            async with plait.TaskGroup() as group:
                tasks = [group.create_task(value(number)) for number in range(round_ % 5)]
                if round_ % 2:
                    await plait.checkpoint()
        assert [task.result() for task in tasks] == list(range(round_ % 5))


@in_plait(workers=2)
async def test_thousands_of_children() -> None:
    async def add(number: int) -> int:
        await plait.checkpoint()
        return number

    async with plait.TaskGroup() as group:
        tasks = [group.create_task(add(number)) for number in range(2000)]
    assert sum(task.result() for task in tasks) == sum(range(2000))


@in_plait(workers=2)
async def test_many_errors_at_once() -> None:
    go = plait.Event()

    async def fail(number: int) -> None:
        await go.wait()
        raise ValueError(number)

    with pytest.raises(ExceptionGroup) as caught:
        async with plait.TaskGroup() as group:
            tasks = [group.create_task(fail(number)) for number in range(50)]
            go.set()
    raised = {error.args[0] for error in caught.value.exceptions}  # type: ignore[union-attr]
    assert raised == {number for number, task in enumerate(tasks) if not task.cancelled()}
    assert raised


@in_plait
async def test_the_group_forgets_its_children_while_it_is_open() -> None:
    async with plait.TaskGroup() as group:
        for _ in range(4000):
            group.create_task(value(1))
            await plait.checkpoint()
        await eventually(lambda: len(group._tasks) < 2000)
