"""Task: one coroutine and its result.

Ownership and invariants
    T1  One stepper: a task is stepped only by the holder of its strand's turn. A task's strand is final. A spawned task has
        none until the worker that starts it gives it one, and again when it is done and its strand was taken back for
        the next (worker.py).
    T2  A task that is pending is exactly one of: running; ready (in its strand's queue, once); waiting
        (`_waiting_for` is a waiter or a future that will post it once).
    T3  `_waiting_for`, and `must` and `message` of `_cancel`, change only under T1. `cancel()` from elsewhere counts it as
        coming and posts the delivery to the strand. So a cancel can't meet a task between running and waiting: it is
        delivered after the step has registered what it waits for. The strand itself sees the count change with the
        delivery: who enters a scope in between (asyncio.timeout, TaskGroup, anyio) would take it for an earlier one,
        and swallow it with its own.
        A task that is cancelled before it starts has nobody to deliver to: the canceller counts first and looks for the
        strand after, the starter gives the strand first and looks at the count after, and never runs the coroutine.
    T4  `asked` (how often cancel was asked and delivered) and `coming` of `_cancel` change under `_rarely`. A cancel is in
        `coming` until it is delivered, taken back or taken by the first step.
    T5  Finishing: value, then state, then every callback is popped from `_on_done` and delivered. Adding: append,
        then look at the state, and if it is finished pop and deliver. Each callback is popped by one thread, so it is
        delivered once whoever comes first (list.append and list.pop are atomic on both builds).
        A local task keeps the first callback of its own strand in `_call`, without a list: who adds it there and who
        finishes the task are one, the holder of the turn. It is delivered by queueing the finished task itself, whose
        `_run` calls it: no handle is made.
    T6  A member of a TaskGroup has the group in `_value` until it finishes, from before it is queued: who finishes it tells
        the group, once, and no list is made for it.

`_rarely` is one re-entrant lock for rare changes: re-entrant, since a finaliser may run in the middle of it. No user
code, wake-up or log call is made under it.

The interface is asyncio.Task's. Two kinds differ in what asyncio is told:
    Task        what `spawn` makes: the root of a strand of its own. It may be awaited, gathered, shielded, waited for
                from any strand, so `get_loop()` names the caller's loop. It gets its strand when it starts.
    LocalTask   what `loop.create_task` makes: it is bound to its strand like any asyncio task, is listed in
                `asyncio.all_tasks()`, held weakly, and complains if it is collected while pending.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import reprlib
import sys
import threading
import traceback
from asyncio import CancelledError, InvalidStateError
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from functools import partial
from types import CoroutineType, GenericAlias
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

from plait._rt.ground.cpython import (
    _cancel_and_wait,
    _format_callback_source,
    _format_callbacks,
    _format_coroutine,
    _GatheringFuture,
    _get_loop,
    _get_running_loop,
    _getframe,
    _release_waiter,
    _task_get_stack,
    _task_print_stack,
    forget_scheduled,
    scheduled_tasks,
)
from plait._rt.ground.here import here
from plait._rt.ground.run_queue import RunItem
from plait._rt.ground.spawn_site import Site
from plait._rt.task.call_graph import awaiter_of, set_of, variables_of
from plait._rt.task.current_task import MARKS_STAY, current_tasks, mark, unmark
from plait._rt.task.grace import Grace
from plait._rt.task.handles import Handle
from plait._rt.task.task_numbers import next_number
from plait._rt.task.waiter import ABANDONED, Cancelled, Waiter
from plait.errors import WrongStrand

if TYPE_CHECKING:
    from asyncio import Task as _Interface  # for type checkers it is one

    from plait._rt.strand.strand import Strand
else:
    _Interface = Generic

logger = logging.getLogger("plait")
T = TypeVar("T")

UNCANCEL_RESCINDS = sys.version_info >= (3, 13)  # does the last uncancel() take back a cancel that is still due?

PENDING, RETURNED, RAISED, CANCELLED = range(4)
_STATES = "PENDING", "FINISHED", "FINISHED", "CANCELLED"  # as asyncio calls them

_Future = asyncio.Future
_PASSING_ON = {  # who in asyncio cancels what it waits for by a callback of its own, and waits on
    _cancel_and_wait.__code__,
    _GatheringFuture.cancel.__code__,
}
NEAR = 100  # so many deliveries are looked through each time for a circle
_rarely = threading.RLock()
_send: Any = CoroutineType.send  # called unbound: no bound method a step


class _Cancel:
    """What was asked of a task by `cancel`; made at the first one."""

    __slots__ = ("asked", "coming", "left_in", "message", "must", "passing")

    def __init__(self) -> None:
        self.asked = 0  # T4
        self.coming: list[Cancellation] = []  # T4
        self.must = False  # raise CancelledError at the next step (T3)
        self.message: Any = None
        self.passing = False  # it is just being passed on to what the task waits for (T3)
        self.left_in: tuple[Any, ...] = ()  # the loops where `wait_for` gave up on the task (grace.py)


class Join(Waiter):
    """The wait for a task to finish: `await task`. Cancelling the waiting task cancels the awaited one, as in asyncio.

    If that is in another strand and doesn't take the cancel in time, or another cancel comes before it has, the wait is
    given up (grace.py); also if the task ends before the cancel comes to it: it would be lost.
    """

    __slots__ = ("_passed_on", "_task")

    _passed_on: Cancellation  # unset before there is one

    def __init__(self, task: Task[Any]) -> None:
        super().__init__()
        self._task = task

    def _park(self, task: Task[Any]) -> None:
        if task is self._task:
            raise RuntimeError(f"Task cannot await on itself: {task!r}")
        super()._park(task)

    def _enrol(self) -> None:
        self._task._add_callback(self)

    def _abandon(self) -> bool:
        return False  # by a cancel: the task's end resolves it

    def _withdraw(self) -> None:
        self._task._forget(self)

    def cancel(self, msg: str | None = None) -> bool:
        task = self._task
        if task._phase != PENDING or task._is_here():
            return task.cancel(msg)
        for cancellation in task._coming():
            if cancellation.waiter is self:  # not taken yet, and here is another one
                self._give_up(msg)
                return True
        self._passed_on = cancellation = task._send_cancel(msg, self)
        sleeper: Any = self._sleeper
        loop = sleeper._strand if isinstance(sleeper, Task) else sleeper._loop
        Grace(cancellation, loop, partial(self._give_up, msg))
        return True

    def _give_up(self, message: Any) -> bool | None:
        """End the wait with CancelledError, though the task goes on; in the strand of who waits. None if it has ended."""
        sleeper: Any = getattr(self, "_sleeper", None)  # (W4)
        if not Waiter._abandon(self):
            return None
        if isinstance(sleeper, Task):
            sleeper._resume_cancelled(message)
        else:
            self._sleeper = Cancelled(message)  # type: ignore[assignment]
            sleeper._wake_soon(self)
        return True

    def result(self) -> Any:
        """For a C Task, which throws it in where it was awaited."""
        return Waiter.result(self) if self._state == ABANDONED else self._task.result()

    def _deliver(self, _task: Task[Any]) -> None:
        self._fire()

    def _run(self) -> None:
        task = self._task
        if task._cancel is not None:
            passed_on = getattr(self, "_passed_on", None)
            if passed_on is not None and passed_on.due:  # as when asyncio's task is cancelled that waits for a finished one
                task._log_traceback = False
                self._give_up(passed_on.message)
                return
        Waiter._run(self)

    def _awaiter(self) -> Any:
        sleeper: Any = self._sleeper
        while isinstance(sleeper, Waiter):  # a claim
            sleeper = sleeper._sleeper
        return sleeper if isinstance(sleeper, Task) else awaiter_of(sleeper._call)

    def __repr__(self) -> str:
        task = self._task  # without what that waits for in its turn
        return f"<Task {task._state.lower()} name={task.get_name()!r} coro=<{_format_coroutine(task._coro)}>>"


class DoneCallback(Handle):
    """A function to call with the finished task, in the strand that registered it.

    A handle, so that the end of a task in that strand queues it as it is.
    """

    __slots__ = ()

    def _deliver(self: Any, task: Task[Any]) -> None:
        strand: Any = task._home if self._loop is None else self._loop
        running: Any = _get_running_loop()
        if strand is task._strand and strand is running and not strand._debug:
            self._args, self._loop = (task,), strand
            strand._ready.append(self)
            return
        try:
            strand.call_soon_threadsafe(self._callback, task, context=self._context)
        except RuntimeError as error:  # its loop is closed: nobody is left to tell but the task's own strand
            message = f"{task!r} is done, but the loop that its callback {self._callback!r} belongs to takes no more calls"
            logger.error(message, exc_info=error)

    def _awaiter(self: Any) -> Any:
        return awaiter_of(self._callback)


class _Unretrieved:
    """Held by a task that raised until somebody looks: `exception` is None then."""

    __slots__ = ("exception",)

    def __init__(self, exception: BaseException) -> None:
        self.exception: BaseException | None = exception


class _ToLog(_Unretrieved):
    """A spawned task's: if nobody ever looks its end logs the exception. (So tasks that end well have no finaliser to run.)

    The task is gone by then; the exception handler gets one that says the same.
    """

    __slots__ = ("again",)

    def __init__(self, task: Task[Any], exception: BaseException) -> None:
        super().__init__(exception)
        label = task._label if isinstance(task._label, tuple) else (task.get_name(), task._label)
        self.again = (task._coro, task._strand, label, task._context), task._source_traceback

    def __del__(self) -> None:
        if self.exception is None:
            return
        made, traceback = self.again
        task: Task[Any] = Task(*made)
        task._value, task._phase = (self.exception, _Unretrieved(self.exception), self.exception.__traceback__), RAISED
        if traceback is not None:
            task._source_traceback = traceback
        task._log_lost()


class LeftStrand:
    """In a finished task, for the strand that it left to the next one (worker.py): whoever wants that gets the main strand.

    (Each worker has its own. The main strand itself would have its references counted by all threads, for each task.)
    """

    __slots__ = ("main",)

    def __init__(self, main: Any) -> None:
        self.main = main


class _Raise:
    """Queued to resume a task with an exception."""

    __slots__ = ("exception", "task")

    def __init__(self, task: Task[Any], exception: BaseException) -> None:
        self.task, self.exception = task, exception

    def _run(self) -> None:
        self.task._run(self.exception)


class Cancellation:
    """A cancel on its way to a task in another strand.

    `cause` is the one whose delivery passed this one on: so it is known which tasks it has come by. Tasks that wait for each
    other in a circle would pass it on for ever; who meets it a second time takes it.
    `due`: it was neither taken by the task, while that was pending, nor taken back. It changes under `_rarely` (T4).
    """

    __slots__ = ("cause", "depth", "due", "message", "task", "waiter")

    def __init__(self, task: Task[Any], message: Any, waiter: Join | None) -> None:
        self.task, self.message, self.waiter, self.due = task, message, waiter, True
        self.cause: Cancellation | None = here.delivering
        self.depth: int = 0 if self.cause is None else self.cause.depth + 1

    def is_coming(self) -> bool:
        """Is it still on its way?"""
        return self.task._phase == PENDING and self in self.task._coming()

    def _run(self) -> None:
        task = self.task
        if task._arrived(self):
            here.delivering = self
            try:
                if self._is_back():
                    task._take_back(self.message)
                else:
                    task._deliver_cancel(self.message)
            except BaseException as error:
                task._report(error)
            finally:
                here.delivering = None

    def _is_back(self) -> bool:
        """Has it come by its task before? (Of a long way that is asked now and then: each time a step takes longer.)"""
        if self.depth > NEAR and self.depth % NEAR:
            return False
        cause = self.cause
        while cause is not None:
            if cause.task is self.task:
                return True
            cause = cause.cause
        return False


class Task(_Interface[T], RunItem):
    """A coroutine in a strand of its own, made by `plait.spawn` or `plait.TaskGroup.create_task`.

    Every method may be called from any strand and any thread, and none of them blocks. `await task` is a checkpoint;
    cancelling the awaiting task cancels this one, as with asyncio (`asyncio.shield` prevents it), and waits until it is done.
    But a time-out bounds the waiting: if this task doesn't take the cancel within 0.05 s, since its step doesn't end, the
    awaiting task gets its CancelledError without it. A warning of the logger `plait` names the task; it is left to end by
    itself, and cancelled when its step is over. A second cancel of the awaiting task has the same effect at once.
    """

    __slots__ = (
        "__dict__",  # made when somebody keeps something there; asyncio's tasks have one
        "__weakref__",
        "_cancel",
        "_context",
        "_coro",
        "_label",
        "_number",
        "_on_done",
        "_phase",
        "_strand",
        "_value",
        "_waiting_for",
    )

    def _take_turn(self, worker: Any) -> None:  # one that has not started stands in a run queue itself
        worker.start_task(self)

    _asyncio_future_blocking = False  # so that asyncio takes it for a future; `__await__` yields a Join in its stead
    _log_destroy_pending = True
    _source_traceback: Any = None

    __class_getitem__: Any = classmethod(GenericAlias)  # type: ignore[assignment]
    __class__: Any = asyncio.Task  # for isinstance(task, asyncio.Task); so no super() in here, which would mean that

    def __init__(self, coro: Any, strand: Any, label: Any, context: Context) -> None:
        self._coro = coro
        self._strand = strand
        self._context = context
        self._label = label  # a name, a Site, both in a tuple, or None
        self._number = next_number() if label.__class__ is Site else 0  # of its default name
        self._phase = PENDING
        self._cancel: _Cancel | None = None
        self._value: Any = None
        self._waiting_for: Any = None
        self._on_done: list[Any] | None = None

    # Stepping: only the holder of the strand's turn comes here (T1)

    def _run(self, exception: BaseException | None = None) -> None:
        """Make one step."""
        strand = self._strand
        if strand._marked is not self:
            if self._phase:
                return self._finished_run()
            if MARKS_STAY:  # mark(), without the price of a call
                current_tasks[strand] = strand._marked = self
            else:
                mark(strand, self)
        coro = self._coro
        if self._cancel is not None:
            exception = self._due_cancel(coro, exception)
        self._waiting_for = None
        try:
            if exception is not None:
                yielded = self._context.run(coro.throw, exception)
            elif coro.__class__ is CoroutineType:
                yielded = self._context.run(_send, coro, None)
            else:
                yielded = self._context.run(coro.send, None)
        except StopIteration as stop:
            if self._cancel is None:
                self._finish(RETURNED, stop.value)
            else:
                self._returned(stop.value)
        except BaseException as raised:
            self._stopped(raised)
            self = exception = None  # type: ignore[assignment]  # its traceback's frames know this one: no cycle
        else:
            if yielded is None:
                strand._ready_again(self)
            else:
                self._suspend(yielded)

    def _finished_run(self) -> None:
        """What stands in the queue after the end does nothing; a local task has its callback to call (T5)."""

    def _first_step(self) -> Any:
        """The first step of a task that was cancelled before it, or whose coroutine is not the interpreter's own."""
        coro = self._coro
        self._count_arrived()
        error = self._take_cancel()
        if error is None:
            return self._context.run(coro.send, None)
        return self._context.run(coro.throw, error)

    def _wake(self, _waiter: Waiter) -> None:
        self._run()

    def _wakeup(self, _future: Any) -> None:
        """The callback given to futures. `call_soon` knows it and queues the task; a future that calls it itself, perhaps in
        our context, or on another thread, does the same here."""
        self._strand._post(self)

    def _suspend(self, yielded: Any) -> None:
        """Register with what the coroutine waits for, now that it is suspended."""
        try:
            if yielded.__class__ is _Future and yielded._asyncio_future_blocking and yielded.get_loop() is self._strand:
                yielded._asyncio_future_blocking = False  # the common case, without the questions below
                yielded.add_done_callback(self._wakeup, context=self._context)
                self._waiting_for = yielded
            elif isinstance(yielded, Waiter):
                self._waiting_for = yielded
                yielded._park(self)
            else:
                self._suspend_on(yielded)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as problem:  # foreign code: its faults are the task's
            self._waiting_for = None
            self._strand._ready.append(_Raise(self, problem))
            return
        cancel = self._cancel
        if cancel is not None and cancel.must:  # it cancelled itself in this step
            cancel.must = False
            try:
                self._deliver_cancel(cancel.message)
            except BaseException as error:
                cancel.must = True
                self._report(error)

    def _report(self, error: BaseException) -> None:
        """Foreign code raised, of which no coroutine is to know: tell the strand's exception handler, as asyncio does."""
        if isinstance(error, SystemExit | KeyboardInterrupt):
            raise error
        context = {"message": f"Exception in callback, between two steps of {self!r}", "exception": error, "task": self}
        home: Any = self._home
        home.call_exception_handler(context)

    def _suspend_on(self, yielded: Any) -> None:
        """The same for something that may be a future, of asyncio's or of somebody else's."""
        blocking = getattr(yielded, "_asyncio_future_blocking", None)
        problem = self._problem(yielded, blocking)
        if problem is not None:
            raise problem
        yielded._asyncio_future_blocking = False
        yielded.add_done_callback(self._wakeup, context=self._context)
        self._waiting_for = yielded

    def _problem(self, yielded: Any, blocking: bool | None) -> Exception | None:
        """Why what was yielded can't be waited for, if so."""
        if blocking:
            if yielded is self:
                return RuntimeError(f"Task cannot await on itself: {self!r}")
            loop = _get_loop(yielded)
            if loop is not self._strand:
                return WrongStrand(
                    f"Task {self!r} got Future {yielded!r} attached to a different loop: a future belongs to one strand. "
                    "Await it where it lives, `await strand.call(coro)`, or use a plait.Task, plait.Event or channel, "
                    "which any strand may await."
                )
            return None
        if blocking is not None:
            return RuntimeError(f"yield was used instead of yield from in task {self!r} with {yielded!r}")
        if inspect.isgenerator(yielded):
            return RuntimeError(f"yield was used instead of yield from for generator in task {self!r} with {yielded!r}")
        return RuntimeError(f"Task got bad yield: {yielded!r}")

    def _returned(self, value: Any) -> None:
        """The coroutine ended."""
        error = self._take_cancel()  # it cancelled itself in its last step
        if error is not None:
            self._finish(CANCELLED, error)
        else:
            self._finish(RETURNED, value)

    def _stopped(self, raised: BaseException) -> None:
        """The coroutine ended by raised (StopIteration when it returned)."""
        if isinstance(raised, StopIteration):
            self._returned(raised.value)
            return
        strand = self._strand
        if raised.__traceback__ is not None:  # the frame of ours that caught it tells nobody anything, and makes a cycle
            raised.__traceback__ = raised.__traceback__.tb_next
        if isinstance(raised, CancelledError):
            if self._cancel is not None:
                self._cancel.message = None
            self._finish(CANCELLED, raised)
        else:
            self._finish(RAISED, (raised, self._unretrieved(raised), raised.__traceback__))
            if isinstance(raised, KeyboardInterrupt | SystemExit):
                self._log_traceback = False  # it comes out of run()
                if strand._pool.stop_main(raised):
                    raise raised

    def _unretrieved(self, raised: BaseException) -> _Unretrieved:
        return _ToLog(self, raised)

    def _log_lost(self) -> None:
        """What it raised was lost: tell the exception handler, as asyncio does."""
        context = {"message": "Task exception was never retrieved", "exception": self._value[0], "future": self}
        self._tell(context)

    def _tell(self, context: dict[str, Any]) -> None:
        if self._source_traceback:
            context["source_traceback"] = self._source_traceback
        self._strand.call_exception_handler(context)

    def _finish(self, state: int, value: Any) -> None:
        strand = self._strand
        if strand._marked is self:
            unmark(strand)
        self._settle(state, value)
        strand._task_done(self)

    def _settle(self, state: int, value: Any) -> None:
        """Set the result and tell who waits for it (T5, T6)."""
        group, self._value = self._value, value
        self._phase = state
        if group is not None:
            try:
                group._deliver(self)
            except BaseException as error:
                self._report(error)
        if self._on_done:
            self._deliver_callbacks()

    # Cancelling

    def cancel(self, msg: Any = None) -> bool:
        """Ask the task to stop: CancelledError is raised in it where it waits. False if it is finished already.

        From the task's own strand it takes effect at once, from elsewhere when the strand gets to it.
        """
        if self._phase != PENDING:
            self._log_traceback = False  # as asyncio: who cancels it has given up on its exception
            return False
        if self._is_here():
            self._count_cancel()
            self._deliver_cancel(msg)
            return True
        cancellation = self._send_cancel(msg, None)
        if _getframe(1).f_code in _PASSING_ON:
            loop = _get_running_loop() or here.main()  # who cancels while nothing runs holds the main strand's turn
            if loop is not None:
                Grace(cancellation, loop, partial(self._release, loop, msg))
        return True

    def _count_cancel(self) -> None:
        with _rarely:
            if self._cancel is None:
                self._cancel = _Cancel()
            self._cancel.asked += 1

    def _send_cancel(self, msg: Any, waiter: Join | None) -> Cancellation:
        """From elsewhere."""
        cancellation = Cancellation(self, msg, waiter)
        with _rarely:
            if self._cancel is None:
                self._cancel = _Cancel()
            self._cancel.coming.append(cancellation)
        strand = self._home
        if strand is not None:  # otherwise it has not started: the starter will look (T3)
            strand._post(cancellation)
        return cancellation

    def _coming(self) -> list[Cancellation]:
        """The cancels on their way."""
        return [] if self._cancel is None else list(self._cancel.coming)

    def _is_here(self) -> bool:
        """Is the caller in the task's strand?"""
        strand, running = self._home, _get_running_loop()
        return strand is not None and (running is strand or (running is None and strand._stopped_here()))

    def _arrived(self, cancellation: Cancellation) -> bool:
        """It is there, and counted; False if it is not to be delivered: the first step had it (T3), or it was taken back."""
        cancel = self._cancel
        assert cancel is not None
        with _rarely:
            if cancellation not in cancel.coming:
                return False
            cancel.coming.remove(cancellation)
            cancel.asked += 1
            cancellation.due = self._phase != PENDING
        return True

    def _deliver_cancel(self, msg: Any) -> None:
        """Deliver a cancel that was counted; along the tasks of this strand that wait for each other."""
        task: Task[Any] = self
        passing: list[_Cancel] = []
        try:
            while (cancel := task._cancel) is not None and task._phase == PENDING:
                if cancel.passing:
                    task._take_back(msg)
                    return
                cancel.passing = True
                passing.append(cancel)
                waiting_for = task._waiting_for
                if waiting_for.__class__ is not Join or not task._may_go_on_to(waiting_for._task):
                    task._deliver_to(waiting_for, cancel, msg)
                    return
                task = waiting_for._task
                task._count_cancel()
        finally:
            for cancel in passing:
                cancel.passing = False

    def _may_go_on_to(self, task: Task[Any]) -> bool:
        """Is task one of this strand's, not done, that has asyncio's `cancel`?"""
        ours = task._strand is self._strand and task is not self and type(task).cancel is Task.cancel
        return ours and task._phase == PENDING

    def _deliver_to(self, waiting_for: Any, cancel: Any, msg: Any) -> None:
        if waiting_for is None:  # running or ready
            self._strand._look_again()
        elif isinstance(waiting_for, Waiter) and waiting_for._abandon():
            self._waiting_for = None
            self._strand._ready.append(self)
        elif waiting_for.cancel(msg=msg):
            return  # its end resumes us
        cancel.must = True
        cancel.message = msg

    def _take_back(self, msg: Any) -> None:
        """A cancel has come back to us, by tasks that wait for each other in a circle: don't pass it on again."""
        waiting_for = self._waiting_for
        if isinstance(waiting_for, Join):
            waiting_for._give_up(msg)
        elif waiting_for is None or isinstance(waiting_for, Waiter) or type(waiting_for).cancel is _Future.cancel:
            self._deliver_to(waiting_for, self._cancel, msg)  # which passes nothing on
        else:
            waiting_for.remove_done_callback(self._wakeup)
            waiting_for.add_done_callback(_retrieve)
            self._resume_cancelled(msg)

    def _resume_cancelled(self, message: Any) -> None:
        """Raise CancelledError where it waits, for something that has not happened."""
        cancel = self._cancel
        assert cancel is not None
        self._waiting_for = None
        cancel.must, cancel.message = True, message
        self._strand._ready.append(self)

    def _release(self, loop: Any, message: Any) -> bool | None:
        """Have those who wait for us in loop by a callback of asyncio's, and passed their cancel on, go on without us; None if
        nobody does."""
        released = None
        for callback in self._registered():
            if not isinstance(callback, DoneCallback) or callback._loop is not loop:
                continue
            call: Any = callback._callback
            gathering: Any = variables_of(call).get("outer")
            if getattr(gathering, "_cancel_requested", False) and not gathering.done():
                cancelled = loop.create_future()
                cancelled.cancel(message)
                children = gathering._children
                children[:] = [cancelled if child is self else child for child in children]
            elif isinstance(call, partial) and call.func is _release_waiter and self._cancel is not None:
                self._cancel.left_in += (loop,)
                cancelled = self
            else:
                continue
            self._forget(callback)
            loop.call_soon(call, cancelled, context=callback._context)
            released = True
        return released

    def _cancel_in_time(self, loop: Any, seconds: float, leave: Callable[[Any], bool]) -> None:
        """Cancel it; if it doesn't take that in so many seconds call leave(task) in loop, the caller's, until that is True."""
        if self._phase == PENDING:
            Grace(self._send_cancel(None, None), loop, partial(leave, self), seconds)

    def _due_cancel(self, coro: Any, exception: BaseException | None) -> BaseException | None:
        """What to resume with: exception, unless a cancel is due. One that is still on its way counts before the first step.

        As in asyncio the later of two cancels gives way to the error that the earlier one made, that of the future that it
        cancelled.
        """
        cancel = self._cancel
        assert cancel is not None
        if cancel.coming and _never_ran(coro):
            self._count_arrived()
        error = self._take_cancel()
        if error is None or isinstance(exception, CancelledError):
            return exception
        return _cancelled_by(self._waiting_for) or error

    def _count_arrived(self) -> None:
        """Before the first step: every cancel that is on its way is there, and due (T3)."""
        for cancellation in self._coming():
            if self._arrived(cancellation):
                cancel: Any = self._cancel
                cancel.must, cancel.message = True, cancellation.message

    def _take_cancel(self) -> CancelledError | None:
        """The cancel that is due, if there is one; from now on it isn't."""
        cancel = self._cancel
        if cancel is None or not cancel.must:
            return None
        cancel.must = False
        return _cancelled_error(cancel.message)

    def cancelling(self) -> int:
        """How many cancel requests have not been taken back by `uncancel`.

        In the task's strand those that have been delivered, as in asyncio; elsewhere with those on their way to it.
        """
        cancel = self._cancel
        if cancel is None:
            return 0
        here = self._is_here()
        with _rarely:
            return cancel.asked if here else cancel.asked + len(cancel.coming)

    def uncancel(self) -> int:
        """Take one cancel request back; returns how many are left."""
        cancel = self._cancel
        if cancel is None:
            return 0
        with _rarely:
            if cancel.asked > 0:
                cancel.asked -= 1
                if cancel.asked == 0 and UNCANCEL_RESCINDS:
                    cancel.must = False
            elif cancel.coming and not self._is_here():
                cancel.coming.pop().due = False
            return self.cancelling()

    # The result

    def done(self) -> bool:
        """Has it returned, raised or been cancelled?"""
        return self._phase != PENDING

    def cancelled(self) -> bool:
        """Did it end by a cancel?"""
        return self._phase == CANCELLED

    def result(self) -> T:
        """What it returned; raises what it raised, or CancelledError, or InvalidStateError while it is not done."""
        if self._phase == RETURNED:
            return self._value  # type: ignore[no-any-return]
        exception = self._raised()
        if exception is None:  # it returned between the two looks
            return self._value  # type: ignore[no-any-return]
        try:
            raise exception
        finally:
            self = exception = None  # type: ignore[assignment]  # no cycle through this frame

    def _raised(self) -> BaseException | None:
        """What `result` raises, with the traceback that it had at the end of the task."""
        exception = self.exception()
        return None if exception is None else exception.with_traceback(self._value[2])

    def exception(self) -> BaseException | None:
        """What it raised, or None; raises CancelledError if it was cancelled, InvalidStateError while it is not done."""
        state = self._phase
        if state == RETURNED:
            return None
        if state == PENDING:
            if self._cancel is not None and _get_running_loop() in self._cancel.left_in:
                raise _cancelled_error(None)
            raise InvalidStateError("Result is not set.")
        if state == CANCELLED:
            raise self._make_cancelled_error()
        exception, unretrieved, _ = self._value
        unretrieved.exception = None
        return exception  # type: ignore[no-any-return]

    def set_result(self, result: Any) -> None:
        """As asyncio.Task: refused."""
        raise RuntimeError("Task does not support set_result operation")

    def set_exception(self, exception: Any) -> None:
        """As asyncio.Task: refused."""
        raise RuntimeError("Task does not support set_exception operation")

    def __await__(self) -> Generator[Any, None, T]:
        if self._phase == PENDING:
            yield from Join(self)
        if self._phase == RETURNED:
            return self._value  # type: ignore[no-any-return]
        try:
            raise self._raised() or InvalidStateError("Result is not set.")
        finally:
            self = None  # type: ignore[assignment]  # the traceback of what it raised has this frame: no cycle

    __iter__ = __await__

    # Callbacks (T5)

    def add_done_callback(self, fn: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        """Call fn(task) when it is done, in the strand that is calling now (the task's own if none is)."""
        context = copy_context() if context is None else context
        self._add_callback(DoneCallback(fn, (), _get_running_loop(), context))

    def remove_done_callback(self, fn: Callable[[Any], object], /) -> int:
        """Forget fn; returns how often it was registered."""
        removed = 0
        for callback in list(self._on_done or ()):
            if isinstance(callback, DoneCallback) and callback._callback == fn:
                try:
                    self._on_done.remove(callback)  # type: ignore[union-attr]
                    removed += 1
                except ValueError:  # just delivered
                    continue
        return removed

    def _registered(self) -> list[Any]:
        """What is to be told of the end."""
        return list(self._on_done or ())

    def _add_callback(self, callback: Any) -> None:
        callbacks = self._on_done
        if callbacks is None:
            with _rarely:
                callbacks = self._on_done
                if callbacks is None:
                    callbacks = self._on_done = []
        callbacks.append(callback)
        if self._phase != PENDING:
            self._deliver_callbacks()

    def _forget(self, callback: Any) -> None:
        try:
            self._on_done.remove(callback)  # type: ignore[union-attr]
        except (AttributeError, ValueError):  # there is none, or it was just delivered
            pass

    def _deliver_callbacks(self) -> None:
        callbacks = self._on_done
        while callbacks:
            try:
                callback = callbacks.pop(0)
            except IndexError:  # another thread took it
                return
            try:
                callback._deliver(self)
            except BaseException as error:
                self._report(error)

    # What it is

    @property
    def spawn_site(self) -> str | None:
        """The place that spawned it, "file:line in function"."""
        label = self._label[1] if isinstance(self._label, tuple) else self._label
        return str(label) if isinstance(label, Site) else None

    def get_loop(self) -> Any:
        """The loop in which it may be awaited: the running one, since it may be awaited in any."""
        return _get_running_loop() or self._home or here.main()

    @property
    def _home(self) -> Any:
        """Its strand; None before it has started. (For those who don't hold the strand's turn.)"""
        strand = self._strand
        return strand.main if type(strand) is LeftStrand else strand

    def get_name(self) -> str:
        """Its name, "Task-N" unless it was given one."""
        label = self._label
        if label is None or isinstance(label, Site):
            return f"Task-{self._number}"
        return label[0] if isinstance(label, tuple) else label  # type: ignore[no-any-return]

    def set_name(self, value: object) -> None:
        """Give it another name."""
        label = self._label[1] if isinstance(self._label, tuple) else self._label
        self._label = (str(value), label) if isinstance(label, Site) else str(value)

    def get_coro(self) -> Any:
        """The coroutine."""
        return self._coro

    def get_context(self) -> Context:
        """The context that it runs in."""
        return self._context

    def get_stack(self, *, limit: int | None = None) -> list[Any]:
        """The frames of the suspended coroutine, or of its exception's traceback, as asyncio.Task.get_stack."""
        return _task_get_stack(self, limit)  # type: ignore[no-any-return]

    def print_stack(self, *, limit: int | None = None, file: Any = None) -> None:
        """Print them."""
        _task_print_stack(self, limit, file)

    # What asyncio's tasks have beside that, and its own modules and libraries read

    @property
    def _state(self) -> str:  # type: ignore[override]
        return _STATES[self._phase]

    @property
    def _result(self) -> Any:
        return self._value if self._phase == RETURNED else None

    @property
    def _exception(self) -> BaseException | None:  # type: ignore[override]
        return self._value[0] if self._phase == RAISED else None

    @property
    def _num_cancels_requested(self) -> int:
        return self.cancelling()

    def __reduce_ex__(self, _protocol: Any) -> Any:
        raise TypeError(f"cannot pickle '{type(self).__name__}' object")

    def _make_cancelled_error(self) -> CancelledError:  # asyncio.gather asks for it, of its last child, however that ended
        error = None
        if self._phase == CANCELLED:
            with _rarely:  # the first to ask gets the one that was raised, and its message, as in asyncio
                error, self._value = self._value, None
        return _cancelled_error(self._cancel_message) if error is None else error

    @property
    def _log_traceback(self) -> bool:  # and asyncio's shield
        return self._phase == RAISED and self._value[1].exception is not None

    @_log_traceback.setter
    def _log_traceback(self, value: bool) -> None:
        if value:
            raise ValueError("_log_traceback can only be set to False")
        if self._phase == RAISED:
            self._value[1].exception = None

    @property
    def _cancel_message(self) -> Any:
        return None if self._cancel is None else self._cancel.message

    @_cancel_message.setter
    def _cancel_message(self, message: Any) -> None:
        with _rarely:
            if self._cancel is None:
                self._cancel = _Cancel()
        self._cancel.message = message

    @property
    def _asyncio_awaited_by(self) -> frozenset[Any] | None:  # asyncio's call graph
        group = self._value if self._phase == PENDING else None
        waiting = [*self._registered(), *([group] if hasattr(group, "_awaiter") else [])]
        return set_of(each._awaiter() for each in waiting)

    @property
    def _must_cancel(self) -> bool:  # and this
        return self._cancel is not None and self._cancel.must

    @property
    def _callbacks(self) -> Any:  # anyio looks in it for the one that run_until_complete adds
        callbacks = [(each._callback, each._context) for each in self._registered() if isinstance(each, DoneCallback)]
        return callbacks or None

    @property
    def _fut_waiter(self) -> Any:  # anyio reads it to tell whether a cancel can be delivered
        waiting_for = self._waiting_for
        return waiting_for._task if isinstance(waiting_for, Join) else waiting_for

    @property
    def _loop(self) -> Any:  # asyncio.TaskGroup and others read it
        return self.get_loop()

    def __repr__(self) -> str:
        """As asyncio's tasks print themselves, with the spawn site."""
        state = "pending" if self._phase == PENDING else "cancelled" if self._phase == CANCELLED else "finished"
        if state == "pending" and self.cancelling():
            state = "cancelling"
        parts = [state, f"name={self.get_name()!r}", f"coro=<{_format_coroutine(self._coro)}>"]
        if self._waiting_for is not None:
            parts.append(f"wait_for={self._waiting_for!r}")
        if self._phase == RAISED:
            parts.append(f"exception={self._value[0]!r}")
        elif self._phase == RETURNED:
            parts.append(f"result={reprlib.repr(self._value)}")
        callbacks = self._callbacks
        if callbacks:
            parts.append(_format_callbacks(callbacks))
        if self.spawn_site is not None:
            parts.append(f"spawned at {self.spawn_site}")
        elif traced := self._source_traceback:
            parts.append(f"created at {traced[-1].filename}:{traced[-1].lineno}")
        return f"<Task {' '.join(parts)}>"


class LocalTask(Task[T]):
    """A task that shares its strand with others: what `asyncio.create_task` makes in a strand."""

    __slots__ = ("_call", "_call_context", "_log_destroy_pending", "_source_traceback")

    _call: Any
    _call_context: Any

    def __init__(self, coro: Any, strand: Strand, name: Any, context: Context | None, traced: bool) -> None:
        self._coro, self._strand, self._phase = coro, strand, PENDING
        self._label, self._number = (None, next_number()) if name is None else (str(name), 0)
        self._context = copy_context() if context is None else context
        self._cancel = self._value = self._waiting_for = self._on_done = self._call = None
        self._log_destroy_pending = True
        self._source_traceback = traceback.extract_stack(_getframe(2)) if traced else None
        scheduled_tasks.data.add(ref(self, forget_scheduled))  # add(), without the price of a call

    def _finish(self, state: int, value: Any) -> None:
        """A spawned task's, without its group and its place in the pool's table."""
        strand = self._strand
        if strand._marked is self:  # unmark(), without the price of a call
            strand._marked = None
            current_tasks.pop(strand, None)
        elif not MARKS_STAY:
            unmark(strand)
        self._value = value
        self._phase = state
        if self._call is not None:
            if strand._debug:
                self._call_soon()
            else:
                strand._ready.append(self)
        if self._on_done:
            self._deliver_callbacks()

    def _call_soon(self) -> None:
        """By a handle, which debug mode looks at."""
        callback = DoneCallback(self._call, (), self._strand, self._call_context)
        self._call = self._call_context = None
        try:
            callback._deliver(self)
        except BaseException as error:
            self._report(error)

    def _finished_run(self) -> None:
        call, context = self._call, self._call_context
        if call is None:
            return
        self._call = self._call_context = None
        strand = self._strand
        if strand._marked is not None or not MARKS_STAY:
            unmark(strand)
        try:
            context.run(call, self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            source = _format_callback_source(call, (self,))
            handle = DoneCallback(call, (), strand, context)
            strand.call_exception_handler({"message": f"Exception in callback {source}", "exception": error, "handle": handle})
        self = call = None  # type: ignore[assignment]  # a traceback may keep this frame

    def add_done_callback(self, fn: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        """Call fn(task) when it is done, in the strand that is calling now (the task's own if none is)."""
        running = _get_running_loop()
        context = copy_context() if context is None else context
        if running is self._strand and self._call is None and self._on_done is None and self._phase == PENDING:
            self._call, self._call_context = fn, context  # T5
        else:
            self._add_callback(DoneCallback(fn, (), running, context))

    def remove_done_callback(self, fn: Callable[[Any], object], /) -> int:
        """Forget fn; returns how often it was registered."""
        removed = Task.remove_done_callback(self, fn)
        if self._phase != PENDING:  # it is queued
            return removed
        with _rarely:  # nobody else removes it, so what is cleared is what was compared
            if self._call is None or self._call != fn:
                return removed
            self._call = None
        return removed + (self._phase == PENDING)  # else the end, which looks after it changed the state, may have it

    def _registered(self) -> list[Any]:
        registered = Task._registered(self)
        call = self._call
        if call is not None and self._phase == PENDING:
            registered.insert(0, DoneCallback(call, (), self._strand, self._call_context))
        return registered

    def get_loop(self) -> Any:
        """Its strand."""
        return self._strand

    def _unretrieved(self, raised: BaseException) -> _Unretrieved:
        return _Unretrieved(raised)

    def __del__(self) -> None:
        phase = self._phase
        if phase == PENDING:
            if self._log_destroy_pending:
                self._tell({"task": self, "message": "Task was destroyed but it is pending!"})
        elif phase == RAISED and self._value[1].exception is not None:
            self._log_lost()


def task_of(item: Any) -> Task[Any] | None:
    """The task that a queue item makes a step of, or cancels; None for a callback, and what else stands in queues."""
    if isinstance(item, Task):
        return item if item._phase == PENDING else None
    found = item if isinstance(item, Waiter) else getattr(item, "task", None)
    while isinstance(found, Waiter):  # a branch's sleeper is its claim
        found = getattr(found, "_sleeper", None)
    return found if isinstance(found, Task) else None


def registered_tasks() -> list[Any]:
    """What asyncio lists as tasks, of all loops: local tasks, and up to 3.13 C Tasks as well."""
    while True:
        try:
            return list(scheduled_tasks)
        except RuntimeError:  # changed while it was copied, as asyncio.all_tasks() knows too
            continue


def unlisted_tasks() -> list[Any]:
    """From 3.14 on asyncio's own tasks, of all loops: it lists them for one loop at a time. They are looked for among all
    objects that the garbage collector knows, which takes some 40 ms a million."""
    if sys.version_info < (3, 14):
        return []
    c_task = asyncio.Task
    found: list[Any] = [each for each in gc.get_objects() if issubclass(type(each), c_task)]
    return [task for task in found if task.get_coro() is not None]  # made whole, and with a step to make


def _retrieve(future: Any) -> None:
    """Nobody asks what became of it any more."""
    if not future.cancelled():
        future.exception()


def _cancelled_error(message: Any) -> CancelledError:
    return CancelledError() if message is None else CancelledError(message)


def _cancelled_by(waited_for: Any) -> CancelledError | None:
    """The error of what a task waited for, if that was cancelled."""
    if isinstance(waited_for, Waiter):
        if not isinstance(waited_for, Join):
            return None
        waited_for = waited_for._task
    if waited_for is not None:
        try:
            waited_for.result()
        except CancelledError as error:
            return error
        except BaseException:
            return None
    return None


def _never_ran(coro: Any) -> bool:
    return coro.__class__ is CoroutineType and inspect.getcoroutinestate(coro) == inspect.CORO_CREATED


def renew_lock() -> None:
    """After a fork: another thread of the parent's may have held it."""
    global _rarely
    _rarely = threading.RLock()


def check_coroutine(coro: Any) -> None:
    """Refuse anything else, saying what to do."""
    if coro.__class__ is CoroutineType or asyncio.iscoroutine(coro):
        return
    raise TypeError(f"a coroutine was expected, got {coro!r}{_hint(coro)}")


def check_callable(function: Any) -> None:
    """Refuse what can't be called."""
    if not callable(function):
        raise TypeError(f"a function was expected, got {function!r}")


def _hint(what: Any) -> str:
    if inspect.iscoroutinefunction(what):
        name = getattr(what, "__name__", "f")
        return f" (call it: {name}(...), not {name})"
    if isinstance(what, Task) and not isinstance(what, LocalTask):
        return ": await it, in any strand"
    if asyncio.isfuture(what):
        return ": a future belongs to its strand, and is awaited there"
    if inspect.isasyncgen(what) or inspect.isasyncgenfunction(what):
        return ": an async generator is run by `async for`, in a coroutine"
    if inspect.isawaitable(what):
        return ", an awaitable: pass a coroutine that awaits it, made by an async function"
    return ": `await strand.call(f, ...)` takes functions" if callable(what) else ""
