"""Synchronisation between strands."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Literal

from plait._rt.task.wait_queue import abandoned, wake_all
from plait._rt.task.waiter import Waiter


class _EventWait(Waiter):
    """One task's wait for an event."""

    __slots__ = ("_event",)
    what = "plait.Event.wait"

    def __init__(self, event: Event) -> None:
        super().__init__()
        self._event = event

    def __next__(self) -> Waiter:
        if not (self._event._unset or self._state):
            raise StopIteration(True)
        return super().__next__()

    def _enrol(self) -> None:
        unset = self._event._unset
        waiting = _list_in(unset)
        if waiting is None:
            self._fire()
            return
        waiting.append(self)
        if _list_in(unset) is not waiting:  # a `set` took it, and may have been done before we came (E1)
            self._fire()

    def _withdraw(self) -> None:
        self._event._abandoned()

    def _collect(self) -> Literal[True]:
        return True


class Event:
    """A flag that tasks wait for, in any strand; set from any strand or thread. As `asyncio.Event` otherwise.

    Thread safety: every method, from anywhere; none blocks, and a signal handler or finaliser may call `set`.
    """

    # Invariants
    #  E1  From a `clear` to the next `set` those who wait are in one list, the entry of `_unset`; it has none while it is set.
    #      `set` takes the list out and wakes who is in it, `clear` puts a new one in: each is one atomic step. Who waits
    #      appends itself and looks after whether the list is still there. Whichever comes second sees the other, so nobody
    #      sleeps through a `set`, even one followed by `clear` at once; and who waits after that `clear` is in another list,
    #      where a `set` that is slow to wake the others doesn't find it.
    #  E2  A waiter is woken by its own strand (waiter.py), so it may be fired twice, and cancelled at once.
    #  E3  A living waiter is never out of its list, not for a moment (wait_queue.py, Q1): a `set` would miss it.

    __slots__ = ("_dead", "_unset")

    def __init__(self) -> None:
        self._dead = 0  # abandoned waiters in the list, roughly
        self._unset: dict[None, list[_EventWait]] = {None: []}

    def is_set(self) -> bool:
        """Is it set?"""
        return not self._unset

    def set(self) -> None:
        """Set it, and wake everybody who waits."""
        waiting = self._unset.pop(None, None)
        if waiting:
            wake_all(waiting)

    def clear(self) -> None:
        """Reset it: later waits suspend."""
        self._unset.setdefault(None, [])

    def wait(self) -> Coroutine[Any, Any, Literal[True]]:
        """`await event.wait()`: suspend until it is set; returns True. A checkpoint only if it has to wait.

        What it returns passes for a coroutine: `asyncio.create_task(event.wait())` works. Cancelling it loses nothing.
        """
        return _EventWait(self)  # type: ignore[return-value]  # registered as one

    def _abandoned(self) -> None:
        waiting = _list_in(self._unset)
        if waiting is not None:
            self._dead = abandoned(waiting, self._dead)

    def __repr__(self) -> str:
        return f"<plait.Event {'unset' if self._unset else 'set'}, {len(_list_in(self._unset) or ())} waiting>"


def _list_in(unset: dict[None, list[_EventWait]]) -> list[_EventWait] | None:
    """Who waits; None if it is set. (Not by `get`: docs/design.md, "What CPython decides for us".)"""
    try:
        return unset[None]
    except KeyError:
        return None
