"""Monitor: the thread that watches workers and hands their processors on (Go's sysmon).

While there is a main strand alone it begins after a while, and looks every ten milliseconds: nothing can be handed off.
Else it looks at each worker every tick: every millisecond, or four while each look finds all of them in new turns, or ten while
they are busy with it (then a glance will do: waking up costs 25 to 75 us, a look as much again). A worker found in the same
turn as before, while something waits for its processor, is
    blocked     if its CPU clock stood still since the last look and the kernel says it sleeps (S or D): two such looks
                in a row, and its processor goes to another worker at once. (A still clock alone means nothing: of four
                threads computing on two cores it stood still in two looks of three.) A thread that waits for the GIL, or
                for a stopped world, sleeps in a futex as one that waits for a lock does: those get more time.
    computing   otherwise: its processor goes after `handoff_after`.
A step longer than `stall_after` is reported while it lasts, once more after half a second, and when it has ended. Hand-offs
come first, and the reports of one look take no longer than `REPORTING`; what is left has its turn at the next.

Now and then the monitor itself can't run. What that says of the others: gaps.py.

Ownership: `_asleep`, `_looked_at` and `_bell` are shared with `wake`. All else is the monitor's own. It sleeps when all workers
are parked and nothing can get stuck. How a processor changes hands: handoff.py.
"""

from __future__ import annotations

import math
import sys
import threading
import warnings
import weakref
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from plait._rt.asyncio_face.loop import logger
from plait._rt.ground import switch_interval
from plait._rt.ground.build import GIL_BUILD
from plait._rt.ground.clock import Clock
from plait._rt.sched.blocking_sites import COMPUTED, LONG, start_of
from plait._rt.strand.strand import LOOK_AGAIN
from plait._rt.watch.gaps import GAP, Gaps
from plait._rt.watch.turn_watch import TICK, Watch, follow
from plait.errors import StuckThreads

if TYPE_CHECKING:
    from plait._rt.pool import Pool
    from plait._rt.sched.processor import Processor
    from plait._rt.sched.worker import Worker
    from plait._rt.strand.carrier import Carrier
    from plait._rt.strand.thread_strand import ThreadStrand

FIRST_AFTER = 0.005  # seconds from the start of a main strand: most of what is over by then is so short that it would notice us
ALONE_TICK = 0.010  # while there are no workers: a report is all that can be needed
CALM_TICK = 0.004
CALM_LOOKS = 16  # looks that found nothing stuck, before the next are as far apart as that
BUSY_TICK = 0.010  # after a glance (and Go's longest)
GLANCES = 16  # between two looks
QUICK_TICK = 1e-6  # (the kernel makes 50 us of it) after a hand-off: where one task blocked, the next in the queue may as well
QUICK_TICKS = 20
ERROR_AFTER = 0.500  # seconds; when a stall is reported again, as an error
RETRY = 0.050  # seconds after which one that could not be judged, or was not to blame so far, is looked at again
REPORTING = 0.002  # seconds that the reports of one look may take
OVERSLEPT = 0.002  # seconds; less than half of the usual switch interval
LINGER = 0.050  # how long everybody must be idle before the monitor sleeps: waking it costs more than a few ticks


