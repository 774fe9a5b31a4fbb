"""What is told of the end of a task: the functions given to `add_done_callback`, those who await it, its TaskGroup.

Invariants
    T5  Finishing: value, then state, then every callback is popped from `_on_done` and delivered. Adding: append,
        then look at the state, and if it is finished pop and deliver. Each callback is popped by one thread, so it is
        delivered once whoever comes first (list.append and list.pop are atomic on both builds).
        (A local task keeps the first callback of its own strand without a list: local_task.py.)
    T6  A member of a TaskGroup has the group in `_value` until it finishes, from before it is queued: who finishes it tells
        the group, once, and no list is made for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from plait._rt.ground.cpython import _get_running_loop
from plait._rt.task import rarely
from plait._rt.task.call_graph import awaiter_of
from plait._rt.task.handles import Handle
from plait._rt.task.identity import PENDING
from plait._rt.task.result import TaskResult

if TYPE_CHECKING:
    from plait._rt.task.task import Task

logger = logging.getLogger("plait")
T = TypeVar("T")


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


class TaskCallbacks(TaskResult[T]):
    """Who is told of the end of a task."""

    __slots__ = ()

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
            with rarely.lock:
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
