"""plait.Task: asyncio.Task's interface, from any strand and any thread."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import io
import pickle
import re
import sys
import threading
import traceback
import weakref
from collections.abc import Generator
from typing import Any

import pytest
from unit_helpers import LONG, eventually, everywhere, forever, in_plait, other_strand, raises, value

import plait

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


# Its interface


@in_plait
async def test_pending() -> None:
    go = plait.Event()
    task = plait.spawn(go.wait())
    assert asyncio.isfuture(task)
    assert not task.done()
    assert not task.cancelled()
    for ask in (task.result, task.exception):
        with pytest.raises(asyncio.InvalidStateError):
            ask()
    assert "pending" in repr(task)
    go.set()
    assert await task is True
    assert task.done()
    assert task.result() is True
    assert task.exception() is None
    assert not task.cancel()


@in_plait
async def test_raised() -> None:
    error = KeyError("mine")
    task = plait.spawn(raises(error))
    with pytest.raises(KeyError):
        await task
    assert task.exception() is error
    assert not task.cancelled()
    with pytest.raises(KeyError):
        task.result()
    assert "KeyError" in repr(task)


@in_plait
async def test_cancelled() -> None:
    task = plait.spawn(forever())
    assert task.cancel("because") is True
    with pytest.raises(asyncio.CancelledError, match="because"):
        await task
    assert task.cancelled()
    assert task.done()
    for ask in (task.result, task.exception):
        with pytest.raises(asyncio.CancelledError) as raised:
            ask()
        assert not raised.value.args  # the message goes to the first who asks, as with asyncio
    assert not task.cancel()


@pytest.mark.parametrize("make", [plait.spawn, asyncio.create_task, asyncio.Task])
@in_plait
async def test_the_cancelled_error_and_its_message_are_asyncios(make: Any) -> None:
    """`_make_cancelled_error` and `_cancel_message`, which gather reads, of tasks that ended in every way."""

    async def cancels_itself(how: str) -> int:
        task: Any = asyncio.current_task()
        task.cancel("self")
        if how == "swallows":
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                pass
        return 5

    async def swallows() -> int:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            return 5
        raise AssertionError

    async def asked(coro: Any, message: str | None) -> list[Any]:
        task = make(coro)
        await eventually(lambda: task._fut_waiter is not None or task.done())
        if message is not None:
            task.cancel(message)
        before = task._cancel_message
        await asyncio.wait([task])
        after = task._cancel_message
        errors = [task._make_cancelled_error().args for _ in range(2)]
        return [before, after, *errors, None if task.cancelled() else task.result()]

    assert await asked(asyncio.sleep(LONG), "x") == [None, None, ("x",), (), None]
    assert await asked(swallows(), "x") == [None, None, (), (), 5]
    assert await asked(cancels_itself("returns"), None) == ["self", "self", ("self",), ("self",), None]
    assert await asked(cancels_itself("swallows"), None) == ["self", "self", ("self",), ("self",), 5]


@in_plait
async def test_results_cannot_be_set_from_outside() -> None:
    task = plait.spawn(value(1))
    with pytest.raises(RuntimeError, match="set_result"):
        task.set_result(2)
    with pytest.raises(RuntimeError, match="set_exception"):
        task.set_exception(ValueError())
    assert await task == 1


@in_plait
async def test_coro_context_and_stack() -> None:
    async def suspended() -> None:
        await go.wait()

    go = plait.Event()
    coro = suspended()
    variable.set("mine")
    task = plait.spawn(coro)
    assert task.get_coro() is coro
    assert task.get_context()[variable] == "mine"
    await eventually(lambda: coro.cr_await is not None)
    assert [frame.f_code.co_name for frame in task.get_stack()] == ["suspended"]
    assert task.get_stack(limit=1)[0].f_code is suspended.__code__
    out = io.StringIO()
    task.print_stack(file=out)
    assert "suspended" in out.getvalue()
    go.set()
    await task
    assert task.get_stack() == []


@in_plait
async def test_type_is_generic() -> None:
    assert plait.Task[int] is not None
    task: plait.Task[int] = plait.spawn(value(1))
    assert isinstance(task, plait.Task)
    await task


@in_plait
async def test_local_tasks_are_plaits_too() -> None:
    task = asyncio.create_task(value(1), name="local")
    assert isinstance(task, plait.Task)
    assert task in asyncio.all_tasks()
    assert task.get_loop() is asyncio.get_running_loop()
    assert await task == 1


@in_plait
async def test_from_a_plain_thread() -> None:
    def use() -> None:
        assert not task.done()
        assert task.get_name()
        assert repr(task)
        task.add_done_callback(seen.append)
        assert task.cancel("from a thread")
        assert task.cancelling() == 1

    seen: list[Any] = []
    task = plait.spawn(forever())
    await plait.to_thread(use)
    with pytest.raises(asyncio.CancelledError, match="from a thread"):
        await task
    await eventually(lambda: seen == [task])
    assert await plait.to_thread(task.cancelled)


# Awaiting


@everywhere
async def test_many_strands_await_one_task() -> None:
    async def wait() -> Any:
        return await task

    go = plait.Event()
    task = plait.spawn(go.wait())
    waiters = [plait.spawn(wait()) for _ in range(10)] + [plait.Strand().spawn(wait()), asyncio.create_task(wait())]
    await plait.sleep(0.005)
    go.set()
    assert [await waiter for waiter in waiters] == [True] * 12
    assert await task is True


@everywhere
async def test_an_exception_reaches_every_awaiter() -> None:
    async def wait() -> Any:
        with pytest.raises(ValueError, match="shared"):
            await task

    task = plait.spawn(raises(ValueError("shared")))
    for waiter in [plait.spawn(wait()) for _ in range(5)]:
        await waiter
    await wait()


@in_plait
async def test_awaiting_itself_is_refused() -> None:
    async def selfish() -> None:
        await mine

    go = plait.Event()

    async def after_go() -> None:
        await go.wait()
        await selfish()

    mine = plait.spawn(after_go())
    go.set()
    with pytest.raises(RuntimeError, match="await on itself"):
        await mine


@everywhere
async def test_a_foreign_future_says_what_to_do_instead() -> None:
    foreign: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await foreign

    with pytest.raises(plait.WrongStrand, match=r"strand\.call"):
        await plait.spawn(wait())
    assert issubclass(plait.WrongStrand, RuntimeError)
    foreign.set_result(None)
    await foreign


class Yields:
    """Awaiting it yields what it was given."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __await__(self) -> Generator[Any, None, None]:
        yield self.thing


