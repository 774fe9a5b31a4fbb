"""Cancel: how it is asked for, counted, brought to the task's strand, and delivered, along tasks that wait for each other.

Ownership and invariants
    T3  `_waiting_for`, and `must` and `message` of `_cancel`, change only under T1. `cancel()` from elsewhere counts it as
        coming and posts the delivery to the strand. So a cancel can't meet a task between running and waiting: it is
        delivered after the step has registered what it waits for. The strand itself sees the count change with the
        delivery: who enters a scope in between (asyncio.timeout, TaskGroup, anyio) would take it for an earlier one,
        and swallow it with its own.
        A task that is cancelled before it starts has nobody to deliver to: the canceller counts first and looks for the
        strand after, the starter gives the strand first and looks at the count after, and never runs the coroutine.
    T4  `asked` (how often cancel was asked and delivered) and `coming` of `_cancel` change under `rarely.lock`. A cancel is
        in `coming` until it is delivered, taken back or taken by the first step.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from asyncio import CancelledError
from collections.abc import Callable
from functools import partial
from types import CoroutineType
from typing import Any, TypeVar

from plait._rt.ground.cpython import (
    _cancel_and_wait,
    _GatheringFuture,
    _get_running_loop,
    _getframe,
    _release_waiter,
)
from plait._rt.ground.here import here
from plait._rt.task import rarely
from plait._rt.task.call_graph import variables_of
from plait._rt.task.done_callbacks import DoneCallback, TaskCallbacks
from plait._rt.task.grace import Grace
from plait._rt.task.identity import PENDING
from plait._rt.task.join import Join
from plait._rt.task.result import cancelled_error
from plait._rt.task.waiter import Waiter

T = TypeVar("T")

UNCANCEL_RESCINDS = sys.version_info >= (3, 13)  # does the last uncancel() take back a cancel that is still due?

_PASSING_ON = {  # who in asyncio cancels what it waits for by a callback of its own, and waits on
    _cancel_and_wait.__code__,
    _GatheringFuture.cancel.__code__,
}
NEAR = 100  # so many deliveries are looked through each time for a circle


class CancelState:
    """What was asked of a task by `cancel`; made at the first one."""

    __slots__ = ("asked", "coming", "left_in", "message", "must", "passing")

    def __init__(self) -> None:
        self.asked = 0  # T4
        self.coming: list[Cancellation] = []  # T4
        self.must = False  # raise CancelledError at the next step (T3)
        self.message: Any = None
        self.passing = False  # it is just being passed on to what the task waits for (T3)
        self.left_in: tuple[Any, ...] = ()  # the loops where `wait_for` gave up on the task (grace.py)


class Cancellation:
    """A cancel on its way to a task in another strand.

    `cause` is the one whose delivery passed this one on: so it is known which tasks it has come by. Tasks that wait for each
    other in a circle would pass it on for ever; who meets it a second time takes it.
    `due`: it was neither taken by the task, while that was pending, nor taken back. It changes under `rarely.lock` (T4).
    """

    __slots__ = ("cause", "depth", "due", "message", "task", "waiter")

    def __init__(self, task: TaskCancel[Any], message: Any, waiter: Join | None) -> None:
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


class TaskCancel(TaskCallbacks[T]):
    """The cancels of a task."""

    __slots__ = ()

    _wakeup: Any  # (task.py)

    # Asked, from any thread

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
        with rarely.lock:
            if self._cancel is None:
                self._cancel = CancelState()
            self._cancel.asked += 1

    def _send_cancel(self, msg: Any, waiter: Join | None) -> Cancellation:
        """From elsewhere."""
        cancellation = Cancellation(self, msg, waiter)
        with rarely.lock:
            if self._cancel is None:
                self._cancel = CancelState()
            self._cancel.coming.append(cancellation)
        strand = self._home
        if strand is not None:  # otherwise it has not started: the starter will look (T3)
            strand._post(cancellation)
        return cancellation

    def _coming(self) -> list[Cancellation]:
        """The cancels on their way."""
        return [] if self._cancel is None else list(self._cancel.coming)

    def cancelling(self) -> int:
        """How many cancel requests have not been taken back by `uncancel`.

        In the task's strand those that have been delivered, as in asyncio; elsewhere with those on their way to it.
        """
        cancel = self._cancel
        if cancel is None:
            return 0
        here = self._is_here()
        with rarely.lock:
            return cancel.asked if here else cancel.asked + len(cancel.coming)

    def uncancel(self) -> int:
        """Take one cancel request back; returns how many are left."""
        cancel = self._cancel
        if cancel is None:
            return 0
        with rarely.lock:
            if cancel.asked > 0:
                cancel.asked -= 1
                if cancel.asked == 0 and UNCANCEL_RESCINDS:
                    cancel.must = False
            elif cancel.coming and not self._is_here():
                cancel.coming.pop().due = False
            return self.cancelling()

    def _cancel_in_time(self, loop: Any, seconds: float, leave: Callable[[Any], bool]) -> None:
        """Cancel it; if it doesn't take that in so many seconds call leave(task) in loop, the caller's, until that is True."""
        if self._phase == PENDING:
            Grace(self._send_cancel(None, None), loop, partial(leave, self), seconds)

    # Delivered, by the holder of the strand's turn

    def _arrived(self, cancellation: Cancellation) -> bool:
        """It is there, and counted; False if it is not to be delivered: the first step had it (T3), or it was taken back."""
        cancel = self._cancel
        assert cancel is not None
        with rarely.lock:
            if cancellation not in cancel.coming:
                return False
            cancel.coming.remove(cancellation)
            cancel.asked += 1
            cancellation.due = self._phase != PENDING
        return True

    def _deliver_cancel(self, msg: Any) -> None:
        """Deliver a cancel that was counted; along the tasks of this strand that wait for each other."""
        task: TaskCancel[Any] = self
        passing: list[CancelState] = []
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

    def _may_go_on_to(self, task: TaskCancel[Any]) -> bool:
        """Is task one of this strand's, not done, that has asyncio's `cancel`?"""
        ours = task._strand is self._strand and task is not self and type(task).cancel is TaskCancel.cancel
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
        elif waiting_for is None or isinstance(waiting_for, Waiter) or type(waiting_for).cancel is asyncio.Future.cancel:
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

    # Taken, by the next step

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
        return cancelled_error(cancel.message)


def _retrieve(future: Any) -> None:
    """Nobody asks what became of it any more."""
    if not future.cancelled():
        future.exception()


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
