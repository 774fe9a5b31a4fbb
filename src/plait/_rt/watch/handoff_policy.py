"""When the monitor hands a processor on, and what it learns from the steps that it takes one from (how one changes hands:
sched/handoff.py). A worker found in the same turn as before, while something waits for its processor, is

    blocked     if its CPU clock stood still since the last look and the kernel says it sleeps (S or D): two such looks
                in a row, and its processor goes to another worker at once. (A still clock alone means nothing: of four
                threads computing on two cores it stood still in two looks of three.) A thread that waits for the GIL, or
                for a stopped world, sleeps in a futex as one that waits for a lock does: those get more time.
    computing   otherwise: its processor goes after `handoff_after`.

Ownership: the monitor's thread, but for `something_waits`, which any thread may ask.
"""

from __future__ import annotations

from types import CoroutineType
from typing import TYPE_CHECKING

from plait._rt.ground.build import GIL_BUILD
from plait._rt.sched.blocking_sites import COMPUTED, LONG, start_of
from plait._rt.strand.strand import LOOK_AGAIN
from plait._rt.watch.turn_watch import TICK

if TYPE_CHECKING:
    from plait._rt.pool import Pool
    from plait._rt.sched.processor import Processor
    from plait._rt.sched.worker import Worker
    from plait._rt.watch.turn_watch import LastLook, Watch

QUICK_TICKS = 20  # after a hand-off the monitor looks so often without a pause: the next in the queue may block as well


class HandOffPolicy:
    """One pool's."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.count = 0
        self.quick = 0  # quick ticks to come
        self.until_long = TICK  # seconds from this look until a step has computed for too long, if less

    def see_to(self, worker: Worker, watch: Watch, now: float, last: LastLook) -> None:
        """Hand worker's processor on if the turn that it is in is stuck."""
        processor = worker.proc
        if watch.turn_since == now:  # a new turn
            watch.unseen = (now - last.ended + last.kept_gil) / 2
            rested = worker not in last.seen or watch.rested(now - last.began)
            if (rested or self.quick > 0) and watch.probe.sleeps():
                watch.still = 1
        elif processor is None:
            if self._pool.compute_gate.includes(worker) and watch.sleeps():
                self._pool.compute_gate.leave(worker)  # it blocks, after all
            elif watch.handed_off is not None:
                self._see_to_computing(worker, watch)
        elif self.something_waits(processor) and (watch.sleeps() or self.is_long(worker, watch, now)):
            self._hand_off(worker, watch, now)

    def is_long(self, worker: Worker, watch: Watch, now: float) -> bool:
        """Does it compute for too long? A step from where one was caught before is likely to be as long: it gets less time,
        once it can be learned from at the same moment (else the next in the queue might begin there, too)."""
        patience = self._pool.options.handoff_after
        if worker.point is not None and watch.turn_computed() >= COMPUTED:
            patience /= 2
        left = patience - (now - watch.turn_since + watch.unseen)
        if left > 0:
            self.until_long = min(self.until_long, left)
        return left <= 0

    def something_waits(self, processor: Processor) -> bool:
        """Is there something to do for whoever gets processor? (If there is a parked worker for it, that one is woken.)"""
        pool = self._pool
        if processor.queue or pool.injector:
            if pool.parking.parked:
                pool.parking.notify()  # there is a worker for it already
                return False
            return True
        if not pool.parking.nobody_polls():
            return False
        if pool.parking.parked:
            pool.parking.notify()
            return False
        return len(pool.poller) > 0 or len(pool.timers) > 0

    def _hand_off(self, worker: Worker, watch: Watch, now: float) -> None:
        if not self._pool.handoff.may_give(worker):
            return
        learned = self._note(worker, watch)  # first: the heir may begin with a step from the same place
        if not self._pool.handoff.give(worker):
            return
        watch.strand._post(LOOK_AGAIN)  # the worker's fast path looks at nothing else
        watch.handed_off = now - watch.turn_since
        self.count += 1
        if watch.still:
            self.quick = QUICK_TICKS
        else:
            self._see_to_computing(worker, watch, learned)

    def _see_to_computing(self, worker: Worker, watch: Watch, learned: bool = False) -> None:
        """It goes on computing without a processor."""
        learned = self._learn(watch) or learned
        if GIL_BUILD():
            if learned:
                self._pool.compute_gate.caught(worker)
        elif not (watch.still or worker.retired) and watch.turn_computed() >= COMPUTED:
            worker.yield_cores()

    def _note(self, worker: Worker, watch: Watch) -> bool:
        """Note where worker's step is stuck; True if its place is one that computes."""
        task, point, starting = worker.task(), worker.point, worker.starting
        coro = None if task is None else task._coro
        if coro.__class__ is not CoroutineType:
            return False
        suspect = coro.cr_code, start_of(coro.cr_code) if task is starting else point
        if watch.still:
            if not (GIL_BUILD() and watch.probe.waits_for_futex()):
                self._pool.blocking_sites.caught(*suspect, False)
            return False
        watch.suspect = suspect
        if watch.turn_computed() >= LONG:
            self._pool.blocking_sites.suspect(suspect[0])
        return self._learn(watch)

    def _learn(self, watch: Watch) -> bool:
        """Note that a suspect computes; True the first time. (Only some time on a core makes its place one that does.)"""
        if watch.suspect is None or watch.turn_computed() < COMPUTED:
            return False
        self._pool.blocking_sites.caught(*watch.suspect, True)
        watch.suspect = None
        return True
