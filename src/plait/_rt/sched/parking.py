"""Parking: where workers park, and how they are woken.

One parked worker at a time sits at the poller (the holder of `_seat`) and sleeps there; the others sleep on their own
bell. Nobody runs or wakes anybody under a lock; there is none: the atomic steps are `list.append`, `pop` and `remove`.

The protocol, and why no wake-up is lost
    A worker parks:  1. takes the seat if it is free   2. announces itself in `parked`   3. rescans every queue
                     4. sleeps.
    A poster:        1. publishes its work              2. looks for somebody in `parked` to wake.
    Whichever of announce and publish comes second sees the other.
    `parked` holds not the workers but what wakes them: a worker's own bell, or the poller for the one that sits there. Asked
    for later it might be another: the worker may leave the poller by itself and park again at its bell meanwhile.
    I1  A worker is in `parked` at most once. Whoever pops its entry calls it, exactly once.
    I2  A worker that leaves by itself removes its entry; if that is gone already a wake is owed, and it takes it
        (from the bell), or leaves it in the poller, where it does no harm but a short poll of whoever sits there next.
    I3  A worker that parks is not what `here.worker` says: what a finaliser posts on its thread after the rescan is queued for
        whichever worker comes first, and somebody is woken, not on the processor of the one that goes to sleep.
    Timers: the sleeper publishes `sleeps_until` as for ever, then asks for the deadline; who adds a timer adds first and
    reads `sleeps_until` after.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

from plait._rt.ground.clock import Clock
from plait._rt.ground.gil_yield import polled
from plait._rt.ground.here import here

if TYPE_CHECKING:
    from plait._rt.io.poller import ReadyHandle
    from plait._rt.sched.scheduler import Scheduler
    from plait._rt.sched.worker import Worker

_AWAKE = -math.inf


class Parking:
    """The parked workers of a pool."""

    __slots__ = ("_pool", "_seat", "parked", "sleeps_until")

    def __init__(self, pool: Scheduler) -> None:
        self._pool = pool
        self._seat = Lock()
        self.sleeps_until = _AWAKE  # until when who sits at the poller sleeps; who adds an earlier timer wakes it
        self.parked: list[Callable[[], None]] = []

    def notify(self) -> None:
        """Wake one parked worker, if there is one; from any thread."""
        try:
            wake = self.parked.pop()
        except IndexError:
            return
        wake()

    def notify_all(self) -> None:
        """Wake them all."""
        while self.parked:
            self.notify()

    def nobody_polls(self) -> bool:
        """Is the seat at the poller empty? For the monitor: a hint."""
        return not self._seat.locked()

    def glance(self) -> None:
        """A busy worker's look at the poller, unless somebody sits there."""
        if self._seat.acquire(False):
            try:
                self._pool.deliver(self._pool.poller.poll(0))
            finally:
                self._seat.release()

    def park(self, worker: Worker) -> None:
        """Sleep until there may be something to do. The worker's queue is empty."""
        if self._seat.acquire(False):
            try:
                self.sleeps_until = math.inf
                self._park_at_poller(worker)
            finally:
                self.sleeps_until = _AWAKE
                self._seat.release()
        else:
            here.worker = None  # I3
            try:
                self._park_at_bell(worker.bell)
            finally:
                here.worker = worker

    def _park_at_bell(self, bell: Lock) -> None:
        pool = self._pool
        self.parked.append(bell.release)
        if pool.has_work():
            try:
                self.parked.remove(bell.release)
                return
            except ValueError:
                pass  # a wake is owed (I2)
        else:
            deadline = pool.timers.deadline(Clock.monotonic())
            if deadline is not None and deadline < self.sleeps_until:
                pool.poller.wake()
        bell.acquire()

    def _park_at_poller(self, worker: Worker) -> None:
        pool = self._pool
        wake = pool.poller.wake
        ready: list[ReadyHandle] = []
        now = Clock.monotonic()
        here.worker = None  # I3
        self.parked.append(wake)
        try:
            if not pool.has_work():
                timeout = None
                deadline = pool.timers.deadline(now)
                if deadline is not None:
                    self.sleeps_until = deadline
                    timeout = max(0.0, deadline - now)
                ready = pool.poller.poll(timeout)
        except Exception:
            self._leave_poller(wake)
            raise
        finally:
            here.worker = worker
        self._leave_poller(wake)
        pool.deliver(ready)
        pool.fire_timers()
        polled(pool, now)

    def _leave_poller(self, wake: Callable[[], None]) -> None:
        self.sleeps_until = _AWAKE
        try:
            self.parked.remove(wake)
        except ValueError:
            pass  # a wake is owed, and stays in the poller (I2)
