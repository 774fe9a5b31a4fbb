"""Watch: what the monitor knows of the turn that it found a thread in.

A turn is one to the monitor while its strand and its number stay the same; most turns change that, some don't. So at the
second look the watch is posted to the turn's strand, as a queue item: once that is run the turn is over. What was seen before
may have been the turn before, so the turn counts from the posting (but for two ticks).

A pooled strand runs all that is queued in it in one turn. Hand-off asks how long the *turn* lasts, for others wait behind it;
a report asks how long the *item* lasts, for one that is short did nothing wrong. Each item has a watch of its own, which
takes over what the last one knew of the turn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from plait._rt.ground.clock import Clock

if TYPE_CHECKING:
    from types import CodeType

    from plait._rt.pool import Pool
    from plait._rt.sched.blocking_sites import Point
    from plait._rt.strand.carrier import Carrier, Turn
    from plait._rt.strand.strand import Strand

TICK = 0.001


class LastLook:
    """What the monitor's last look or glance found, and when."""

    __slots__ = ("began", "ended", "kept_gil", "seen")

    def __init__(self) -> None:
        self.began, self.ended = 0.0, math.inf
        self.kept_gil = 0.0  # for how long somebody has kept the GIL from the monitor since
        self.seen: dict[Carrier, tuple[Strand, int]] = {}  # the turns; whose clocks were noted


class Watch:
    """One item of one turn; the monitor's own but for `over`, which the strand's thread writes."""

    __slots__ = (
        "carrier",
        "caught",
        "excused",
        "first_clock",
        "first_wait",
        "handed_off",
        "item",
        "kept_gil",
        "kept_until",
        "number",
        "over",
        "posted",
        "probe",
        "ran_at",
        "report_at",
        "reported",
        "since",
        "still",
        "strand",
        "suspect",
        "turn_clock",
        "turn_since",
        "unseen",
    )

    def __init__(self, carrier: Carrier, turn: Turn, now: float, stall_after: float) -> None:
        self.carrier, self.probe = carrier, carrier.probe
        self.strand, self.number, self.item = turn
        self.since = self.turn_since = self.ran_at = now
        self.first_clock = self.turn_clock = self.probe.cpu_ns()
        self.first_wait = 0  # how long it had waited for a core by then, in all
        self.unseen = 0.0  # how long the turn may have lasted before it was seen, about
        self.still = 0  # looks in a row that found it asleep
        self.posted = False
        self.over: float | None = None
        self.handed_off: float | None = None  # seconds it took
        self.suspect: tuple[CodeType, Point | None] | None = None  # what was handed off, not known yet to compute
        self.kept_gil = self.kept_until = 0.0  # for how long it kept the GIL to itself, and when it let go
        self.excused = 0.0  # for how long somebody else kept it from running
        self.report_at = now + stall_after
        self.reported = False
        self.caught: Any = None  # its stack and task, taken right after it let go of the GIL

    @classmethod
    def since_last(cls, carrier: Carrier, turn: Turn, last: float, stall_after: float) -> Watch:
        """Of a turn that was seen at the last glance already."""
        watch = cls(carrier, turn, last, stall_after)
        watch.first_clock = watch.turn_clock = watch.probe.noted
        return watch

    def _run(self) -> None:
        self.over = Clock.monotonic()

    def lasted(self) -> float:
        """Seconds so far, or in all."""
        return (self.over or Clock.monotonic()) - self.since

    def is_of(self, turn: Turn) -> bool:
        """Is it still this turn?"""
        return self.over is None and self.was_of(turn)

    def was_of(self, turn: Turn) -> bool:
        """Is it this turn, over or not?"""
        return self.strand is turn[0] and self.number == turn[1]

    def is_under_way(self) -> bool:
        """Is its thread in this turn still?"""
        turn = self.carrier.turn()
        return turn is not None and self.is_of(turn)

    def item_is_under_way(self) -> bool:
        """And at this item?"""
        turn = self.carrier.turn()
        return turn is not None and self.is_of(turn) and self.item == turn[2]

    def ask(self, now: float) -> None:
        """See that we are told when the turn is over."""
        if not self.posted:
            self.posted = True
            if now - self.since > 2 * TICK:
                self.report_at += now - 2 * TICK - self.since
                self.since = now - 2 * TICK
                self.first_clock = self.probe.cpu_ns()
            self.first_wait = self.probe.schedule()[0]
            self.strand._post(self)

    def goes_on_from(self, before: Watch) -> None:
        """It is the next item of the turn that before watched."""
        self.turn_since, self.turn_clock, self.unseen = before.turn_since, before.turn_clock, before.unseen
        self.handed_off, self.suspect = before.handed_off, before.suspect

    def note(self, now: float) -> None:
        """Note the thread's clock; at the end of each look."""
        clock = self.probe.cpu_ns()
        if clock != self.probe.noted:
            self.probe.noted = clock
            self.ran_at = now

    def rested(self, seconds: float) -> bool:
        """Did the thread have the processor for less than half of the seconds since the last look, when it was noted?"""
        return self.first_clock - self.probe.noted < seconds * 0.5e9

    def sleeps(self) -> bool:
        """Has the thread been asleep for two looks (more where it may be the GIL that it waits for)?"""
        if self.probe.cpu_ns() != self.probe.noted or not self.probe.sleeps():
            self.still = 0
            return False
        self.still += 1
        return self.still >= 2 and not self.probe.waits_for_futex()

    def computed(self) -> float:
        """Seconds of CPU that it has used."""
        return (self.probe.cpu_ns() - self.first_clock) / 1e9

    def turn_computed(self) -> float:
        """Seconds of CPU that the turn has used since it was first seen."""
        return (self.probe.cpu_ns() - self.turn_clock) / 1e9

    def excuse(self, seconds: float, now: float) -> None:
        """For so long up to now it was somebody else's doing."""
        seconds = min(seconds, now - self.since - self.excused)
        self.excused += seconds
        self.report_at += seconds


def follow(watches: dict[Any, Watch], pool: Pool, now: float) -> dict[Any, Watch]:
    """The watches of what is under way: those of before that still is, and new ones; by carrier."""
    current = {}
    for carrier, turn in list(pool.turns()):  # (asking lets go of the GIL, and then they go on)
        before = watches.get(carrier)
        if before is not None and before.is_of(turn) and before.item == turn[2]:
            before.ask(now)
            current[carrier] = before
            continue
        current[carrier] = watch = Watch(carrier, turn, now, pool.options.stall_after)
        if before is not None and before.is_of(turn):
            watch.goes_on_from(before)
        if not pool.started:
            watch.ask(now)  # at once, for the next look comes late
    return current
