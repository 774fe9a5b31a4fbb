"""Hogs: on a GIL build those that compute without a processor do so one after the other, where plait knows of them before.

Side by side they would be done no sooner, and each of them wants the GIL every switch interval: behind four, who has a hundred
short steps to make gets a fifth of the time, behind one a half; and each switch costs both sides. So a step from a point that
is known to compute (points.py) waits until it is alone, but no longer than ten times what it took last, nor than `PATIENCE`:
behind one that computes for a minute it would starve. One that blocks after all loses the right (the monitor sees it asleep).

    G1  The right to compute alone is `_right`, a lock. Its holder is in `_holder`; who removes it from there releases it, once.
    G2  A worker that stops to serve leaves: it has `running` set to None first. The monitor, which takes the right for a
        worker that it caught, looks at `running` afterwards; so one of the two sees the other.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait._rt.worker import Worker

TIMES = 10  # so many times its own length
PATIENCE = 1.0  # seconds


class Hogs:
    """The hogs of one pool; any thread."""

    __slots__ = ("_holder", "_next", "_right")

    def __init__(self) -> None:
        self._right = threading.Lock()
        self._next = threading.Lock()  # held by the one that is next, while it waits
        self._holder: list[Worker] = []

    def wait(self, worker: Worker, seconds: float) -> None:
        """Before a step that will compute for about so long, on worker's thread, without a processor."""
        patience = min(seconds * TIMES, PATIENCE)
        until = time.monotonic() + patience
        running, worker.running = worker.running, None  # nothing of the user's runs, and the monitor has nothing to see
        if self._next.acquire(timeout=patience):
            if self._right.acquire(timeout=max(0.0, until - time.monotonic())):
                self._holder.append(worker)
            self._next.release()
        worker.batch += 1
        worker.running = running

    def caught(self, worker: Worker) -> None:
        """It computes, and nobody knew: those who are known wait for it, if there is no other one."""
        if self._right.acquire(blocking=False):
            self._holder.append(worker)
            if worker.running is None or worker.proc is not None:  # (G2)
                self.leave(worker)

    def has_right(self, worker: Worker) -> bool:
        """Does it compute alone?"""
        return worker in self._holder

    def leave(self, worker: Worker) -> None:
        """Its step is over, on whichever thread."""
        try:
            self._holder.remove(worker)
        except ValueError:
            return
        self._right.release()
