"""What asyncio and libraries read of a task beside its methods: its state by name, its stack, private names of asyncio's.

Ownership: it only reads, from any thread, what others own; each answer may be old by the time that it is there.
"""

from __future__ import annotations

import reprlib
from typing import Any, TypeVar

from plait._rt.ground.cpython import _format_callbacks, _format_coroutine, _task_get_stack, _task_print_stack
from plait._rt.task import rarely
from plait._rt.task.call_graph import set_of
from plait._rt.task.cancel import CancelState, TaskCancel
from plait._rt.task.done_callbacks import DoneCallback
from plait._rt.task.identity import CANCELLED, PENDING, RAISED, RETURNED
from plait._rt.task.join import Join

T = TypeVar("T")

STATES = "PENDING", "FINISHED", "FINISHED", "CANCELLED"  # as asyncio calls the phases


class TaskFace(TaskCancel[T]):
    """What asyncio reads of a task."""

    __slots__ = ()

    _asyncio_future_blocking = False  # so that asyncio takes it for a future; `__await__` yields a Join in its stead
    _log_destroy_pending = True

    def get_stack(self, *, limit: int | None = None) -> list[Any]:
        """The frames of the suspended coroutine, or of its exception's traceback, as asyncio.Task.get_stack."""
        return _task_get_stack(self, limit)  # type: ignore[no-any-return]

    def print_stack(self, *, limit: int | None = None, file: Any = None) -> None:
        """Print them."""
        _task_print_stack(self, limit, file)

    @property
    def _state(self) -> str:  # type: ignore[override]
        return STATES[self._phase]

    @property
    def _result(self) -> Any:
        return self._value if self._phase == RETURNED else None

    @property
    def _exception(self) -> BaseException | None:  # type: ignore[override]
        return self._value[0] if self._phase == RAISED else None

    @property
    def _num_cancels_requested(self) -> int:
        return self.cancelling()

    @property
    def _cancel_message(self) -> Any:
        return None if self._cancel is None else self._cancel.message

    @_cancel_message.setter
    def _cancel_message(self, message: Any) -> None:
        with rarely.lock:
            if self._cancel is None:
                self._cancel = CancelState()
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
