"""Monitor: the thread that watches workers and hands their processors on (Go's sysmon).

While there is a main strand alone it begins after a while, and looks every ten milliseconds: nothing can be handed off.
Else it looks at each worker every tick: every millisecond, or four while each look finds all of them in new turns, or ten while
they are busy with it (then a glance will do: waking up costs 25 to 75 us, a look as much again). What it found is judged by
three policies, in this order: whose processor is handed on (handoff_policy.py), how often the GIL changes hands
(interval_policy.py), what is reported (stall_policy.py). Now and then the monitor itself can't run; what that says of the
others: gaps.py.

Ownership: `_asleep`, `_last.ended` and `_bell` are shared with `wake`. All else is the monitor's own. It sleeps when all
workers are parked and nothing can get stuck.
"""

from __future__ import annotations

import math
import sys
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from plait._rt.asyncio_face.loop import logger
from plait._rt.ground.build import GIL_BUILD
from plait._rt.ground.clock import Clock
from plait._rt.ground.threads import Thread
from plait._rt.watch.gaps import GAP, Gaps
from plait._rt.watch.handoff_policy import HandOffPolicy
from plait._rt.watch.interval_policy import IntervalPolicy
from plait._rt.watch.stall_policy import StallPolicy
from plait._rt.watch.turn_watch import TICK, LastLook, Watch, follow
from plait.errors import StuckThreads

if TYPE_CHECKING:
    from plait._rt.pool import Pool
    from plait._rt.strand.carrier import Carrier
    from plait._rt.strand.thread_strand import ThreadStrand

