"""Synchronisation between strands."""

from __future__ import annotations

from collections import deque
from typing import Any, Literal

from plait._rt.waiter import ABANDONED, Waiter

_PURGE_AT_LEAST = 16


class _EventWait(Waiter):
    """One task's wait for an event."""

    __slots__ = ("_event",)
    what = "plait.Event.wait"

    def __init__(self, event: Event) -> None:
        super().__init__()
        self._event = event

    def __next__(self) -> Waiter:
        if self._event._set and not self._state:
            raise StopIteration(True)
        return super().__next__()

    def _enrol(self) -> None:
        event = self._event
        event._waiting.append(self)
        if event._set:
            event._wake_all()

    def _withdraw(self) -> None:
        self._event._abandoned()

    def _collect(self) -> Literal[True]:
        return True


class Event:
    """A flag that tasks wait for, in any strand; set from any strand or thread. As `asyncio.Event` otherwise.

    Thread safety: every method, from anywhere; none blocks, and a signal handler or finaliser may call `set`.

    Invariants
        E1  Who waits appends itself and looks at the flag after; `set` raises the flag and empties the queue after.
            Whichever comes second sees the other, so nobody sleeps through a `set`, even one followed by `clear` at once.
        E2  A waiter is woken by its own strand (waiter.py), so it may be popped, fired and cancelled at once.
        E3  A purge takes abandoned waiters out one by one. A living one is never out of the queue, not for a moment: a `set`
            would miss it.
    """

    __slots__ = ("_dead", "_set", "_waiting")

    def __init__(self) -> None:
        self._set = False
        self._dead = 0  # abandoned waiters in the queue, roughly
        self._waiting: deque[_EventWait] = deque()

    def is_set(self) -> bool:
        """Is it set?"""
        return self._set

    def set(self) -> None:
        """Set it, and wake everybody who waits."""
        self._set = True
        self._wake_all()

    def clear(self) -> None:
        """Reset it: later waits suspend."""
        self._set = False

    def wait(self) -> Any:
        """`await event.wait()`: suspend until it is set; returns True. A checkpoint only if it has to wait.

        What it returns passes for a coroutine: `asyncio.create_task(event.wait())` works. Cancelling it loses nothing.
        """
        return _EventWait(self)

    def _wake_all(self) -> None:
        waiting = self._waiting
        while True:
            try:
                waiter = waiting.popleft()
            except IndexError:
                return
            waiter._fire()

    def _abandoned(self) -> None:
        self._dead += 1
        if self._dead >= _PURGE_AT_LEAST and self._dead * 2 > len(self._waiting):
            self._dead = 0
            self._purge()

    def _purge(self) -> None:
        waiting, index = self._waiting, 0
        while True:  # (not by iterating: on a free-threaded build that raises when another thread changes the queue)
            try:
                waiter = waiting[index]
                if waiter._state != ABANDONED:
                    index += 1
                else:
                    waiting.remove(waiter)
            except IndexError:
                if index >= len(waiting):
                    return
            except ValueError:
                pass  # a `set` took it

    def __repr__(self) -> str:
        return f"<plait.Event {'set' if self._set else 'unset'}, {len(self._waiting)} waiting>"
