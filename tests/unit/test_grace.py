"""A time-out bounds the waiting: cancelled waits for a task of another strand that is stuck in a step end without it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from unit_helpers import LONG, Program, eventually, everywhere, forever, hear, in_plait, spin_until

import plait
from plait._rt.task import grace

NAMED = "left to end by itself"


class Stuck:
    """A step that doesn't end before `go`; and how its task ended."""

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.tasks: list[Any] = []
        self.ended = ""

    async def block(self) -> str:
        self.tasks.append(asyncio.current_task())
        self.began.set()
        assert self.go.wait(LONG)
        try:
            await forever()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        return "never"

    async def compute(self) -> str:
        self.began.set()
        spin_until(self.go.is_set)
        await forever()
        return "never"

    async def is_cancelled_in_the_end(self) -> None:
        assert not self.tasks[0].done()
        self.go.set()
        await eventually(self.tasks[0].cancelled)
        assert self.ended == "cancelled"


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    made = Stuck()
    yield made
    made.go.set()


@pytest.fixture(autouse=True)
def no_reports() -> Iterator[None]:
    reports = logging.getLogger("plait.stalls")
    reports.setLevel(logging.CRITICAL)
    yield
    reports.setLevel(logging.NOTSET)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings that name who was left."""
    return [record.getMessage() for record in caplog.records if record.name == "plait" and NAMED in record.getMessage()]


async def wait_for(stuck: Stuck) -> None:
    await asyncio.wait_for(plait.spawn(stuck.block(), name="stuck"), 0.1)


async def timeout(stuck: Stuck) -> None:
    async with asyncio.timeout(0.1):
        await plait.spawn(stuck.block(), name="stuck")


async def gather(stuck: Stuck) -> None:
    task = plait.spawn(stuck.block(), name="stuck")
    await asyncio.wait_for(asyncio.gather(task, task), 0.1)


async def gather_exceptions(stuck: Stuck) -> None:
    async with asyncio.timeout(0.1):
        inner = asyncio.gather(plait.spawn(stuck.block(), name="stuck"), forever(), return_exceptions=True)
        await asyncio.gather(inner, forever(), plait.spawn(forever()), return_exceptions=True)


async def local_task(stuck: Stuck) -> None:
    await asyncio.wait_for(asyncio.create_task(wait_for_long(stuck)), 0.1)


async def wait_for_long(stuck: Stuck) -> None:
    await asyncio.wait_for(plait.spawn(stuck.block(), name="stuck"), LONG)


async def c_task(stuck: Stuck) -> None:
    async def body() -> None:
        await plait.spawn(stuck.block(), name="stuck")

    await asyncio.wait_for(asyncio.Task(body()), 0.1)


async def c_task_gathers(stuck: Stuck) -> None:
    async def body() -> None:
        await asyncio.gather(plait.spawn(stuck.block(), name="stuck"))

    await asyncio.wait_for(asyncio.Task(body()), 0.1)


async def call(stuck: Stuck) -> None:
    await asyncio.wait_for(plait.Strand().call(stuck.block()), 0.1)


async def call_pinned(stuck: Stuck) -> None:
    await asyncio.wait_for(plait.Strand(pinned=True).call(stuck.block()), 0.1)


async def chain(stuck: Stuck) -> None:
    async def outer() -> None:
        await plait.spawn(stuck.block(), name="stuck")

    await asyncio.wait_for(plait.spawn(outer()), 0.1)


WAYS = [
    wait_for, timeout, gather, gather_exceptions, local_task, wait_for_long, c_task, c_task_gathers, call, call_pinned, chain,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@everywhere
async def test_a_time_out_bounds_the_waiting(way: Any, stuck: Stuck, caplog: pytest.LogCaptureFixture) -> None:
    if way is wait_for_long:
        task = asyncio.create_task(way(stuck))
        await hear(stuck.began)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, LONG)
    else:
        for _ in range(50):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(way(stuck), LONG)
            if stuck.began.is_set():
                break  # else the machine was so busy that the task had not begun
    assert not stuck.go.is_set()
    (message,) = told(caplog)
    assert "block" in message
    assert "spawned at" in message
    await stuck.is_cancelled_in_the_end()


@in_plait
async def test_a_step_that_computes_is_left_too(stuck: Stuck) -> None:
    task = plait.spawn(stuck.compute())
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(task, 0.1)
    assert not task.done()
    stuck.go.set()
    await eventually(task.cancelled)


@everywhere
async def test_a_task_in_the_queue_of_a_stuck_strand_is_left(stuck: Stuck, caplog: pytest.LogCaptureFixture) -> None:
    strand = plait.Strand()
    first = strand.spawn(stuck.block())
    await hear(stuck.began)
    second = strand.spawn(forever())
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(second, 0.02)
    assert "forever" in told(caplog)[0]
    stuck.go.set()
    await eventually(second.cancelled)
    first.cancel()


@in_plait(workers=1, max_threads=1)
async def test_a_task_that_no_worker_comes_to_is_left(stuck: Stuck) -> None:
    """All threads are stuck, and there may be no more."""
    blocked = plait.spawn(stuck.block())
    await hear(stuck.began)
    task = plait.spawn(forever())
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(task, 0.02)
    stuck.go.set()
    await eventually(task.cancelled)
    blocked.cancel()


@everywhere
async def test_who_takes_the_cancel_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """However long it cleans up; and what it returns, having swallowed the cancel, is the result."""

    async def slow(result: str) -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            await asyncio.sleep(3 * grace.GRACE_SECONDS)
        return result

    async def both() -> list[str]:
        return await asyncio.gather(*(plait.spawn(slow(name)) for name in "ab"), return_exceptions=True)

    async def one() -> str:
        return await plait.spawn(slow("one"))

    for waits, error in ((one, None), (both, asyncio.CancelledError)):
        task: Any = asyncio.create_task(waits())  # type: ignore[operator]
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() if error else task.result() == "one"
    assert told(caplog) == []


@in_plait(workers=1)
async def test_who_is_only_late_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """Many tasks, each with something to do when it is cancelled: the last gets to it long after the grace is over."""

    async def work() -> None:
        try:
            await forever()
        finally:
            until = asyncio.get_running_loop().time() + 0.001
            spin_until(lambda: asyncio.get_running_loop().time() > until)

    tasks = [plait.spawn(work()) for _ in range(300)]
    gathered = asyncio.gather(*tasks)
    await asyncio.sleep(0.05)
    gathered.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gathered
    await eventually(lambda: all(task.cancelled() for task in tasks))
    assert told(caplog) == []


@pytest.fixture
def short_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's end waits little for what is stuck."""
    monkeypatch.setenv("PLAIT_SHUTDOWN_GRACE", "0.2")


