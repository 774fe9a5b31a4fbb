"""WaitQueue: those who wait for a lock or a channel, of whom one at a time is granted something, in the order they came.

A waiter is resolved by its own strand (waiter.py, W1). Who has something to give away is on any thread, and can't wait
for that: it *claims* the first waiter for the value, posts it, and goes on. A cancel may come in between, so the value is
kept in `_claims` until the waiter's strand has taken it.

Ownership
    `_waiting`: any thread appends. Only who has `_turn`, which is taken without waiting, takes entries out or moves them.
    `_claims`: a waiter's entry is made by who grants (`dict.setdefault`, the atomic step), and taken out by the waiter's
    strand when it has resolved the waiter, or by a granter that finds it resolved.
    `_dead`: how many in `_waiting` are abandoned, roughly.

Invariants
    Q1  A waiter that is pending is in the list, at every moment, from when it came until it is claimed: a purge puts what
        is left in the place of what was there, in one step. So who finds nobody to grant to has seen everybody that came
        before. Who comes appends itself, and looks after whether what it waits for is there by now.
    Q2  One claim a waiter: `setdefault` has one winner. The entry stays until the waiter is resolved; till then the list
        may name it: it is passed over.
    Q3  The value is in a cell, and who pops it has it (`list.pop`). The waiter's strand resolves the waiter (DONE or
        ABANDONED), and looks for a claim after; who grants claims first, and looks after whether the waiter is resolved.
        Whichever comes second sees the other, and if each does, one of them gets the value. A granter grants it to the
        next; the strand returns it from the await or, if that was cancelled, hands it on at once (`_give_back`), before
        the task goes on: what is sent to that task later doesn't come before it.
    Q4  A granter that finds `_turn` taken, by another thread or by what it interrupts on its own (a finaliser runs in the
        middle of anything), goes through a copy of the list instead, and takes nothing out: the next that has the turn
        does.
    Q5  A branch of a select is claimed only by who has taken the select's own claim (claim.py).
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from plait._rt.task.claim import Claim
from plait._rt.task.waiter import PENDING, Waiter

PURGE_AT_LEAST = 16
_purging = Lock()  # purges are rare, so the lists that have no `_turn` of their own (an event's) share it


def wake_all(waiting: list[Any]) -> None:
    """Wake all waiters that are in the list now; several threads may do it at once (W2)."""
    for waiter in waiting.copy():
        waiter._fire()


def abandoned(waiting: list[Any], dead: int, turn: Any = None) -> int:
    """One more of those in the list than dead was abandoned. Returns how many are left in it, roughly.

    When they are more than half they are taken out, all at once: each costs the same, however many wait.
    """
    dead += 1
    if dead < PURGE_AT_LEAST or dead * 2 <= len(waiting):
        return dead
    turn = turn or _purging
    if not turn.acquire(False):
        return dead  # the next one asks again
    try:
        count = len(waiting)
        waiting[:count] = [waiter for waiter in waiting[:count] if waiter._state == PENDING]  # (Q1)
    finally:
        turn.release()
    return 0


def renew_lock() -> None:
    """After a fork: another thread of the parent's may have held it."""
    global _purging
    _purging = Lock()


class WaitQueue:
    """The queue; those who wait in it are of GrantWait's kind."""

    __slots__ = ("_claims", "_dead", "_turn", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Waiter] = []
        self._claims: dict[Waiter, list[Any]] = {}
        self._dead = 0
        self._turn = Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def wake_all(self) -> None:
        """Wake all who wait, granting nothing: the queue's owner has closed. Who comes later looks itself."""
        wake_all(self._waiting)

    def grant(self, value: Any) -> bool:
        """Give value to the first that still waits; False if nobody does, and the caller keeps it. From any thread."""
        if not self._turn.acquire(False):
            return any(self._give(waiter, value) for waiter in self._waiting.copy())  # (Q4)
        try:
            waiting, seen = self._waiting, 0
            try:
                while seen < len(waiting):
                    seen += 1
                    if self._give(waiting[seen - 1], value):
                        return True
                return False
            finally:
                del waiting[:seen]
        finally:
            self._turn.release()

    def _give(self, waiter: Waiter, value: Any) -> bool:
        """Claim waiter and wake it; False if it was abandoned, or another was first."""
        if waiter._state != PENDING:
            return False
        sleeper = getattr(waiter, "_sleeper", None)
        if isinstance(sleeper, Claim) and not sleeper.take(waiter):
            return False
        cell = [value]
        if self._claims.setdefault(waiter, cell) is not cell:
            return False
        if waiter._state == PENDING:
            waiter._fire()
            return True
        self._claims.pop(waiter, None)
        try:
            cell.pop()
        except IndexError:
            return True  # its strand has it (Q3)
        return False


class GrantWait(Waiter):
    """One wait for a grant. Subclasses look after they came, and say where a value goes that came too late."""

    __slots__ = ("_queue",)

    def __init__(self, queue: WaitQueue) -> None:
        super().__init__()
        self._queue = queue

    def _look(self) -> None:
        """It is in the queue: grant what is there by now."""
        raise NotImplementedError

    def _give_back(self, value: Any) -> None:
        """The await was given up after value was granted: grant it to the next, or put it back. From any thread."""
        raise NotImplementedError

    def _woken(self) -> Any:
        """What the await returns, or raises, after `wake_all`."""
        raise NotImplementedError

    def _enrol(self) -> None:
        self._queue._waiting.append(self)
        self._look()

    def _withdraw(self) -> None:
        queue = self._queue
        queue._dead = abandoned(queue._waiting, queue._dead, queue._turn)
        self._hand_on()

    def _hand_on(self) -> None:
        for value in self._take():
            self._give_back(value)

    def _collect(self) -> Any:
        del self._sleeper  # (W4): the list may name it for a while (Q4)
        for value in self._take():
            return value
        return self._woken()

    def _take(self) -> list[Any]:
        """What was granted, once: a list of one or none. For who has resolved the waiter (Q3)."""
        try:
            return [self._queue._claims.pop(self).pop()]
        except LookupError:
            return []