class Monitor:
    """Watches one pool."""

    def __init__(self, pool: Pool, report: Any) -> None:
        self._pool = pool
        self.report = report
        self._bell = threading.Event()
        self._asleep = False
        self._thread: threading.Thread | None = None
        self._watches: dict[Any, Watch] = {}
        self._gaps = Gaps(pool)
        self._looked_at = math.inf
        self._first_at = 0.0
        self._begun = self._alone = False
        self._executor_at = 0.0
        self._crowded_at = -math.inf  # when somebody computed while others wanted to run, last
        self._idle_since: float | None = None
        self._quick = 0  # quick ticks to come
        self._calm = 0  # looks since one that found anything stuck
        self._until_long = TICK  # seconds from the last look until a step has computed for too long, if less
        self._last_look = 0.0
        self._kept_gil = 0.0  # for how long somebody kept the GIL from us before this look
        self._seen: dict[Any, tuple[Any, int]] = {}  # which turns the last look or glance found; whose clocks were noted
        self._glances = 0  # since the last look
        self.handoffs = self.stalls = 0

    @property
    def started(self) -> bool:
        """Is there a thread?"""
        return self._thread is not None

    def start(self) -> None:
        self._gaps.note_all()
        self._looked_at = self._first_at = Clock.monotonic()
        self._alone = not self._pool.started
        if self._alone:
            self._first_at += FIRST_AFTER
        thread = threading.Thread(target=_watch, args=(weakref.ref(self), self._bell), name="plait-monitor", daemon=True)
        self._thread = thread  # first: it ends when it is another's, or nobody's
        try:
            thread.start()
        except RuntimeError:
            self._thread = None
            raise

    def wake(self) -> None:
        """Somebody has work again; from any thread."""
        if self._asleep:
            self._asleep = False
            self._looked_at = Clock.monotonic()  # what it calls next may keep the GIL from us
            self._bell.set()

    def run_begins(self, strand: ThreadStrand) -> None:
        """A main strand is run, on the calling thread: what that computed between two runs, while we slept, is not held against
        it."""
        if self._asleep:
            strand.probe.noted, strand.probe.noted_schedule = strand.probe.cpu_ns(), strand.probe.schedule()
            self.wake()

    def begin_now(self) -> None:
        """There are workers."""
        self._alone = False
        if not self._begun:
            self._bell.set()

    def stop(self) -> None:
        """End the thread; the pool is stopping."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._bell.set()
            if thread is not threading.current_thread() and not sys.is_finalizing():  # then it does not go on
                thread.join()
            if self._begun:
                self._end()

    # The monitor's thread (see `_watch`, below)

    def _begin(self) -> None:
        self._begun = True
        self._bell.clear()
        if self._thread is threading.current_thread():  # (a `stop` that finds us begun waits for us)
            self._looked_at = min(Clock.monotonic(), self._first_at)
        self.report.start()
        self._gaps.begin()

    def _round(self, late: float) -> bool:
        """After a tick that came so late; True if nobody has anything to do and the thread may sleep, as has been announced."""
        hurry = self._was_kept(late)
        try:
            busy = (not hurry and self._glance()) or self._look(hurry)
        except Exception:
            logger.exception("plait's monitor failed in one look; it goes on")
            busy = True
        now = Clock.monotonic()
        if busy:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since > LINGER:
            return self._falls_asleep()
        return False

    def _falls_asleep(self) -> bool:
        self._bell.clear()
        self._looked_at = math.inf
        self._gaps.note_all()
        self._asleep = True
        switch_interval.put_back(self)
        if not self._busy() and self._thread is not None:  # looked again after the announcement
            return True
        self._woke()
        return False

    def _woke(self) -> None:
        self._asleep = False
        self._looked_at = min(self._looked_at, Clock.monotonic())  # who woke us has perhaps set it
        self._idle_since = None
        self.report.summarise()

    def _end(self) -> None:
        switch_interval.put_back(self)
        self._gaps.end()
        self.report.finish(self._pool, self._watches.values())
        self._watches, self._seen = {}, {}  # nothing of the user's is kept by a pool that has ended

    def _was_kept(self, late: float) -> bool:
        """Did the tick take much longer, though nobody ran at the last look, or one is in the same turn still? Then somebody
        has the GIL and computes. (Beside a worker that is busy with short steps each tick is late.)"""
        if late <= OVERSLEPT or not GIL_BUILD():
            self._kept_gil = 0.0
            return False
        self._kept_gil = 0.0 if self._seen else late
        return not self._seen or self._goes_on()

    def _goes_on(self) -> bool:
        """Is a worker in the turn in which the last look found it?"""
        turns = self._pool.turns()
        return any(self._seen.get(carrier) == turn[:2] for carrier, turn in turns if carrier.pooled)

    def crowded(self) -> None:
        """Somebody computes and others want to run: on a GIL build it is passed on more often for a while. From any thread."""
        if not self._pool.stopping:
            self._crowded_at = Clock.monotonic()
            switch_interval.lower(self)

    def _tick(self) -> float:
        if self._alone:
            tick = min(ALONE_TICK, self._pool.options.stall_after / 4)
            until = min((watch.report_at for watch in self._watches.values()), default=math.inf) - Clock.monotonic()
            return until if 0 < until < tick else tick
        if self._quick > 0:
            self._quick -= 1
            return QUICK_TICK
        if self._calm < CALM_LOOKS:
            return min(TICK, self._until_long)
        return BUSY_TICK if self._glances else CALM_TICK

    def _busy(self) -> bool:
        """Does anybody run, or is there work? Asked after `_asleep` is set, so whoever stops to be parked meanwhile wakes us.

        Work goes from the main strand to workers, from worker to heir, from these to new pinned strands, and from all to the
        executor, and who gave it away may park before we ask the next: so they are asked in that order. (Who was woken has left
        `parked` before it rings for us, and has `running` set only later.)
        """
        pool = self._pool
        seats = len(pool.seats)
        if _is_awake(pool.main):
            return True
        if len(pool.parking.parked) < len(pool.processors) or any(True for _ in pool.turns()):
            return True
        if any(_is_awake(strand) for strand in pool.pinned) or len(pool.seats) != seats:
            return True
        return bool(pool.injector) or any(lane.waiting() for lane in pool.lanes())

    def _glance(self) -> bool:
        """While all is calm: does everybody go on, in other turns than before? (Little code, for it runs with cold caches.)

        If not, a look follows, for which the turns that were found before are watched from then on.
        """
        now = Clock.monotonic()
        crowded = now - self._crowded_at < 2 * LINGER  # the switch interval is to be seen to
        if self._calm < CALM_LOOKS or self._glances >= GLANCES or crowded or now - self._looked_at >= GAP:
            self._glances = 0
            return False
        seen, found = self._seen, {}
        half, goes_on, clocks = (now - self._last_look) * 0.5e9, True, []
        for carrier, turn in self._pool.turns():
            probe = carrier.probe
            clock = probe.cpu_ns()
            clocks.append((probe, clock))
            found[carrier] = turn[:2]
            if seen.get(carrier) == turn[:2]:
                self._watches.setdefault(
                    carrier, Watch.since_last(carrier, turn, self._last_look, self._pool.options.stall_after)
                )
                goes_on = False
            elif carrier not in seen or clock - probe.noted < half:
                goes_on = False
        if not goes_on or not clocks:
            self._glances = 0
            return False
        self._seen = found
        for probe, clock in clocks:
            probe.noted = clock
        self._watches.clear()
        self._gaps.glanced()
        self._glances += 1
        self._calm += 1
        self._last_look = now
        self._looked_at = Clock.monotonic()
        return True

    def _look(self, hurry: bool) -> bool:
        pool, now, known = self._pool, Clock.monotonic(), self._watches
        gap = now - self._looked_at
        caught = self.report.catch(pool) if gap >= GAP else None  # first: the next system call lets go of the GIL
        if hurry:
            self._calm = 0
            self.crowded()  # for this look lets go of the GIL several times (and only now: it is taken from us sooner)
        self._watches = watches = follow(known, pool, now)
        if caught is not None:
            self._blame(gap, now, caught)
        began = Clock.monotonic()
        self._until_long = TICK
        for carrier, watch in watches.items():
            if carrier.pooled:
                self._see_to_processor(carrier, watch, now)
        if GIL_BUILD():
            self._see_to_interval(now, known)
        for carrier, watch in known.items():
            if watches.get(carrier) is not watch:
                if watch.caught and now >= watch.report_at:
                    self._report_on(watch)
                if watch.reported:
                    self.report.ended(watch)
        for watch in watches.values():
            if now < watch.report_at:
                watch.caught = None
            elif Clock.monotonic() - now < REPORTING or watch.caught:
                self._report_on(watch)
        waiting = self._look_at_executor(now)
        stuck = any((watch.posted or watch.still) and watch.handed_off is None for watch in watches.values())
        self._calm = 0 if stuck else self._calm + 1
        self._last_look = now
        self._seen = {carrier: (watch.strand, watch.number) for carrier, watch in watches.items()}
        ended = Clock.monotonic()
        if ended - began >= GAP:  # each system call of ours lets go of the GIL
            self._blame(ended - began, ended, self.report.catch(pool))
        elif gap := self._gaps.note(watches):
            self._blame(gap, Clock.monotonic(), self.report.catch(pool))
        self._looked_at = Clock.monotonic()
        return bool(watches) or waiting

    def _blame(self, gap: float, now: float, caught: dict[Any, Any]) -> None:
        culprit = self._gaps.judge(gap, now, self._watches.values())
        self._gaps.note(self._watches)
        turn, *what = caught.get(culprit.carrier, (None,)) if culprit is not None else (None,)
        if culprit is not None and turn is not None and culprit.was_of(turn):  # (it may be over by now)
            culprit.caught = what

    def _see_to_processor(self, worker: Worker, watch: Watch, now: float) -> None:
        """Hand it on if the turn that worker is in is stuck."""
        processor = worker.proc
        if watch.turn_since == now:  # a new turn
            watch.unseen = (now - self._looked_at + self._kept_gil) / 2
            rested = worker not in self._seen or watch.rested(now - self._last_look)
            if (rested or self._quick > 0) and watch.probe.sleeps():
                watch.still = 1
        elif processor is None:
            if self._pool.compute_gate.includes(worker) and watch.sleeps():
                self._pool.compute_gate.leave(worker)  # it blocks, after all
            elif watch.handed_off is not None:
                self._see_to_computing(worker, watch)
        elif self.something_waits(processor) and (watch.sleeps() or self._is_long(worker, watch, now)):
            self._hand_off(worker, watch, now)

    def _see_to_computing(self, worker: Worker, watch: Watch, learned: bool = False) -> None:
        """It goes on computing without a processor."""
        learned = self._learn(watch) or learned
        if GIL_BUILD():
            if learned:
                self._pool.compute_gate.caught(worker)
        elif not (watch.still or worker.retired) and watch.turn_computed() >= COMPUTED:
            worker.yield_cores()

    def _learn(self, watch: Watch) -> bool:
        """Note that a suspect computes; True the first time. (Only some time on a core makes its place one that does.)"""
        if watch.suspect is None or watch.turn_computed() < COMPUTED:
            return False
        self._pool.blocking_sites.caught(*watch.suspect, True)
        watch.suspect = None
        return True

    def _is_long(self, worker: Worker, watch: Watch, now: float) -> bool:
        """Does it compute for too long? A step from where one was caught before is likely to be as long: it gets less time,
        once it can be learned from at the same moment (else the next in the queue might begin there, too)."""
        patience = self._pool.options.handoff_after
        if worker.point is not None and watch.turn_computed() >= COMPUTED:
            patience /= 2
        left = patience - (now - watch.turn_since + watch.unseen)
        if left > 0:
            self._until_long = min(self._until_long, left)
        return left <= 0

    def _see_to_interval(self, now: float, known: dict[Any, Watch]) -> None:
        """Lower the switch interval while a turn computes and another thread of ours wants to run."""
        if len(self._watches) > 1 and any(
            known.get(carrier) is watch and watch.probe.cpu_ns() > watch.probe.noted and now - watch.since > TICK
            for carrier, watch in self._watches.items()
        ):
            self.crowded()
        elif now - self._crowded_at > LINGER:
            switch_interval.put_back(self)

    def _report_on(self, watch: Watch) -> None:
        """A step lasts too long: once after `stall_after`, and once more."""
        carrier, now = watch.carrier, Clock.monotonic()
        if carrier.pooled and carrier.proc is None and watch.handed_off is None:
            watch.handed_off = 0.0  # it gave its processor away itself
        if watch.reported:
            watch.report_at = math.inf
            self.report.goes_on(self._pool, watch)
        elif self.report.began(self._pool, watch):
            watch.reported = True
            watch.report_at = watch.since + watch.excused + ERROR_AFTER
            if watch.report_at <= now:
                watch.report_at = math.inf  # that was an error already
            self.stalls += 1
        else:
            watch.report_at = Clock.monotonic() + RETRY

    def _look_at_executor(self, now: float) -> bool:
        """Report calls that wait because all threads of the executor are busy; are there any?"""
        lanes = self._pool.lanes()
        if now >= self._executor_at:
            self._executor_at = now + self._pool.options.stall_after
            for lane in lanes:
                waited = lane.longest_wait(now)
                if waited >= self._pool.options.stall_after:
                    self.report.executor_is_full(lane, waited)
        return any(lane.waiting() for lane in lanes)

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
        self.handoffs += 1
        if watch.still:
            self._quick = QUICK_TICKS
        else:
            self._see_to_computing(worker, watch, learned)

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

    # Shutdown's question

    def name_stuck(self, carriers: list[Carrier]) -> None:
        """Warn of the threads that close() left behind."""
        for carrier in carriers:
            running = carrier.task() or carrier.item
            where = self.report.place_of(carrier.probe)
            warnings.warn(
                f"thread {carrier.name} is stuck at {where} and was left behind; it runs {running!r}",
                StuckThreads,
                stacklevel=3,
            )


def _is_awake(strand: ThreadStrand) -> bool:
    return strand.is_running() and not strand._parked


def _watch(of: weakref.ref[Monitor], bell: threading.Event) -> None:
    """The thread. While it sleeps it holds no more than the bell, so that a loop which nobody closes can be collected: its end
    closes it."""
    monitor = of()
    wait, monitor = 0.0 if monitor is None else monitor._first_at - Clock.monotonic(), None
    if wait > 0:
        bell.wait(wait)
    monitor = of()
    if monitor is not None and monitor._thread is threading.current_thread():
        monitor._begin()
    while monitor is not None and monitor._thread is threading.current_thread():
        tick, monitor = monitor._tick(), None
        began = Clock.monotonic()
        Clock.sleep(tick)
        late = Clock.monotonic() - began - tick
        monitor = of()
        if monitor is not None and monitor._round(late):
            seconds, monitor = monitor.report.due_in(), None
            bell.wait(seconds)
            monitor = of()
            if monitor is not None:
                monitor._woke()
