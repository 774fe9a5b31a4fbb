"""Task: one coroutine, its steps, and the wait for its end.

Ownership and invariants
    T1  One stepper: a task is stepped only by the holder of its strand's turn. A task's strand is final. A spawned task has
        none until the worker that starts it gives it one, and again when it is done and its strand was taken back for
        the next (worker.py).
    T2  A task that is pending is exactly one of: running; ready (in its strand's queue, once); waiting
        (`_waiting_for` is a waiter or a future that will post it once).
    T3, T4  How it is cancelled: cancel.py.
    T5, T6  How its end is told: done_callbacks.py.

`Task._run` makes a step and deals with what came of it. Where most steps are made a worker has a copy of it that costs less:
`Worker.start_task` for the first one, `Worker._run_batch` for those of a strand whose only task yields (`Strand._ready_again`
prepares them). The same steps are made all these ways in tests/unit/test_steps.py.

The interface is asyncio.Task's (identity.py has its parts). Two kinds differ in what asyncio is told:
    Task        what `spawn` makes: the root of a strand of its own. It may be awaited, gathered, shielded, waited for
                from any strand, so `get_loop()` names the caller's loop. It gets its strand when it starts.
    LocalTask   what `loop.create_task` makes (local_task.py): it is bound to its strand like any asyncio task, is listed in
                `asyncio.all_tasks()`, held weakly, and complains if it is collected while pending.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import CancelledError, InvalidStateError
from collections.abc import Generator
from contextvars import Context
from types import CoroutineType, GenericAlias
from typing import Any, TypeVar

from plait._rt.ground.cpython import _get_loop
from plait._rt.ground.spawn_site import Site
from plait._rt.task.current_task import CURRENT_STAYS, current_tasks, set_current
from plait._rt.task.identity import CANCELLED, PENDING, RAISED, RETURNED
from plait._rt.task.join import Join
from plait._rt.task.task_face import TaskFace
from plait._rt.task.task_numbers import next_number
from plait._rt.task.waiter import DONE, Waiter
from plait._rt.task.waiter import PENDING as WAITS
from plait.errors import WrongStrand

T = TypeVar("T")

_Future = asyncio.Future
_send: Any = CoroutineType.send  # called unbound: no bound method a step


class Task(TaskFace[T]):
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

    __class_getitem__: Any = classmethod(GenericAlias)  # type: ignore[assignment]
    __class__: Any = asyncio.Task  # for isinstance(task, asyncio.Task); so no super(), which would mean that

    def __init__(self, coro: Any, strand: Any, label: Any, context: Context) -> None:
        self._coro = coro
        self._strand = strand
        self._context = context
        self._label = label
        self._number = next_number() if label.__class__ is Site else 0
        self._phase = PENDING
        self._cancel = None
        self._value = None
        self._waiting_for = None
        self._on_done = None

    # Stepping: only the holder of the strand's turn comes here (T1)

    def _take_turn(self, worker: Any) -> None:  # one that has not started stands in a run queue itself
        worker.start_task(self)

    def _run(self, exception: BaseException | None = None) -> None:
        """Make one step, which raises exception where the coroutine stopped if one is given, and deal with what came of it."""
        strand = self._strand
        if strand._current is not self:
            if self._phase:
                return self._finished_run()
            if CURRENT_STAYS:  # set_current(), without the price of a call
                current_tasks[strand] = strand._current = self
            else:
                set_current(strand, self)
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

    def _run_first(self) -> None:
        """Make the first step of a task that was cancelled when it had no strand: nobody posted that (T3)."""
        self._count_arrived()
        self._run()

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
            if self._cancel is None:
                self._finish(RETURNED, raised.value)
            else:
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

    def _finish(self, state: int, value: Any) -> None:
        strand = self._strand
        if strand._current is self:  # clear_current(), without the price of a call
            strand._current = None
            current_tasks.pop(strand, None)
        self._settle(state, value)
        strand._task_done(self)

    # Waiting for it

    def __await__(self) -> Generator[Any, None, T]:
        if self._phase == PENDING:
            join: Any = Join(self)  # awaited by hand: it has nothing to do when something is thrown in, and is four calls less
            join._state = WAITS
            join._asyncio_future_blocking = True
            yield join
            if join._state != DONE:
                next(join)  # raises
            join = None  # no cycle through this frame, as below
        if self._phase == RETURNED:
            return self._value  # type: ignore[no-any-return]
        try:
            raise self._raised() or InvalidStateError("Result is not set.")
        finally:
            self = None  # type: ignore[assignment]  # the traceback of what it raised has this frame: no cycle

    __iter__ = __await__


class _Raise:
    """Queued to resume a task with an exception."""

    __slots__ = ("exception", "task")

    def __init__(self, task: Task[Any], exception: BaseException) -> None:
        self.task, self.exception = task, exception

    def _run(self) -> None:
        self.task._run(self.exception)


def task_of(item: Any) -> Task[Any] | None:
    """The task that a queue item makes a step of, or cancels; None for a callback, and what else stands in queues."""
    if isinstance(item, Task):
        return item if item._phase == PENDING else None
    found = item if isinstance(item, Waiter) else getattr(item, "task", None)
    while isinstance(found, Waiter):  # a branch's sleeper is its claim
        found = getattr(found, "_sleeper", None)
    return found if isinstance(found, Task) else None
