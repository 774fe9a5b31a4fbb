"""Join: what `await task` yields, the wait of one task for another to finish.

A cancel of who waits goes on to the task that it waits for, whose end then ends the wait. Within a strand cancel.py follows the
joins itself; here is the way to a task of another strand.

Ownership
    As of any waiter (waiter.py). `_passed_on`, the last cancel that the wait sent on, belongs to the strand of who waits.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from plait._rt.ground.cpython import _format_coroutine
from plait._rt.task.call_graph import awaiter_of
from plait._rt.task.grace import Grace
from plait._rt.task.identity import PENDING, TaskIdentity
from plait._rt.task.waiter import ABANDONED, DONE, NEW, Cancelled, Waiter
from plait._rt.task.waiter import PENDING as WAITS

if TYPE_CHECKING:
    from plait._rt.task.cancel import Cancellation
    from plait._rt.task.task import Task


class Join(Waiter):
    """The wait for a task to finish: `await task`. Cancelling the waiting task cancels the awaited one, as in asyncio.

    If that is in another strand and doesn't take the cancel in time, or another cancel comes before it has, the wait is
    given up (grace.py); also if the task ends before the cancel comes to it: it would be lost.
    """

    __slots__ = ("_passed_on", "_task")

    _passed_on: Cancellation  # unset before there is one

    def __init__(self, task: Task[Any]) -> None:
        self._asyncio_future_blocking: bool | None = None  # Waiter's, without the price of a call
        self._state = NEW
        self._task = task

    def _park(self, task: Task[Any]) -> None:
        if task is self._task:
            raise RuntimeError(f"Task cannot await on itself: {task!r}")
        self._sleeper = task
        self._task._add_callback(self)

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
        loop = sleeper._strand if isinstance(sleeper, TaskIdentity) else sleeper._loop
        Grace(cancellation, loop, partial(self._give_up, msg))
        return True

    def _give_up(self, message: Any) -> bool | None:
        """End the wait with CancelledError, though the task goes on; in the strand of who waits. None if it has ended."""
        sleeper: Any = getattr(self, "_sleeper", None)  # (W4)
        if not Waiter._abandon(self):
            return None
        if isinstance(sleeper, TaskIdentity):
            sleeper._resume_cancelled(message)  # type: ignore[attr-defined]
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
        if self._state == WAITS:
            self._state = DONE
            self._sleeper._wake(self)

    def _awaiter(self) -> Any:
        sleeper: Any = self._sleeper
        while isinstance(sleeper, Waiter):  # a claim
            sleeper = sleeper._sleeper
        return sleeper if isinstance(sleeper, TaskIdentity) else awaiter_of(sleeper._call)

    def __repr__(self) -> str:
        task = self._task  # without what that waits for in its turn
        return f"<Task {task._state.lower()} name={task.get_name()!r} coro=<{_format_coroutine(task._coro)}>>"
