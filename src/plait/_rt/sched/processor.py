"""Processor: the transferable right to run strands, with its own run queue (Go's P).

Ownership
    `queue` is a deque: the holder takes from the left; anybody appends, thieves pop from the right (each one atomic).
    `holder` has the worker that holds it; whoever removes it from there may give the processor away (handoff.py).
    The other fields are the holder's.

    R1  Holding a processor is a right to work, not the guard of anything: a strand is guarded by its turn (strand.py).
        So a worker that looks late whether it still has its processor runs a strand too many at worst, never one twice.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

from plait._rt.ground.clock import Clock
from plait._rt.ground.run_queue import BATCH, RunItem

if TYPE_CHECKING:
    from plait._rt.sched.scheduler import Scheduler
    from plait._rt.sched.worker import Worker

BATCH_SECONDS = 0.001  # how long BATCH turns may take where timers or descriptors wait for a look
FIRST = 2 * BATCH  # how many timers may jump the queue at once
OTHERS_SECONDS = 0.02  # for how long at most timers wait with the others after that
RUN_ON = 3  # how many just-woken strands a batch lets jump the queue (tokio's cap)


class _LastOfFirst(RunItem):
    """Behind the timers that were let go first."""

    __slots__ = ("_began", "_processor")

    def __init__(self, processor: Processor, began: float) -> None:
        self._processor, self._began = processor, began

    def _take_turn(self, _worker: Any) -> None:
        now = Clock.monotonic()
        self._processor.first_again = -min((now - self._began) / 4, OTHERS_SECONDS)

    def was_stolen(self) -> None:
        """It is where it says nothing."""
        self._processor.first_again = 0.0


class Processor:
    """A run queue and who holds it."""

    __slots__ = ("first_again", "holder", "number", "pool", "queue", "run_on", "steals")

    def __init__(self, pool: Scheduler, number: int) -> None:
        self.pool = pool
        self.number = number
        self.queue: deque[Any] = deque()  # strands, and tasks that have yet to get one
        self.run_on = RUN_ON
        self.holder: list[Worker] = []
        self.steals = 0
        # When timers may jump the queue again; infinite while those that did are in it, and then, until the next look, how
        # long that will be after it, as a negative number: between two looks the others have a turn at least.
        self.first_again = 0.0

    def look(self, glance: bool) -> bool:
        """Take a share of the injector, fire due timers, and, after a full batch, glance at the poller. Returns whether strands
        wait for what the two have, so that the next batch is to go by time as well as by turns."""
        pool = self.pool
        timers, watched = pool.timers, pool.poller._entries
        if pool.injector:
            share = len(pool.injector) // len(pool.processors) + 1
            self._take(pool.injector.popleft, min(share, BATCH))
        timed = bool(timers._heap or timers._incoming)
        if timed:
            self._fire_timers()
        self.run_on = RUN_ON
        if watched:
            timed = True
            if glance:
                pool.parking.glance()
        if pool.parking.parked and (len(self.queue) > 1 or pool.injector):
            pool.parking.notify()
        return timed

    def _fire_timers(self) -> None:
        """Let those go first whose time has come (as Go's goready does with one): behind 64 that block, each would make them
        later. Those who wait get a quarter of the time that takes before it happens again."""
        queue = self.queue
        waiting = len(queue)
        self.run_on = 0
        if not waiting:
            self.pool.fire_timers()
        elif self.first_again < 0:
            self.first_again = Clock.monotonic() - self.first_again
        elif (now := Clock.monotonic()) >= self.first_again:
            self.pool.fire_timers(FIRST)
            fired = len(queue) - waiting
            if fired > 0:
                self.first_again = math.inf
                queue.append(_LastOfFirst(self, now))
                queue.rotate(fired + 1)

    def steal(self) -> bool:
        """Take half of another processor's queue; False if there is nothing anywhere."""
        for victim in self.pool.processors:
            if victim is not self and victim.queue:
                taken = self._take(victim.queue.pop, (len(victim.queue) + 1) // 2)
                self.steals += taken
                if taken:
                    return True
        return False

    def _take(self, pop: object, most: int) -> int:
        taken = 0
        try:
            while taken < most:
                item = pop()  # type: ignore[operator]
                if item.__class__ is _LastOfFirst:
                    item.was_stolen()
                    continue
                self.queue.append(item)
                taken += 1
        except IndexError:
            pass  # others took the rest
        return taken