FIRST_AFTER = 0.005  # seconds from the start of a main strand: most of what is over by then is so short that it would notice us
ALONE_TICK = 0.010  # while there are no workers: a report is all that can be needed
CALM_TICK = 0.004
CALM_LOOKS = 16  # looks that found nothing stuck, before the next are as far apart as that
BUSY_TICK = 0.010  # after a glance (and Go's longest)
GLANCES = 16  # between two looks
QUICK_TICK = 1e-6  # (the kernel makes 50 us of it) after a hand-off
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
        self._last = LastLook()
        self._first_at = 0.0
        self._begun = self._alone = False
        self._idle_since: float | None = None
        self._calm = 0  # looks since one that found anything stuck
        self._glances = 0  # since the last look
        self.handoffs, self.stalls, self.interval = HandOffPolicy(pool), StallPolicy(pool, report), IntervalPolicy(pool)

    @property
    def started(self) -> bool:
        """Is there a thread?"""
        return self._thread is not None

    def start(self) -> None:
        self._gaps.note_all()
        self._last.ended = self._first_at = Clock.monotonic()
        self._alone = not self._pool.started
        if self._alone:
            self._first_at += FIRST_AFTER
        thread = Thread("plait-monitor", _watch, weakref.ref(self), self._bell)
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
            self._last.ended = Clock.monotonic()  # what it calls next may keep the GIL from us
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
            self._last.ended = min(Clock.monotonic(), self._first_at)
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
        self._last.ended = math.inf
        self._gaps.note_all()
        self._asleep = True
        self.interval.put_back()
        if not self._busy() and self._thread is not None:  # looked again after the announcement
            return True
        self._woke()
        return False

    def _woke(self) -> None:
        self._asleep = False
        self._last.ended = min(self._last.ended, Clock.monotonic())  # who woke us has perhaps set it
        self._idle_since = None
        self.report.summarise()

    def _end(self) -> None:
        self.interval.put_back()
        self._gaps.end()
        self.report.finish(self._pool, self._watches.values())
        self._watches, self._last.seen = {}, {}  # nothing of the user's is kept by a pool that has ended

    def _was_kept(self, late: float) -> bool:
        """Did the tick take much longer, though nobody ran at the last look, or one is in the same turn still? Then somebody
        has the GIL and computes. (Beside a worker that is busy with short steps each tick is late.)"""
        if late <= OVERSLEPT or not GIL_BUILD():
            self._last.kept_gil = 0.0
            return False
        self._last.kept_gil = 0.0 if self._last.seen else late
        return not self._last.seen or self._goes_on()

    def _goes_on(self) -> bool:
        """Is a worker in the turn in which the last look found it?"""
        turns = self._pool.turns()
        return any(self._last.seen.get(carrier) == turn[:2] for carrier, turn in turns if carrier.pooled)

    def _tick(self) -> float:
        if self._alone:
            tick = min(ALONE_TICK, self._pool.options.stall_after / 4)
            until = min((watch.report_at for watch in self._watches.values()), default=math.inf) - Clock.monotonic()
            return until if 0 < until < tick else tick
        if self.handoffs.quick > 0:
            self.handoffs.quick -= 1
            return QUICK_TICK
        if self._calm < CALM_LOOKS:
            return min(TICK, self.handoffs.until_long)
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
        if self._calm < CALM_LOOKS or self._glances >= GLANCES or self.interval.is_low(now) or now - self._last.ended >= GAP:
            self._glances = 0
            return False
        seen, found = self._last.seen, {}
        half, goes_on, clocks = (now - self._last.began) * 0.5e9, True, []
        for carrier, turn in self._pool.turns():
            probe = carrier.probe
            clock = probe.cpu_ns()
            clocks.append((probe, clock))
            found[carrier] = turn[:2]
            if seen.get(carrier) == turn[:2]:
                self._watches.setdefault(
                    carrier, Watch.since_last(carrier, turn, self._last.began, self._pool.options.stall_after)
                )
                goes_on = False
            elif carrier not in seen or clock - probe.noted < half:
                goes_on = False
        if not goes_on or not clocks:
            self._glances = 0
            return False
        self._last.seen = found
        for probe, clock in clocks:
            probe.noted = clock
        self._watches.clear()
        self._gaps.glanced()
        self._glances += 1
        self._calm += 1
        self._last.began = now
        self._last.ended = Clock.monotonic()
        return True

    def _look(self, hurry: bool) -> bool:
        pool, now, known = self._pool, Clock.monotonic(), self._watches
        gap = now - self._last.ended
        caught = self.report.catch(pool) if gap >= GAP else None  # first: the next system call lets go of the GIL
        if hurry:
            self._calm = 0
            self.interval.crowded()  # for this look lets go of the GIL several times (and only now: it is taken from us sooner)
        self._watches = watches = follow(known, pool, now)
        if caught is not None:
            self._blame(gap, now, caught)
        began = Clock.monotonic()
        self.handoffs.until_long = TICK
        for carrier, watch in watches.items():
            if carrier.pooled:
                self.handoffs.see_to(carrier, watch, now, self._last)  # type: ignore[arg-type]
        self.interval.see_to(watches, known, now)
        self.stalls.see_to(watches, known, now)
        waiting = self.stalls.see_to_executor(now)
        stuck = any((watch.posted or watch.still) and watch.handed_off is None for watch in watches.values())
        self._calm = 0 if stuck else self._calm + 1
        self._last.began = now
        self._last.seen = {carrier: (watch.strand, watch.number) for carrier, watch in watches.items()}
        ended = Clock.monotonic()
        if ended - began >= GAP:  # each system call of ours lets go of the GIL
            self._blame(ended - began, ended, self.report.catch(pool))
        elif gap := self._gaps.note(watches):
            self._blame(gap, Clock.monotonic(), self.report.catch(pool))
        self._last.ended = Clock.monotonic()
        return bool(watches) or waiting

    def _blame(self, gap: float, now: float, caught: dict[Any, Any]) -> None:
        culprit = self._gaps.judge(gap, now, self._watches.values())
        self._gaps.note(self._watches)
        turn, *what = caught.get(culprit.carrier, (None,)) if culprit is not None else (None,)
        if culprit is not None and turn is not None and culprit.was_of(turn):  # (it may be over by now)
            culprit.caught = what

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
