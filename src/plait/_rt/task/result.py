"""What became of a task: its phase, its value or exception, and what is said of an exception that nobody asked for.

Ownership
    The holder of the strand's turn writes `_value`, then `_phase`, once (T5); any thread reads them, `_phase` first.
    `_value` has, by phase:
        PENDING     None; of a member of a TaskGroup the group (T6)
        RETURNED    what the coroutine returned
        RAISED      the exception, who complains if nobody looks (Unretrieved), the traceback that it had at the end
        CANCELLED   the CancelledError, until somebody asks for it (under `rarely.lock`)
"""

from __future__ import annotations

from asyncio import CancelledError, InvalidStateError
from typing import Any, TypeVar

from plait._rt.ground.cpython import _get_running_loop
from plait._rt.task import rarely
from plait._rt.task.identity import CANCELLED, PENDING, RAISED, RETURNED, TaskIdentity

T = TypeVar("T")


class TaskResult(TaskIdentity[T]):
    """The result of a task."""

    __slots__ = ()

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
                raise cancelled_error(None)
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

    def _make_cancelled_error(self) -> CancelledError:  # asyncio.gather asks for it, of its last child, however that ended
        error = None
        if self._phase == CANCELLED:
            with rarely.lock:  # the first to ask gets the one that was raised, and its message, as in asyncio
                error, self._value = self._value, None
        return cancelled_error(None if self._cancel is None else self._cancel.message) if error is None else error

    @property
    def _log_traceback(self) -> bool:  # and asyncio's shield
        return self._phase == RAISED and self._value[1].exception is not None

    @_log_traceback.setter
    def _log_traceback(self, value: bool) -> None:
        if value:
            raise ValueError("_log_traceback can only be set to False")
        if self._phase == RAISED:
            self._value[1].exception = None

    def _unretrieved(self, raised: BaseException) -> Unretrieved:
        return _ToLog(self, raised)

    def _log_lost(self) -> None:
        """What it raised was lost: tell the exception handler, as asyncio does."""
        context = {"message": "Task exception was never retrieved", "exception": self._value[0], "future": self}
        self._tell(context)

    def _tell(self, context: dict[str, Any]) -> None:
        if self._source_traceback:
            context["source_traceback"] = self._source_traceback
        self._strand.call_exception_handler(context)


class Unretrieved:
    """Held by a task that raised until somebody looks: `exception` is None then."""

    __slots__ = ("exception",)

    def __init__(self, exception: BaseException) -> None:
        self.exception: BaseException | None = exception


class _ToLog(Unretrieved):
    """A spawned task's: if nobody ever looks its end logs the exception. (So tasks that end well have no finaliser to run.)

    The task is gone by then; the exception handler gets one that says the same.
    """

    __slots__ = ("again",)

    def __init__(self, task: TaskResult[Any], exception: BaseException) -> None:
        super().__init__(exception)
        label = task._label if isinstance(task._label, tuple) else (task.get_name(), task._label)
        self.again = type(task), (task._coro, task._strand, label, task._context), task._source_traceback

    def __del__(self) -> None:
        if self.exception is None:
            return
        kind: Any
        kind, made, traceback = self.again
        task = kind(*made)
        task._value, task._phase = (self.exception, Unretrieved(self.exception), self.exception.__traceback__), RAISED
        if traceback is not None:
            task._source_traceback = traceback
        task._log_lost()


def cancelled_error(message: Any) -> CancelledError:
    return CancelledError() if message is None else CancelledError(message)