class BrokenFuture:
    """Looks like a future, and is none."""

    _asyncio_future_blocking = True


class RaisingFuture:
    """A future whose callbacks can't be added."""

    _asyncio_future_blocking = True

    def get_loop(self) -> Any:
        return asyncio.get_running_loop()

    def add_done_callback(self, *_args: Any, **_options: Any) -> None:
        raise ArithmeticError("no")


class Touchy:
    """Its attributes raise."""

    @property
    def _asyncio_future_blocking(self) -> bool:
        raise ArithmeticError("don't touch")


@pytest.mark.parametrize("make", [lambda: 42, object, BrokenFuture, RaisingFuture, Touchy, lambda: (_ for _ in "")])
def test_bad_yields_raise_in_the_task_and_harm_nobody_else(make: Any) -> None:
    async def wait() -> None:
        await Yields(make())

    async def main() -> None:
        for task in (plait.spawn(wait()), plait.Strand().spawn(wait()), asyncio.create_task(wait())):
            done, _ = await asyncio.wait([task], timeout=LONG)
            assert done
            assert isinstance(task.exception(), Exception)
        assert await asyncio.wait_for(plait.spawn(value(1)), LONG) == 1

    plait.run(main(), workers=1)


@in_plait
async def test_yielding_a_future_instead_of_awaiting_it_is_refused() -> None:
    async def wait() -> None:
        await Yields(asyncio.get_running_loop().create_future())

    with pytest.raises(RuntimeError, match="yield"):
        await plait.spawn(wait())


# In asyncio's combinators, in whichever strand


@everywhere
async def test_gather() -> None:
    tasks = [plait.spawn(value(number)) for number in range(5)]
    assert await asyncio.gather(*tasks, value(5)) == [0, 1, 2, 3, 4, 5]
    assert await asyncio.gather(*tasks) == [0, 1, 2, 3, 4]  # finished ones
    with pytest.raises(ValueError, match="bad"):
        await asyncio.gather(plait.spawn(value(1)), plait.spawn(raises(ValueError("bad"))))
    good, bad = await asyncio.gather(plait.spawn(value(1)), plait.spawn(raises(ValueError())), return_exceptions=True)
    assert good == 1
    assert isinstance(bad, ValueError)


@everywhere
async def test_gather_with_a_cancelled_child() -> None:
    task = plait.spawn(forever())
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.gather(task, plait.spawn(value(1)))
    task = plait.spawn(forever())
    task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, asyncio.CancelledError)


