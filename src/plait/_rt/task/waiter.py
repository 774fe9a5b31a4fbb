"""Waiter: one suspended wait of one task for something of plait's.

`await event.wait()` yields a waiter. The step that receives it knows the task is suspended by then, and only now enrols
the waiter with what it waits for (Go's gopark does the same), so a wake can't meet a running task.

Ownership and invariants
    W1  A waiter is resolved (PENDING to DONE or ABANDONED) only by the holder of its strand's turn. Whoever has news for
        it, on whatever thread, calls `_fire`, which posts the waiter to its strand; the strand resolves it there.
    W2  So `_fire` may be called any number of times and races with nothing: the first post that finds it PENDING
        resumes the task, later ones find it resolved and do nothing.
    W3  A waiter belongs to one `await`, has one task, and is never reused.
    W4  An abandoned waiter lets go of its task (`_sleeper`): what it waited for may keep it for hours. `_fire` may find none.

A C `asyncio.Task` can await it as well: to that it looks like a future (`_asyncio_future_blocking`, `get_loop`,
`add_done_callback`, `cancel`, `result`). And it passes for a coroutine, so that `create_task(event.wait())` works.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any

from plait._rt.ground.cpython import _get_running_loop
from plait._rt.task.current_task import clear_current

if TYPE_CHECKING:
    from contextvars import Context

    from plait._rt.task.claim import Claim
    from plait._rt.task.task import Task

NEW, PENDING, DONE, ABANDONED = range(4)


class _Callback:
    """What a waiter wakes when a C Task awaits it: asyncio's callback, in its context and loop."""

    __slots__ = ("_call", "_context", "_loop", "_strand")

    def __init__(self, call: Any, context: Context | None, loop: Any) -> None:
        self._call, self._context, self._loop = call, context, loop
        self._strand = loop if hasattr(loop, "_post") else self  # a loop that isn't ours: another thread's asyncio

    def _post(self, waiter: Waiter) -> None:
        try:
            self._loop.call_soon_threadsafe(waiter._run)
        except RuntimeError:  # it is closed: nobody waits there any more
            waiter._hand_on()

    def _wake(self, waiter: Waiter) -> None:
        """Call it now: the waiter had its place in the queue."""
        if self._strand is self._loop:
            clear_current(self._loop)  # type: ignore[arg-type]
        asyncio.Handle(self._call, (waiter,), self._loop, self._context)._run()  # type: ignore[attr-defined]

    def _wake_soon(self, waiter: Waiter) -> None:
        self._loop.call_soon(self._call, waiter, context=self._context)


class Cancelled:
    """In place of a C Task's callback when its wait was cancelled: nobody is to be woken any more."""

    __slots__ = ("message",)

    def __init__(self, message: str | None) -> None:
        self.message = message


class Waiter:
    """Base of what plait's awaitables yield; subclasses say where to enrol and what the await returns."""

    __slots__ = ("_asyncio_future_blocking", "_sleeper", "_state")

    _sleeper: Task[Any] | _Callback | Claim
    what = "plait"  # what is waited for, in a word, for `plait ps`

    def __init__(self) -> None:
        self._asyncio_future_blocking: bool | None = None  # None: asyncio.isfuture() says no, gather() wraps us
        self._state = NEW

    # What subclasses provide, called by the holder of the strand's turn

    def _enrol(self) -> None:
        """Register with what is waited for; fire at once if it has happened already."""
        raise NotImplementedError

    def _withdraw(self) -> None:
        """The wait was abandoned: forget the registration."""

    def _collect(self) -> Any:
        """What the await returns, or raises; asked for once."""
        return None

    def _hand_on(self) -> None:
        """The await ends, or ended, without what was granted to the waiter, if something was: that goes to somebody else."""

    # Any thread

    def _fire(self) -> None:
        """What was waited for has happened (W2)."""
        try:
            strand = self._sleeper._strand
        except AttributeError:  # (W4)
            return
        strand._post(self)

    # The holder of the strand's turn

    def _run(self) -> None:
        if self._state == PENDING:
            self._state = DONE
            self._sleeper._wake(self)

    def _park(self, task: Task[Any]) -> None:
        self._sleeper = task
        self._enrol()

    def _abandon(self) -> bool:
        """Resolve as abandoned; False if it was resolved already. The caller resumes the task."""
        if self._state != PENDING:
            return False
        self._state = ABANDONED
        try:
            del self._sleeper  # (W4)
        except AttributeError:  # its coroutine is run by hand: nobody enrolled it
            return True
        self._withdraw()
        return True

    # The coroutine protocol

    def __await__(self) -> Generator[Any, None, Any]:
        return self  # type: ignore[return-value]  # its own iterator: saves an allocation

    def __iter__(self) -> Waiter:
        return self

    def __next__(self) -> Waiter:
        state = self._state
        if state == NEW:
            self._state = PENDING
            self._asyncio_future_blocking = True
            return self
        if state == PENDING:
            raise RuntimeError(f"{self!r} was resumed before what it waits for happened")
        raise StopIteration(self._collect() if state == DONE else self.result())

    def send(self, _value: Any) -> Any:
        return self.__next__()

    def throw(self, typ: Any, value: Any = None, _traceback: Any = None) -> Any:
        self._abandon()
        self._hand_on()
        raise value if value is not None else typ

    def close(self) -> None:
        self._abandon()
        self._hand_on()

    # The part of asyncio.Future that a C Task needs to await us

    def get_loop(self) -> Any:
        return _get_running_loop()

    def add_done_callback(self, callback: Any, *, context: Context | None = None) -> None:
        self._sleeper = _Callback(callback, context, _get_running_loop())  # type: ignore[arg-type]
        self._enrol()

    def cancel(self, msg: str | None = None) -> bool:
        sleeper = getattr(self, "_sleeper", None)
        if not self._abandon():
            return False
        if isinstance(sleeper, _Callback):
            self._sleeper = Cancelled(msg)  # type: ignore[assignment]
            sleeper._wake_soon(self)
        return True

    def result(self) -> Any:
        """Raise what its await is to raise, if so: a C Task asks before it resumes the await, which collects."""
        if self._state == ABANDONED:
            message = getattr(getattr(self, "_sleeper", None), "message", None)
            raise CancelledError() if message is None else CancelledError(message)

    def __repr__(self) -> str:
        state = ("new", "pending", "done", "abandoned")[self._state]
        return f"<plait {type(self).__name__} {state} at {id(self):#x}>"


Coroutine.register(Waiter)
assert asyncio.iscoroutine(Waiter())
