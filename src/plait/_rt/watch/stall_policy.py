"""When the monitor reports a step that lasts: after `stall_after` while it lasts, once more after half a second, and when it
has ended. And calls that wait because all threads of the executor are busy.

Hand-offs come first, and the reports of one look take no longer than `REPORTING`; what is left has its turn at the next.

Ownership: the monitor's thread.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from plait._rt.ground.clock import Clock

if TYPE_CHECKING:
    from plait._rt.pool import Pool
    from plait._rt.watch.turn_watch import Watch

ERROR_AFTER = 0.500  # seconds; a stall is reported again, as an error, and what is not the step's doing for the first time
RETRY = 0.050  # seconds after which one that could not be judged, or was not to blame so far, is looked at again
REPORTING = 0.002  # seconds that the reports of one look may take


class StallPolicy:
    """One pool's."""

    def __init__(self, pool: Pool, report: Any) -> None:
        self._pool, self._report = pool, report
        self._executor_at = 0.0
        self.count = 0

    def see_to(self, watches: dict[Any, Watch], before: dict[Any, Watch], now: float) -> None:
        """Report what has lasted for long among watches, and what has ended of those before."""
        for carrier, watch in before.items():
            if watches.get(carrier) is not watch:
                if watch.caught and now >= watch.report_at:
                    self._report_on(watch)
                if watch.reported:
                    self._report.ended(watch)
        for watch in watches.values():
            if now < watch.report_at:
                watch.caught = None
            elif Clock.monotonic() - now < REPORTING or watch.caught:
                self._report_on(watch)

    def _report_on(self, watch: Watch) -> None:
        """A step lasts too long: once after `stall_after`, and once more."""
        carrier, now = watch.carrier, Clock.monotonic()
        if carrier.pooled and carrier.proc is None and watch.handed_off is None:
            watch.handed_off = 0.0  # it gave its processor away itself
        if watch.reported:
            watch.report_at = math.inf
            self._report.goes_on(self._pool, watch)
        elif self._report.began(self._pool, watch):
            watch.reported = True
            watch.report_at = watch.since + watch.excused + ERROR_AFTER
            if watch.report_at <= now:
                watch.report_at = math.inf  # that was an error already
            self.count += 1
        else:
            watch.report_at = Clock.monotonic() + RETRY

    def see_to_executor(self, now: float) -> bool:
        """Report calls that wait because all threads of the executor are busy; are there any?"""
        lanes = self._pool.lanes()
        if now >= self._executor_at:
            self._executor_at = now + self._pool.options.stall_after
            for lane in lanes:
                waited = lane.longest_wait(now)
                if waited >= self._pool.options.stall_after:
                    self._report.executor_is_full(lane, waited)
        return any(lane.waiting() for lane in lanes)