@everywhere
async def test_cancelling_gather_cancels_the_tasks() -> None:
    tasks = [plait.spawn(forever()) for _ in range(3)]
    gathered = asyncio.gather(*tasks)
    asyncio.get_running_loop().call_later(0.002, gathered.cancel)
    with pytest.raises(asyncio.CancelledError):
        await gathered
    await eventually(lambda: all(task.cancelled() for task in tasks))


@pytest.mark.parametrize("start", [plait.spawn, asyncio.create_task])
@pytest.mark.parametrize("ends", ["return", "raise", "cancelled"])
@in_plait
async def test_a_cancelled_gather_ends_however_its_last_child_does(ends: str, start: Any) -> None:
    error = ValueError("at the end")
    waiting: list[None] = []

    async def child() -> str:
        try:
            waiting.append(None)
            await forever()
        except asyncio.CancelledError:
            if ends == "raise":
                raise error from None
            if ends == "cancelled":
                raise
        return "clean"

    tasks = [start(child()) for _ in range(2)]
    gathered = asyncio.gather(*tasks, return_exceptions=True)
    await eventually(lambda: len(waiting) == 2)
    gathered.cancel("enough")
    done, _ = await asyncio.wait([gathered], timeout=LONG)
    assert done
    assert isinstance(gathered.exception(), asyncio.CancelledError)
    for task in tasks:  # and what a child has to say is what it said
        if ends == "return":
            assert task.result() == "clean"
        elif ends == "raise":
            assert task.exception() is error
        else:
            assert task.cancelled()


@everywhere
async def test_wait() -> None:
    slow, quick = plait.spawn(forever()), plait.spawn(value(1))
    done, pending = await asyncio.wait([slow, quick], return_when=asyncio.FIRST_COMPLETED)
    assert (done, pending) == ({quick}, {slow})
    done, pending = await asyncio.wait([slow], timeout=0.001)
    assert (done, pending) == (set(), {slow})
    slow.cancel()
    done, pending = await asyncio.wait([slow, quick])
    assert done == {slow, quick}


@everywhere
async def test_wait_for() -> None:
    assert await asyncio.wait_for(plait.spawn(value(1)), LONG) == 1
    task = plait.spawn(forever())
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(task, 0.002)
    assert task.cancelled()
    with pytest.raises(ValueError, match="mine"):
        await asyncio.wait_for(plait.spawn(raises(ValueError("mine"))), LONG)


@everywhere
async def test_shield() -> None:
    assert await asyncio.shield(plait.spawn(value(1))) == 1
    go = plait.Event()
    task = plait.spawn(go.wait())
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), 0.002)
    assert not task.done()
    go.set()
    assert await task is True


@everywhere
async def test_as_completed() -> None:
    events = [plait.Event() for _ in range(3)]

    async def one(number: int) -> int:
        await events[number].wait()
        return number

    tasks = [plait.spawn(one(number)) for number in range(3)]
    found = []
    order = iter([1, 2, 0])
    events[next(order)].set()
    for task in asyncio.as_completed(tasks):
        found.append(await task)
        if (following := next(order, None)) is not None:
            events[following].set()
    assert found == [1, 2, 0]


@everywhere
async def test_asyncios_task_group() -> None:
    async def wait(task: plait.Task[Any]) -> Any:
        return await task

    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            other = plait.spawn(forever())
            group.create_task(wait(other))
            group.create_task(wait(plait.spawn(raises(ValueError("in a strand")))))
    assert caught.group_contains(ValueError, match="in a strand")
    assert other.cancelled()


@everywhere
async def test_asyncios_timeout() -> None:
    task = plait.spawn(forever())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.002):
            await task
    assert task.cancelled()


@everywhere
async def test_ensure_future_and_wrap_future_take_it_as_it_is() -> None:
    task = plait.spawn(value(1))
    assert asyncio.ensure_future(task) is task
    assert asyncio.wrap_future(task) is task  # type: ignore[arg-type, comparison-overlap]
    await task


# Done-callbacks


@everywhere
async def test_done_callbacks_run_in_the_strand_that_registered_them() -> None:
    def note(number: int) -> Any:
        return lambda done: calls.append((number, done, plait.current_strand(), asyncio.current_task()))

    calls: list[Any] = []
    go = plait.Event()
    task = plait.spawn(go.wait())
    here = plait.current_strand()
    task.add_done_callback(note(1))
    task.add_done_callback(note(2))
    there = await other_strand(lambda: (task.add_done_callback(note(3)), plait.current_strand())[1])
    go.set()
    await task
    await eventually(lambda: len(calls) == 3)
    task.add_done_callback(note(4))  # it is done: called soon, not now
    assert len(calls) == 3
    await eventually(lambda: len(calls) == 4)
    assert sorted(calls, key=lambda call: int(call[0])) == [
        (1, task, here, None),
        (2, task, here, None),
        (3, task, there, None),
        (4, task, here, None),
    ]
    assert [number for number, *_ in calls if number != 3] == [1, 2, 4]


