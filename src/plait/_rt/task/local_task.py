"""LocalTask: a task of a strand with others, what `loop.create_task` and so `asyncio.create_task` make.

Ownership and invariants
    As of any task, and of T5 this: a local task keeps the first callback of its own strand in `_call`, without a list: who adds
    it there and who finishes the task are one, the holder of the turn. It is delivered by queueing the finished task itself,
    whose `_run` calls it: no handle is made.
    asyncio's registry holds it weakly, from its making on (registry.py reads it).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from plait._rt.ground.cpython import _format_callback_source, _get_running_loop, _getframe, forget_scheduled, scheduled_tasks
from plait._rt.task import rarely
from plait._rt.task.current_task import CURRENT_STAYS, clear_current, current_tasks
from plait._rt.task.done_callbacks import DoneCallback
from plait._rt.task.identity import PENDING, RAISED
from plait._rt.task.result import Unretrieved
from plait._rt.task.task import Task
from plait._rt.task.task_numbers import next_number

if TYPE_CHECKING:
    from plait._rt.strand.strand import Strand

T = TypeVar("T")


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
        if strand._current is self:  # clear_current(), without the price of a call
            strand._current = None
            current_tasks.pop(strand, None)
        elif not CURRENT_STAYS:
            clear_current(strand)
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
        if strand._current is not None or not CURRENT_STAYS:
            clear_current(strand)
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
        with rarely.lock:  # nobody else removes it, so what is cleared is what was compared
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

    def _unretrieved(self, raised: BaseException) -> Unretrieved:
        return Unretrieved(raised)

    def __del__(self) -> None:
        phase = self._phase
        if phase == PENDING:
            if self._log_destroy_pending:
                self._tell({"task": self, "message": "Task was destroyed but it is pending!"})
        elif phase == RAISED and self._value[1].exception is not None:
            self._log_lost()
