"""What a task is: its coroutine and context, its name and where it was spawned, its strand; and all of its fields.

A task is one object with ten fields. What is done with them stands in a file for each noun, as a class without slots; each
inherits from the one before, and knows those before it alone:

    TaskIdentity    identity.py         `_coro`, `_context`, `_label`, `_number`, `_strand`
    TaskResult      result.py           `_phase`, `_value`
    TaskCallbacks   done_callbacks.py   `_on_done`
    TaskCancel      cancel.py           `_cancel`
    TaskFace        task_face.py        what asyncio and libraries read of a task
    Task            task.py             `_waiting_for`, and the steps
    LocalTask       local_task.py       what `asyncio.create_task` makes; it has four fields more

Every task is a Task, which has all of the slots. (Where the interpreter doesn't specialise, each access asks whether the
object's class inherits from the slot's, which takes the longer the farther up that is.) None of these classes uses `super()`: a
task says that its class is asyncio's.

Ownership
    `_coro` and `_context` never change. `_label` is replaced as a whole, by `set_name`, from any thread.
    `_strand` is written by the worker that starts the task, and once more when that takes the strand back (T1).
"""

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from plait._rt.ground.cpython import _get_running_loop
from plait._rt.ground.here import here
from plait._rt.ground.run_queue import RunItem
from plait._rt.ground.spawn_site import Site

if TYPE_CHECKING:
    from asyncio import Task as _Interface  # for type checkers it is one

    from plait._rt.task.cancel import CancelState
else:
    _Interface = Generic

T = TypeVar("T")

PENDING, RETURNED, RAISED, CANCELLED = range(4)
"""The phases of a task; what is not 0 is final."""


class LeftStrand:
    """In a finished task, for the strand that it left to the next one (worker.py): whoever wants that gets the main strand.

    (Each worker has its own. The main strand itself would have its references counted by all threads, for each task.)
    """

    __slots__ = ("main",)

    def __init__(self, main: Any) -> None:
        self.main = main


class TaskIdentity(_Interface[T], RunItem):
    """The fields of a task, and what it is."""

    __slots__ = ()  # Task has them

    _cancel: CancelState | None
    _context: Context
    _coro: Any
    _label: Any  # a name, a Site, both in a tuple, or None
    _number: int  # of its default name
    _on_done: list[Any] | None
    _phase: int
    _strand: Any
    _value: Any
    _waiting_for: Any
    _source_traceback: Any = None

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

    def _is_here(self) -> bool:
        """Is the caller in the task's strand?"""
        strand, running = self._home, _get_running_loop()
        if strand is None or running is not strand:
            return strand is not None and running is None and strand._stopped_here()
        worker = here.worker
        # If that runs another, or none, a finaliser asks, and the strand's turn has just ended
        return worker is None or worker.running is strand or hasattr(strand, "carrier")

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

    def _report(self, error: BaseException) -> None:
        """Foreign code raised, of which no coroutine is to know: tell the strand's exception handler, as asyncio does."""
        if isinstance(error, SystemExit | KeyboardInterrupt):
            raise error
        context = {"message": f"Exception in callback, between two steps of {self!r}", "exception": error, "task": self}
        home: Any = self._home
        home.call_exception_handler(context)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        raise TypeError(f"cannot pickle '{type(self).__name__}' object")