@in_plait
async def test_a_callback_registered_by_a_plain_thread_runs_in_the_tasks_strand() -> None:
    calls: list[Any] = []
    go = plait.Event()

    async def wait() -> plait.Strand:
        await go.wait()
        return plait.current_strand()

    task = plait.spawn(wait())
    await plait.to_thread(task.add_done_callback, lambda _: calls.append(plait.current_strand()))
    go.set()
    strand = await task
    await eventually(lambda: calls)
    assert calls == [strand]


@in_plait
async def test_callbacks_run_in_their_context() -> None:
    seen: list[str] = []
    go = plait.Event()
    task = plait.spawn(go.wait())
    context = contextvars.Context()
    context.run(variable.set, "given")
    task.add_done_callback(lambda _: seen.append(variable.get()), context=context)
    variable.set("registered")
    task.add_done_callback(lambda _: seen.append(variable.get()))
    variable.set("later")
    go.set()
    await eventually(lambda: len(seen) == 2)
    assert seen == ["given", "registered"]


@in_plait
async def test_callbacks_can_be_removed() -> None:
    calls: list[Any] = []
    go = plait.Event()
    task = plait.spawn(go.wait())
    task.add_done_callback(calls.append)
    task.add_done_callback(calls.append)
    kept: list[Any] = []
    task.add_done_callback(kept.append)
    assert task.remove_done_callback(calls.append) == 2
    assert task.remove_done_callback(calls.append) == 0
    go.set()
    await eventually(lambda: kept)
    assert calls == []


@in_plait
async def test_a_raising_callback_is_reported_and_the_others_run() -> None:
    def fail(_: Any) -> None:
        raise ValueError("callback")

    loop = asyncio.get_running_loop()
    problems: list[Any] = []
    loop.set_exception_handler(lambda _, context: problems.append(context["exception"]))
    calls: list[Any] = []
    task = plait.spawn(value(1))
    task.add_done_callback(fail)
    task.add_done_callback(calls.append)
    await eventually(lambda: calls)
    assert calls == [task]
    assert [str(problem) for problem in problems] == ["callback"]


@everywhere
async def test_the_callback_of_a_local_task_may_raise_and_has_no_current_task() -> None:
    def fail(done: Any) -> None:
        current.append(asyncio.current_task())
        raise ValueError(done.get_name())

    loop = asyncio.get_running_loop()
    problems: list[Any] = []
    current: list[Any] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    task = loop.create_task(value(1), name="one")
    task.add_done_callback(fail)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert [str(problem["exception"]) for problem in problems] == ["one"]
    assert problems[0]["message"].startswith("Exception in callback ") and "fail(" in problems[0]["message"]
    assert "fail" in repr(problems[0]["handle"])
    assert current == [None]
    assert asyncio.current_task() is not None