@everywhere
async def test_a_second_cancel_ends_the_wait(stuck: Stuck, short_end: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grace, "GRACE_SECONDS", 10 * LONG)

    async def waits() -> None:
        await plait.spawn(stuck.block())

    for make in (asyncio.create_task, asyncio.Task):
        task: Any = make(waits())
        await hear(stuck.began)
        stuck.began.clear()
        task.cancel("first")
        await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel("second")
        with pytest.raises(asyncio.CancelledError, match="second"):
            await asyncio.wait_for(task, LONG)


@everywhere
async def test_a_second_cancel_reaches_a_task_that_took_the_first() -> None:
    took: list[str] = []

    async def stubborn() -> str:
        for _ in range(2):
            try:
                await forever()
            except asyncio.CancelledError as error:
                took.append(str(error))
        return "done"

    async def waits() -> str:
        return await plait.spawn(stubborn())

    task = asyncio.create_task(waits())
    await asyncio.sleep(0.02)
    task.cancel("first")
    await eventually(lambda: took == ["first"])
    task.cancel("second")
    assert await task == "done"
    assert took == ["first", "second"]


# Task groups


@everywhere
async def test_a_group_whose_parent_is_cancelled_leaves_a_stuck_child(
    stuck: Stuck, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plait.taskgroup, "LEAVE_AFTER", 0.05)
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.1):
            async with plait.TaskGroup() as group:
                group.create_task(stuck.block())
                other = group.create_task(forever())
    assert other.cancelled()
    assert "block" in told(caplog)[0]
    await stuck.is_cancelled_in_the_end()


@everywhere
async def test_a_group_with_an_error_waits_for_a_stuck_child(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plait.taskgroup, "LEAVE_AFTER", 0.002)

    async def fail() -> None:
        await hear(stuck.began)
        asyncio.get_running_loop().call_later(0.1, stuck.go.set)
        raise ValueError("mine")

    with pytest.raises(ExceptionGroup):
        async with plait.TaskGroup() as group:
            child = group.create_task(stuck.block())
            group.create_task(fail())
    assert child.cancelled()


