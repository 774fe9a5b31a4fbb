"""Processor: the transferable right to run strands, with its own run queue (Go's P).

Ownership
    `queue` is a deque: the holder takes from the left; anybody appends, thieves pop from the right (each one atomic).
    `holder` has the worker that holds it; whoever removes it from there may give the processor away (handoff.py).
    The other fields are the holder's.

    R1  Holding a processor is a right to work, not the guard of anything: a strand is guarded by its turn (strand.py).
        So a worker that looks late whether it still has its processor runs a strand too many at worst, never one twice.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from plait._rt.pool import Pool
    from plait._rt.strand import Strand
    from plait._rt.task import Task
    from plait._rt.worker import Worker

T = TypeVar("T")

BATCH = 61  # turns between two looks at injector, timers and poller (Go's and tokio's number: prime, so nothing locks step)
RUN_ON = 3  # how many just-woken strands a batch lets jump the queue (tokio's cap)


def items_of(queue: deque[T]) -> list[T]:
    """What is in a queue that other threads change meanwhile: roughly, one that moves may be missed or be there twice.

    (By index: on a free-threaded build iterating or copying a deque raises when another thread changes it.)
    """
    items = []
    for index in range(len(queue)):
        try:
            items.append(queue[index])
        except IndexError:
            break
    return items


class Processor:
    """A run queue and who holds it."""

    __slots__ = ("holder", "number", "pool", "queue", "run_on", "steals")

    def __init__(self, pool: Pool, number: int) -> None:
        self.pool = pool
        self.number = number
        self.queue: deque[Strand | Task[Any]] = deque()
        self.run_on = RUN_ON
        self.holder: list[Worker] = []
        self.steals = 0

    def look(self, glance: bool) -> None:
        """Take a share of the injector, fire due timers, and, after a full batch, glance at the poller."""
        pool = self.pool
        self.run_on = RUN_ON
        if pool.injector:
            share = len(pool.injector) // len(pool.processors) + 1
            self._take(pool.injector.popleft, min(share, BATCH))
        if pool.timers:
            pool.fire_timers()
        if glance and len(pool.poller):
            pool.idle.glance()
        if pool.idle.parked and (len(self.queue) > 1 or pool.injector):
            pool.idle.notify()

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
                self.queue.append(pop())  # type: ignore[operator]
                taken += 1
        except IndexError:
            pass  # others took the rest
        return taken
