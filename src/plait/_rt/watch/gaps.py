"""Gap: the monitor could not look for a while, and what that says of those that it watches.

    kept            a thread had the GIL all the while, in a C call: the monitor woke every switch interval to ask for it, in
                    vain. (On a free-threaded build: it stopped the world, to collect garbage, or kept it from being stopped.)
                    If one of ours used the processor half of the time, or as far as it could have a core, it is the one.
    kept, asleep    a C call that sleeps and keeps the GIL. Who waits for the GIL wakes as often as the monitor did; who waits
                    for something else wakes never. The one has woken once, just now.
    no core         the monitor was ready to run, and had no core: that says nothing. The others' clocks tell what they did.
    stopped         nobody ran, nor tried to: the process was stopped (SIGSTOP, a paused machine).

Who kept the others waiting is blamed for all of the gap, though its turn is seen only now. The time doesn't count for the
others, unless they sleep in a system call, where they need no GIL, or had no core themselves.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from plait._rt.ground.build import GIL_BUILD
from plait._rt.ground.clock import Clock
from plait._rt.ground.thread_probe import FUTEX, ThreadProbe

if TYPE_CHECKING:
    from plait._rt.pool import Pool
    from plait._rt.watch.turn_watch import Watch

GAP = 0.050  # seconds between two looks that say that the monitor was kept from looking
ALL_EVERY = 16  # looks from one to the next that notes the clocks of those that have no turn as well
SCHEDULE_EVERY = 4  # looks from one to the next that notes the schedules: reading one lets go of the GIL, and waits for it
WAKES_A_LOOK = 3  # how often a thread of a busy pool wakes from one look to the next, at most


class Used:
    """What a thread did in a gap, as parts of it."""

    __slots__ = ("cpu", "few", "waited", "wakes", "watch")

    def __init__(self, watch: Watch, gap: float, now: float, usual: int) -> None:
        probe, self.watch = watch.probe, watch
        # How many of the monitor's wakes are few. (Nothing was noted yet: a thread wakes ten times before its first step; and
        # the monitor's were more if that thread began in the middle of the gap.)
        self.few = 0.25 if probe.noted_schedule[1] else 0.5 * min(1.0, (now - probe.begun) / gap)
        waited, wakes = probe.schedule()
        self.cpu = (probe.cpu_ns() - probe.noted) / 1e9 / gap
        self.waited = (waited - probe.noted_schedule[0]) / 1e9 / gap
        self.wakes = wakes - probe.noted_schedule[1] - usual


class Gaps:
    """What the monitor notes at the end of a look, to compare with after a gap; its thread's own."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._probe = ThreadProbe()
        self._looks = self._process_ns = 0
        self._stale = 0  # looks since the schedules were noted

    def begin(self) -> None:
        """The monitor's thread begins. (It reads nothing yet: what that waits for may be the GIL, kept by the first step.)"""
        self._probe.begin()

    def end(self) -> None:
        """And ends."""
        self._probe.end()

    def note(self, watches: dict[Any, Watch]) -> float:
        """At the end of a look; for how many seconds we have just been kept from going on, if for long."""
        now = Clock.monotonic()
        for watch in watches.values():
            watch.note(now)
        self._process_ns = time.process_time_ns()
        self._looks -= 1
        self._stale += 1
        if self._looks < 0:
            return self.note_all()
        if self._stale >= SCHEDULE_EVERY and GIL_BUILD():
            return self._note_schedules(watch.probe for watch in watches.values())
        return 0.0

    def glanced(self) -> None:
        """In place of `note`, when the clocks have been noted and nothing else."""
        self._process_ns = time.process_time_ns()
        self._stale += 1

    def note_all(self) -> float:
        """Before the monitor starts, every sixteenth time, and before it sleeps."""
        self._looks, self._process_ns = ALL_EVERY, time.process_time_ns()
        everybody = self._pool.carriers()
        for each in everybody:
            each.probe.noted = each.probe.cpu_ns()
        return self._note_schedules(each.probe for each in everybody)

    def _note_schedules(self, others: Iterable[ThreadProbe]) -> float:
        for probe in (self._probe, *others):
            if not probe.alive:  # a main strand's between two runs: what was noted last holds for the next
                continue
            before = Clock.monotonic()
            probe.noted_schedule = probe.schedule()
            gap = Clock.monotonic() - before
            if gap >= GAP:  # before the next system call lets those go on who kept us
                return gap
        self._stale = 0
        return 0.0

    def judge(self, gap: float, now: float, watches: Collection[Watch]) -> Watch | None:
        """The last look was gap seconds ago: whose doing was it? The others are excused."""
        waited, wakes = (new - old for new, old in zip(self._probe.schedule(), self._probe.noted_schedule, strict=True))
        usual = self._stale * WAKES_A_LOOK  # since they were noted, before the gap
        wakes -= usual
        kept = not GIL_BUILD() or wakes > max(4, gap / 4 / max(sys.getswitchinterval(), 0.005))
        if waited / 1e9 >= gap / 2 and not (kept and GIL_BUILD()):
            return None
        used = [Used(watch, gap, now, usual) for watch in watches]
        found = _busy_one(used, gap)
        if found is None and kept and GIL_BUILD() and time.process_time_ns() - self._process_ns < gap * 1e9 / 2:
            # (somebody who computes, whom we don't know, would have the GIL)
            found = self._sleeping_one(used, min(wakes, gap / 0.005))
        for each in used:
            if each is not found and not (kept and self._is_elsewhere(each.watch)) and each.waited < 0.5:
                each.watch.excuse(gap, now)
        if found is None:
            return None
        culprit = found.watch
        culprit.ask(now)
        if culprit.since > now - gap:
            culprit.report_at -= culprit.since - (now - gap)
            culprit.since, culprit.first_clock = now - gap, min(culprit.first_clock, culprit.probe.noted)
        if GIL_BUILD():
            culprit.kept_gil, culprit.kept_until = culprit.kept_gil + gap, now
        return culprit

    def _sleeping_one(self, used: list[Used], wakes: float) -> Used | None:
        """Who has woken just now. (A wait for the GIL goes by the switch interval that held when it began.)"""
        woken = [each for each in used if each.cpu > 0 and each.waited < 0.5 and each.wakes <= max(3, wakes * each.few)]
        return min((each for each in woken if not self._is_elsewhere(each.watch)), key=lambda each: each.wakes, default=None)

    def _is_elsewhere(self, watch: Watch) -> bool:
        """Does it sleep in a system call where it needs no GIL? (Each question of ours lets go of the GIL: the turn may be over
        by now, and where the thread is then says nothing of it.)"""
        return watch.probe.system_call() not in (None, FUTEX) and watch.is_under_way()


def _busy_one(used: list[Used], gap: float) -> Used | None:
    """Who used the processor. Of several the one that now waits for the GIL: the others compute without it."""
    busy = [each for each in used if each.cpu >= 0.5 or (each.cpu * gap >= GAP and each.cpu + each.waited >= 0.8)]
    return max(busy, key=lambda each: (each.watch.probe.sleeps(), each.cpu)) if len(busy) > 1 else next(iter(busy), None)