@in_plait
async def test_what_a_left_child_raises_is_logged(
    stuck: Stuck, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plait.taskgroup, "LEAVE_AFTER", 0.05)

    async def fail() -> None:
        stuck.began.set()
        stuck.go.wait(LONG)
        raise ValueError("late")

    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.1):
            async with plait.TaskGroup() as group:
                group.create_task(fail())
    stuck.go.set()
    await eventually(lambda: "raised after its group had left it" in caplog.text)


# The end of a run


@pytest.mark.parametrize("how", ["await", "gather", "group", "wait", "task", "strand.call", "asyncgen"])
def test_a_run_ends_though_its_tasks_wait_for_a_stuck_one(program: Callable[..., Program], how: str) -> None:
    wait = {
        "await": "await stuck",
        "gather": "await asyncio.gather(stuck, forever(), return_exceptions=True)",
        "group": "async with plait.TaskGroup() as group: group.create_task(blocks())",
        "wait": "await asyncio.wait([stuck])",
        "task": "await asyncio.create_task(wait(stuck))",
        "strand.call": "await plait.Strand(pinned=True).call(blocks())",
        "asyncgen": "await plait.spawn(use())",
    }[how]
    code, out, err = program(f"""
import asyncio, os, threading
import plait
from plait import taskgroup

taskgroup.LEAVE_AFTER = 0.1
began = threading.Event()
kept = []

async def blocks():
    began.set()
    os.read(os.pipe()[0], 1)  # nothing will ever come

async def generate():
    try:
        yield 1
    finally:
        os.read(os.pipe()[0], 1)

async def use():
    kept.append(generate())
    await anext(kept[0])

async def forever():
    await plait.Event().wait()

async def wait(task):
    await task

async def waits(stuck):
    {wait}

async def main():
    stuck = plait.spawn({"forever()" if how == "asyncgen" else "blocks()"})
    waiting = asyncio.create_task(waits(stuck))
    while not began.is_set() and not kept:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    print("main is done", flush=True)

plait.run(main(), workers=2, shutdown_grace=0.3)
print("ended", flush=True)
os._exit(0)
""").end()
    assert (code, out) == (0, "main is done\nended\n"), err
    assert "stuck" in err


# Circles


@pytest.mark.parametrize("start", [plait.spawn, asyncio.create_task])
@pytest.mark.parametrize("how", ["await", "gather", "wait_for", "timeout", "all"])
@pytest.mark.parametrize(("count", "lead"), [(2, False), (3, False), (3, True)])
@in_plait
async def test_tasks_that_wait_for_each_other_can_be_cancelled(start: Any, how: str, count: int, lead: bool) -> None:
    """A cancel that comes back to a task ends its wait (on asyncio's loop that is a RecursionError)."""
    tasks: list[Any] = []

    async def wait_for_next(number: int) -> None:
        await eventually(lambda: len(tasks) == count)
        following = tasks[(number + 1) % count]
        waiting.append(number)
        if how == "await":
            await following
        elif how == "gather":
            await asyncio.gather(following, forever(), return_exceptions=True)
        elif how == "wait_for":
            await asyncio.wait_for(following, LONG * 2)
        elif how == "timeout":
            async with asyncio.timeout(LONG * 2):
                await following
        else:
            await asyncio.gather(*tasks)

    waiting: list[int] = []
    tasks += [start(wait_for_next(number)) for number in range(count)]
    first = start(wait_for_next(count - 1)) if lead else tasks[0]
    await eventually(lambda: len(waiting) == count + lead)
    await asyncio.sleep(0.01)
    first.cancel()
    done, pending = await asyncio.wait([first, *tasks], timeout=LONG)
    assert not pending
    assert all(task.cancelled() for task in done)


@in_plait
async def test_a_long_chain_of_tasks_is_cancelled() -> None:
    """As deep as any: the cancel goes along it in a loop, where calls would be too deep."""

    async def wait(task: Any) -> None:
        await task

    for start in (asyncio.create_task, plait.spawn):
        last: Any = start(forever())
        chain = [last]
        for _ in range(3000):
            chain.append(last := start(wait(last)))
        await eventually(lambda: all(task._fut_waiter is not None for task in chain))
        last.cancel()
        await asyncio.wait([last], timeout=LONG)
        assert sum(task.cancelled() for task in chain) == len(chain)
