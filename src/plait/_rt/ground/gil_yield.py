"""GIL yield: on a GIL build a busy thread lets another one in now and then.

A thread that waits for the GIL asks the holder to let go when it has waited a switch interval (5 ms), but each time the GIL
is free for a moment it begins to wait anew. A loop that polls between its steps frees the GIL at each poll, for a
microsecond, and takes it back before anybody is awake: other threads wait 0.1 to 1 s behind it (asyncio's loop does the same).

So who runs from poll to poll sleeps a microsecond (60, with the kernel's timer slack) every millisecond, if there is
another thread that is not at rest. And a worker does so at its next step when it has woken the main strand (`GIL_YIELD`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from plait._rt.ground.build import GIL_BUILD
from plait._rt.ground.clock import Clock
from plait._rt.ground.run_queue import RunItem

if TYPE_CHECKING:
    from collections import deque

    from plait._rt.sched.scheduler import Scheduler

APART = 0.001  # seconds from one yield to the next
PAUSE = 1e-6
REST = 50e-6  # what was waited for longer than this was rest enough

_last = 0.0  # when the GIL was free last; threads that write it at once lose nothing but a yield


def yield_gil(pool: Scheduler) -> None:
    """Let another thread in, if it is time, and if there may be one that waits."""
    global _last
    now = Clock.monotonic()
    if now - _last < APART:
        return
    _last = now
    if GIL_BUILD() and threading.active_count() > pool.resting() + 1:
        Clock.sleep(PAUSE)
        _last = Clock.monotonic()


def polled(pool: Scheduler, since: float) -> None:
    """The calling thread has polled, without the GIL since then."""
    global _last
    now = Clock.monotonic()
    if now - since > REST:
        _last = now
    else:
        yield_gil(pool)


class _GilYield(RunItem):
    """The worker that runs it lets go of the GIL, for a main strand was woken and waits for it.

    One that comes right after another goes to the end of the queue, so that a main strand that is woken again and again costs
    the worker a fraction of its time.
    """

    apart = 0.00025

    def queue(self, strands: deque[Any]) -> None:
        if Clock.monotonic() - _last > self.apart:
            strands.appendleft(self)
        else:
            strands.append(self)

    def _take_turn(self, worker: Any) -> None:
        global _last
        worker.step_out()
        Clock.sleep(PAUSE)
        _last = Clock.monotonic()


GIL_YIELD: Any = _GilYield()
