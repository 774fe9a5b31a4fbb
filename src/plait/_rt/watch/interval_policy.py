"""When the GIL's switch interval is lowered (switch_interval.py says why): while a turn computes and another thread of ours
wants to run, and for a while after.

Ownership: `_crowded_at` is written by any thread; `see_to` and `put_back` belong to the monitor's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from plait._rt.ground import switch_interval
from plait._rt.ground.build import GIL_BUILD
from plait._rt.ground.clock import Clock
from plait._rt.watch.turn_watch import TICK

if TYPE_CHECKING:
    from plait._rt.pool import Pool
    from plait._rt.watch.turn_watch import Watch

KEPT = 0.050  # seconds that it stays low


class IntervalPolicy:
    """One pool's."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._crowded_at = -math.inf  # when somebody computed while others wanted to run, last

    def crowded(self) -> None:
        """Somebody computes and others want to run: on a GIL build it is passed on more often for a while. From any thread."""
        if not self._pool.stopping:
            self._crowded_at = Clock.monotonic()
            switch_interval.lower(self)

    def see_to(self, watches: dict[Any, Watch], before: dict[Any, Watch], now: float) -> None:
        """At a look that found watches, after one that found those before."""
        if not GIL_BUILD():
            return
        if len(watches) > 1 and any(
            before.get(carrier) is watch and watch.probe.cpu_ns() > watch.probe.noted and now - watch.since > TICK
            for carrier, watch in watches.items()
        ):
            self.crowded()
        elif now - self._crowded_at > KEPT:
            self.put_back()

    def is_low(self, now: float) -> bool:
        """Is it, or is it to be put back by a look?"""
        return now - self._crowded_at < 2 * KEPT

    def put_back(self) -> None:
        """Nobody is in anybody's way any more."""
        switch_interval.put_back(self)
