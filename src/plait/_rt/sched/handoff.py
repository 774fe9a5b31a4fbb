"""Hand-off: a worker's processor goes to another worker, because its step is stuck, or is about to be.

The monitor gives away the processor of a worker that it found stuck; a worker gives its own away before a step at a place
that is known to block (blocking_sites.py).

    H1  Who removes a worker from `processor.holder` may give the processor away: one giver, whoever comes second. The worker
        loses it first (`worker.proc = None`), and only then another gets it.
    H2  Never two threads in one coroutine: a hand-off moves the processor, not the strand. The strand's turn stays with
        the stuck worker until its step ends (strand.py).
    H3  A worker may queue on a processor that was just taken from it, after the heir looked and parked; and it may be woken,
        or sit at the poller, without one. So it looks again whether the processor is its own after it queued, and wakes
        somebody else when it stops to serve.
    H4  `workers` is appended to first and counted after, so the cap holds with several givers at once.
    H5  Nothing is taken before there is a thread to take it to, so nothing is ever given back: a processor given back to a
        worker that was about to become a spare, or to end, was lost. An heir is no spare: who took it out of `spares`, or
        started it, rings its bell once, with a processor for it or without.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait._rt.sched.scheduler import Scheduler
    from plait._rt.sched.worker import Worker

logger = logging.getLogger("plait")


class HandOff:
    """The hand-offs of one pool; no lock, any thread."""

    def __init__(self, pool: Scheduler) -> None:
        self._pool = pool
        self.at_cap = 0

    def may_give(self, worker: Worker) -> bool:
        """Has worker a processor, and is there somebody to give it to? A hint; that there is nobody is said once."""
        if worker.proc is None:
            return False
        if self._pool.spares or len(self._pool.workers) < self._pool.options.max_threads:
            return True
        self._say_at_cap()
        return False

    def give(self, worker: Worker) -> bool:
        """Give worker's processor to a spare or to a new thread; False if it has none, or must keep it at the cap."""
        processor = worker.proc
        if processor is None:
            return False
        heir = self._spare() or self._new()
        if heir is None:
            return False
        try:
            processor.holder.remove(worker)  # H1
        except ValueError:
            heir.bell.release()  # another giver was quicker: it becomes a spare
            return False
        worker.proc = None
        heir.proc = processor
        processor.holder.append(heir)
        heir.bell.release()
        return True

    def _spare(self) -> Worker | None:
        while True:
            try:
                spare = self._pool.spares.pop()
            except IndexError:
                return None
            if not spare.retired:
                return spare
            spare.bell.release()  # it ends

    def _new(self) -> Worker | None:
        """A worker whose thread waits for its bell; None at the cap, or if the system gives no more threads."""
        pool = self._pool
        worker = pool.new_worker(None)
        if len(pool.workers) <= pool.options.max_threads:
            try:
                worker.start()
                return worker
            except RuntimeError:
                pass
        pool.workers.remove(worker)
        self._say_at_cap()
        return None

    def _say_at_cap(self) -> None:
        self.at_cap += 1
        if self.at_cap == 1:
            logger.warning(
                "no thread is left for a hand-off (%d are in use of max_threads=%d) and their steps do not end, so tasks wait "
                "behind tasks that block: raise max_threads, or move the blocking calls to plait.to_thread",
                len(self._pool.workers),
                self._pool.options.max_threads,
            )