@everywhere
async def test_what_stands_in_the_queue_after_a_local_task_ended_calls_its_callback_once() -> None:
    loop = asyncio.get_running_loop()
    calls: list[Any] = []
    task = loop.create_task(value(1))
    task.add_done_callback(calls.append)
    wake = task._wakeup  # type: ignore[attr-defined]
    while not task.done():
        await asyncio.sleep(0)
    wake(None)  # a future that calls back twice
    wake(None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert calls == [task]


@everywhere
async def test_the_callback_of_a_local_task_that_ended_is_on_its_way() -> None:
    """As asyncio's: from the end on it can't be removed."""
    loop = asyncio.get_running_loop()
    calls: list[Any] = []
    found: list[Any] = []

    async def end() -> None:
        task.add_done_callback(calls.append)
        loop.call_soon(lambda: found.append(task.remove_done_callback(calls.append)))

    task = loop.create_task(end())
    await asyncio.wait([task])
    for _ in range(3):
        await asyncio.sleep(0)
    assert found == [0]
    assert calls == [task]
    assert task._callbacks is None  # type: ignore[attr-defined]


@in_plait(workers=2)
async def test_each_callback_is_called_once_however_late_it_comes() -> None:
    async def add(task: plait.Task[Any]) -> None:
        for _ in range(20):
            task.add_done_callback(calls.append)

    for _ in range(30):
        calls: list[Any] = []
        go = plait.Event()
        task = plait.spawn(go.wait())
        adders = [plait.spawn(add(task)) for _ in range(4)]
        go.set()
        for adder in adders:
            await adder
        await task
        await eventually(lambda calls=calls: len(calls) >= 80)  # type: ignore[misc]
        await plait.checkpoint()
        assert len(calls) == 80


# Cancelling


@everywhere
async def test_cancelling_the_awaiter_cancels_the_task() -> None:
    async def wait() -> None:
        started.set()
        await task

    started = plait.Event()
    for start in (plait.spawn, asyncio.create_task):
        task = plait.spawn(forever())
        started.clear()
        waiter: Any = start(wait())  # type: ignore[operator]
        await started.wait()
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert task.cancelled()


@everywhere
async def test_the_awaiter_waits_for_the_cancelled_task_to_clean_up() -> None:
    steps: list[str] = []
    started, waiting = plait.Event(), plait.Event()

    async def clean() -> None:
        try:
            started.set()
            await forever()
        finally:
            await plait.sleep(0.002)
            steps.append("cleaned")

    async def wait() -> None:
        try:
            waiting.set()
            await task
        finally:
            steps.append("awaiter")

    task = plait.spawn(clean())
    waiter = plait.spawn(wait())
    await started.wait()
    await waiting.wait()
    waiter.cancel()
    await asyncio.wait([waiter])
    assert steps == ["cleaned", "awaiter"]


@in_plait(workers=1)
async def test_cancelled_before_it_started_it_never_runs() -> None:
    ran: list[int] = []
    busy, strand, go = plait.Event(), plait.Strand(), threading.Event()

    async def block() -> None:
        busy.set()
        go.wait(LONG)

    async def run() -> None:
        ran.append(1)

    strand.spawn(block())
    await busy.wait()
    task = strand.spawn(run())
    assert task.cancel("too late")
    go.set()
    with pytest.raises(asyncio.CancelledError, match="too late"):
        await task
    assert ran == []


@pytest.mark.parametrize("kind", ["async def", "waiter"])
def test_cancelled_while_it_is_queued_it_never_runs(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The one worker is blocked, and no monitor hands off, so the task can't have started."""
    monkeypatch.setenv("PLAIT_MONITOR", "0")

    async def main() -> None:
        busy, go = plait.Event(), threading.Event()

        async def block() -> None:
            busy.set()
            go.wait(LONG)

        plait.spawn(block())
        await busy.wait()
        task = plait.spawn(forever() if kind == "async def" else plait.Event().wait())
        assert task.cancel("too late")
        go.set()
        done, _ = await asyncio.wait([task], timeout=LONG / 2)
        assert done, "the cancel was lost"
        with pytest.raises(asyncio.CancelledError, match="too late"):
            task.result()

    plait.run(main(), workers=1)


@in_plait
async def test_cancel_meets_a_running_task() -> None:
    """It is delivered where the task waits next, not in the middle of its step."""
    running, go = plait.Event(), threading.Event()
    steps: list[str] = []

    async def work() -> None:
        running.set()
        go.wait(LONG)
        steps.append("end of the step")
        try:
            await forever()
        except asyncio.CancelledError:
            steps.append("cancelled")
            raise

    task = plait.spawn(work())
    await running.wait()
    task.cancel()
    assert task.cancelling() == 1
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["end of the step", "cancelled"]


@in_plait
async def test_a_cancel_on_its_way_is_not_taken_for_an_earlier_one() -> None:
    """A time-out that is entered between the call of `cancel` and its delivery doesn't swallow it with its own."""
    running, go = plait.Event(), threading.Event()
    counts: list[int] = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        running.set()
        go.wait(LONG)
        counts.append(task.cancelling())
        async with asyncio.timeout(-1):
            try:
                await forever()
            finally:
                counts.append(task.cancelling())

    task = plait.spawn(work())
    await running.wait()
    task.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert counts == [0, 2]
    assert task.cancelling() == 1


@in_plait
async def test_a_cancel_on_its_way_can_be_taken_back() -> None:
    running, go = plait.Event(), threading.Event()

    async def work() -> str:
        running.set()
        go.wait(LONG)
        await plait.sleep(0)
        return "went on"

    task = plait.spawn(work())
    await running.wait()
    task.cancel()
    assert task.uncancel() == 0
    go.set()
    assert await task == "went on"


@in_plait
async def test_a_cancel_can_be_swallowed() -> None:
    async def stubborn() -> str:
        started.set()
        try:
            await forever()
        except asyncio.CancelledError:
            await plait.sleep(0)
        return "still here"

    started = plait.Event()
    task = plait.spawn(stubborn())
    await started.wait()
    await plait.sleep(0.002)
    assert task.cancel()
    assert await task == "still here"
    assert not task.cancelled()


@everywhere
async def test_cancelling_and_uncancel_count() -> None:
    async def count() -> list[int]:
        task = asyncio.current_task()
        assert task is not None
        started.set()
        counts = []
        for _ in range(2):
            try:
                await forever()
            except asyncio.CancelledError:
                counts.append(task.cancelling())
                more.set()
        return [*counts, task.uncancel(), task.uncancel(), task.uncancel()]

    started, more = plait.Event(), plait.Event()
    task = plait.spawn(count())
    await started.wait()
    task.cancel()
    await more.wait()
    task.cancel()
    assert await task == [1, 2, 1, 0, 0]


@everywhere
async def test_a_task_cancels_itself() -> None:
    async def itself(wait: bool) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("myself")
        if wait:
            await plait.sleep(1000)
        return "returned"

    for wait in (True, False):
        with pytest.raises(asyncio.CancelledError):
            await plait.spawn(itself(wait))


@everywhere
async def test_uncancel_in_time_takes_the_cancel_back() -> None:
    """From 3.13 on, as asyncio's; before that the count alone goes down."""

    async def change_its_mind() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        task.uncancel()
        return "went on"

    task = plait.spawn(change_its_mind())
    await asyncio.wait([task])
    assert task.cancelling() == 0
    assert task.cancelled() == (sys.version_info < (3, 13))


@in_plait(workers=2)
async def test_cancel_races_with_a_wake() -> None:
    """Whoever wins, the task ends, in one of two ways."""

    async def wait(event: plait.Event) -> bool:
        return bool(await event.wait())

    outcomes = set()
    for round_ in range(300):
        event = plait.Event()
        task = plait.spawn(wait(event))
        if round_ % 2:
            await plait.checkpoint()
        setter = plait.spawn(other_strand(event.set))
        task.cancel()
        try:
            outcomes.add(await asyncio.wait_for(task, LONG))
        except asyncio.CancelledError:
            outcomes.add("cancelled")
        await setter
    assert outcomes <= {True, "cancelled"}


@in_plait(workers=2)
async def test_cancels_from_many_strands_at_once() -> None:
    async def cancel(task: plait.Task[Any]) -> bool:
        return task.cancel()

    for _ in range(50):
        task = plait.spawn(forever())
        cancels = [plait.spawn(cancel(task)) for _ in range(4)]
        await asyncio.wait([task, *cancels], timeout=LONG)
        assert task.cancelled()
        assert task.cancelling() == sum(each.result() for each in cancels)


@in_plait
async def test_a_never_finished_local_task_complains_when_it_is_collected(caplog: pytest.LogCaptureFixture) -> None:
    import gc

    async def lonely() -> None:
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(lonely())
    await asyncio.sleep(0)
    del task
    await eventually(lambda: (gc.collect() and False) or "destroyed but it is pending" in caplog.text, 5)


def test_a_callback_added_outside_a_loop_may_raise() -> None:
    """It belongs to the task's strand, whose exception handler hears of it."""
    heard: list[Any] = []

    def bad(_task: Any) -> None:
        raise ValueError("mine")

    async def one() -> int:
        return 1

    loop = plait.new_event_loop()
    loop.set_exception_handler(lambda _loop, context: heard.append(context.get("exception")))
    task = loop.create_task(one())
    task.add_done_callback(bad)
    try:
        assert loop.run_until_complete(task) == 1
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
    assert [str(each) for each in heard] == ["mine"]


@in_plait
async def test_a_callback_is_removed_from_another_thread_too() -> None:
    called: list[str] = []
    go = plait.Event()

    def first(_task: Any) -> None:
        called.append("first")

    def second(_task: Any) -> None:
        called.append("second")

    async def waits() -> None:
        await go.wait()

    task = asyncio.create_task(waits())
    task.add_done_callback(first)
    task.add_done_callback(second)
    assert await plait.to_thread(task.remove_done_callback, first) == 1
    go.set()
    await task
    await asyncio.sleep(0)
    assert called == ["second"]


# What foreign code raises when a step is over


class Foreign:
    """A future of somebody else's."""

    _asyncio_future_blocking = False

    def __init__(self, **raises: BaseException) -> None:
        self.loop, self.raises, self.callbacks = asyncio.get_running_loop(), raises, []  # type: ignore[var-annotated]

    def _raise(self, where: str) -> None:
        error = self.raises.pop(where, None)
        if error is not None:
            raise error

    def get_loop(self) -> Any:
        self._raise("get_loop")
        return self.loop

    def add_done_callback(self, callback: Any, *, context: Any = None) -> None:
        self._raise("add_done_callback")
        self.callbacks.append((callback, context))

    def cancel(self, msg: Any = None) -> bool:
        self._raise("cancel")
        for callback, context in self.callbacks:
            self.loop.call_soon(callback, self, context=context)
        return True

    def __await__(self) -> Any:
        self._asyncio_future_blocking = True
        yield self
        raise asyncio.CancelledError


class Nasty:
    """What is yielded may be anything."""

    @property
    def __class__(self) -> Any:
        raise ZeroDivisionError("mine")

    @__class__.setter
    def __class__(self, value: Any) -> None: ...

    def __await__(self) -> Any:
        yield self


STARTS = [plait.spawn, asyncio.create_task]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError("mine"), GeneratorExit("mine")])
@everywhere
async def test_what_a_futures_cancel_raises_is_logged(
    start: Any, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """The task waits on, as with asyncio, and is cancelled by the next one; others go on."""
    waiting: list[Any] = []

    async def job(itself: bool) -> None:
        if itself:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
        waiting.append(Foreign(cancel=error))
        await waiting[-1]

    for itself in (True, False):
        caplog.clear()
        task = start(job(itself))
        await eventually(lambda: waiting and waiting[-1].callbacks)
        if not itself:
            asyncio.get_running_loop().call_soon(task.cancel)
        await eventually(lambda: "Exception in callback" in caplog.text)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        waiting.clear()


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("method", ["get_loop", "add_done_callback"])
@everywhere
async def test_what_raises_as_a_wait_begins_is_raised_in_the_task(start: Any, method: str) -> None:
    async def job(awaited: Any) -> str:
        try:
            await awaited()
        except (ValueError, asyncio.CancelledError, ZeroDivisionError) as error:
            return str(error)
        return "nothing"

    for error in (ValueError("mine"), asyncio.CancelledError("mine")):
        assert await start(job(lambda error=error: Foreign(**{method: error}))) == "mine"
    assert await start(job(Nasty)) == "mine"


@pytest.mark.parametrize("start", STARTS)
@everywhere
async def test_a_callback_that_cant_be_delivered_is_logged_and_the_others_are(
    start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)  # where a coroutine function is refused as a callback
    called: list[Any] = []
    try:
        task = start(asyncio.sleep(0.01))
        task.add_done_callback(value)
        task.add_done_callback(called.append)
        await task
        await eventually(lambda: called == [task])
        assert "coroutines cannot be used" in caplog.text
    finally:
        loop.set_debug(False)


@pytest.mark.parametrize("start", STARTS)
@everywhere
async def test_a_task_that_cancels_and_then_awaits_itself(start: Any) -> None:
    async def job() -> str:
        me: Any = asyncio.current_task()
        me.cancel("mine")
        try:
            await me
        except asyncio.CancelledError as error:
            return str(error)
        return "nothing"

    assert await start(job()) == "mine"


# What asyncio's tasks have and show


async def in_state(make: Any, state: str) -> Any:
    """A task in that state."""
    gate = asyncio.get_running_loop().create_future()

    async def job() -> Any:
        if state == "raised":
            raise ValueError("mine")
        if state == "waits for a task":
            return await make(forever(), name="inner")
        if state == "returned":
            return "result"
        if state == "cancels itself":
            asyncio.current_task().cancel("why")  # type: ignore[union-attr]
            return "dropped"
        if state == "refuses":
            try:
                await gate
            except asyncio.CancelledError:
                await asyncio.sleep(LONG)
        return await gate

    task = make(job(), name="job")
    if state != "new":
        await asyncio.sleep(0.001)
    if state in ("cancelled", "refuses"):
        task.cancel("why")
        await asyncio.sleep(0.001)
    if state == "ready":
        gate.set_result(1)
    if state == "cancelled and ready":
        gate.set_result(1)
        task.cancel("why")
    return task


STATES = (
    "new", "waiting", "waits for a task", "ready", "cancelled and ready", "returned", "raised", "cancelled", "cancels itself",
    "refuses",
)  # fmt: skip


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("state", STATES)
@in_plait
async def test_attributes_and_repr_are_asyncios(state: str, debug: bool) -> None:
    asyncio.get_running_loop().set_debug(debug)

    def told(task: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in (
            "_state", "_result", "_must_cancel", "_cancel_message", "_log_traceback",
            "_asyncio_future_blocking", "_log_destroy_pending", "_exception", "_fut_waiter", "_callbacks", "_source_traceback",
        ):  # fmt: skip
            value = getattr(task, name)
            plain = value is None or isinstance(value, bool | int | str)
            found[name] = value if plain else type(value).__name__.replace("LocalTask", "Task")
        for name in ("done", "cancelled", "cancelling", "get_name"):
            found[name] = getattr(task, name)()
        found["coro"] = task._coro is task.get_coro(), task._loop is task.get_loop()
        text = re.sub(r"0x[0-9a-f]+|:\d+|Task\.task_wakeup|Task\._wakeup|<Task[A-Za-z]+Wrapper[^>]*>", "...", repr(task))
        text = re.sub(r" created at [^ >]*", " created at ...", text)
        found["repr"] = text if state != "waits for a task" else text.split(" wait_for=")[0]  # ours names only the next task
        return found

    found = []
    for make in (asyncio.Task, asyncio.create_task):
        task = await in_state(make, state)
        found.append(told(task))
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
    assert found[1] == found[0]


@pytest.mark.parametrize("start", STARTS)
@in_plait
async def test_tasks_take_attributes_and_are_no_values(start: Any) -> None:
    task: Any = start(forever())
    task.mine = 7
    task._log_destroy_pending = False
    assert (task.mine, vars(task)["mine"]) == (7, 7)
    with pytest.raises(AttributeError):
        task.yours
    for refused in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot pickle"):
            refused(task)
    assert {task: 1}[task] == 1
    assert weakref.ref(task)() is task
    task.cancel()


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("start", STARTS)
@in_plait
async def test_a_lost_exception_comes_with_its_task(start: Any, debug: bool) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(debug)
    contexts: list[dict[str, Any]] = []
    variable.set("mine")

    def handler(_loop: Any, context: dict[str, Any]) -> None:
        contexts.append({**context, "variable": variable.get()})

    async def fail() -> None:
        asyncio.get_running_loop().set_exception_handler(handler)
        raise ValueError("lost")

    loop.set_exception_handler(handler)
    task = start(fail(), name="job")
    await asyncio.wait([task])
    del task
    await eventually(lambda: [gc.collect(), *contexts][1:])
    (context,) = contexts
    keys = ["message", "exception", "future", *(["source_traceback"] if debug else []), "variable"]
    assert list(context) == keys
    assert context["message"] == "Task exception was never retrieved"
    task = context["future"]
    assert isinstance(task, asyncio.Task)
    assert (task.get_name(), task.get_coro().__name__, task.done()) == ("job", "fail", True)
    assert str(task.exception()) == "lost"
    assert "exception=ValueError('lost')" in repr(task)
    assert ("spawned at" in repr(task)) == (start is plait.spawn)
    if debug:
        assert "test_a_lost_exception" in str(context["source_traceback"])
    if sys.version_info >= (3, 12):
        assert context["variable"] == "mine"
    contexts.clear()


@pytest.mark.parametrize("start", STARTS)
@in_plait
async def test_a_traceback_has_one_frame_of_ours_for_each_await(start: Any) -> None:
    async def outer() -> None:
        await start(raises(ValueError("mine")))

    with pytest.raises(ValueError, match="mine") as raised:
        await outer()
    names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert names[1:] == ["outer", "__await__", "raises"]


@everywhere
async def test_default_names_are_unique_and_in_the_order_of_creation() -> None:
    """Whoever asks first, and whoever makes the task; asyncio's own tasks, too."""

    async def name() -> str:
        return asyncio.current_task().get_name()  # type: ignore[union-attr]

    made: list[Any] = []
    for _ in range(20):
        made += [make(name()) for make in (asyncio.create_task, asyncio.Task, plait.spawn)]
        made.append(asyncio.create_task(name(), name="given"))
        made.append(asyncio.Task(name(), name="given, too"))
    await made[1]
    numbers = [int(task.get_name()[5:]) for task in reversed(made) if "given" not in task.get_name()]
    assert len(numbers) == 60
    assert numbers == sorted(set(numbers), reverse=True)
    assert [await task for task in made] == [task.get_name() for task in made]


def test_names_are_unique_though_many_threads_make_tasks() -> None:
    names: list[str] = []

    async def spawns() -> None:
        tasks = [plait.spawn(value(None)) for _ in range(300)] + [asyncio.create_task(value(None)) for _ in range(300)]
        names.extend(task.get_name() for task in tasks)
        await asyncio.gather(*tasks)

    async def main() -> None:
        await asyncio.gather(*(plait.spawn(spawns()) for _ in range(8)))

    plait.run(main(), workers=4)
    assert len(set(names)) == len(names) == 8 * 600
