"""Compute gate: on a GIL build those that are known to compute do so one after the other, without a processor.

Side by side they would be done no sooner, and each of them wants the GIL every switch interval: behind four, who has a hundred
short steps to make gets a fifth of the time, behind one a half; and each switch costs both sides. So a step from a point that
is known to compute (blocking_sites.py) waits until nobody else does, but no longer than ten times what it took last, nor than
`PATIENCE`: behind one that computes for a minute it would starve. One that blocks after all is waited for no longer (the
monitor sees it asleep).

    G1  `_computing` has those that compute: who waited, once it goes on, and who was caught; it changes under the condition's
        lock, and who takes the last one out tells the next.
    G2  A worker that stops to serve leaves: it has `running` set to None first. The monitor, which enters a worker that it
        caught, looks at `running` afterwards; so one of the two takes it out.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait._rt.sched.worker import Worker

TIMES = 10  # so many times its own length
PATIENCE = 2.0  # seconds


class ComputeGate:
    """One pool's; any thread."""

    __slots__ = ("_changed", "_computing")

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._computing: list[Worker] = []

    def wait(self, worker: Worker, seconds: float) -> None:
        """Before a step that will compute for about so long, on worker's thread, without a processor."""
        running, worker.running = worker.running, None  # nothing of the user's runs, and the monitor has nothing to see
        with self._changed:
            self._changed.wait_for(lambda: not self._computing, min(seconds * TIMES, PATIENCE))
            self._computing.append(worker)
        worker.batch += 1
        worker.running = running

    def caught(self, worker: Worker) -> None:
        """It computes, and nobody knew: those who are known wait for it, too."""
        with self._changed:
            self._computing.append(worker)
        if worker.running is None or worker.proc is not None:  # (G2)
            self.leave(worker)

    def includes(self, worker: Worker) -> bool:
        """Does it compute, as far as is known?"""
        return worker in self._computing

    def leave(self, worker: Worker) -> None:
        """Its step is over, on whichever thread, or doesn't compute."""
        if worker not in self._computing:
            return
        with self._changed:
            if worker in self._computing:
                self._computing.remove(worker)
                if not self._computing:
                    self._changed.notify()
