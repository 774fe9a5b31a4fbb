"""Scheduler: the queues of a pool, and who gets what. It starts no thread: who calls it may be anybody's.

Ownership
    `injector` (deque), `tasks` (dict), `spares` and `workers` (lists): any thread, by their atomic operations.
    Scheduling order: publish work (append), then look for somebody to wake (parking.py).
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from plait._rt.ground.clock import Clock
from plait._rt.ground.here import here
from plait._rt.ground.run_queue import RunItem, items_of
from plait._rt.io.timers import Timers
from plait._rt.sched.blocking_sites import BlockingSites
from plait._rt.sched.compute_gate import ComputeGate
from plait._rt.sched.handoff import HandOff
from plait._rt.sched.parking import Parking
from plait._rt.sched.processor import Processor
from plait._rt.sched.worker import Worker
from plait._rt.strand.strand import Strand
from plait._rt.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plait._rt.io.poller import SharedPoller
    from plait._rt.options import Options
    from plait._rt.strand.thread_strand import ThreadStrand
    from plait._rt.watch.monitor import Monitor

_new_object: Any = object.__new__

HELP_AT = 4  # queued strands for which a worker wakes another; fewer are its own, or the monitor's to notice


class Scheduler:
    """The base of a pool."""

    def __init__(self, main: ThreadStrand, options: Options) -> None:
        self.main, self.options = main, options
        self.injector: deque[RunItem] = deque()
        self.tasks: dict[Task[Any], None] = {}  # strongly, those that outlived their first step; half the size of a set
        self.timers = Timers()
        self.processors: list[Processor] = []
        self.workers: list[Worker] = []
        self.spares: list[Worker] = []
        self.parking = Parking(self)
        self.handoff = HandOff(self)
        self.blocking_sites = BlockingSites()
        self.compute_gate = ComputeGate()
        self.stopping = self.closed = False
        self.polls = 0
        self._numbers = itertools.count(1)

    # What a pool adds, and who schedules asks for

    monitor: Monitor

    @property
    def poller(self) -> SharedPoller:
        """The strands' poller."""
        raise NotImplementedError

    def resting(self) -> int:
        """How many of our threads wait for something other than the GIL."""
        raise NotImplementedError

    def stop_main(self, stop: BaseException) -> bool:
        """KeyboardInterrupt or SystemExit was raised in a strand."""
        raise NotImplementedError

    def worker_ended(self, worker: Worker) -> None:
        """On its thread, last."""
        raise NotImplementedError

    # Scheduling

    def schedule(self, item: RunItem, woken: bool = True) -> None:
        """Queue item, a strand whose turn the caller holds, say, or a new task; from any thread."""
        worker = here.worker
        if worker is not None and worker.pool is self:
            processor = worker.proc
            if processor is not None:
                queue = processor.queue
                if woken and processor.run_on > 0:
                    processor.run_on -= 1
                    queue.appendleft(item)
                else:
                    queue.append(item)
                if self.parking.parked and (len(queue) > HELP_AT or worker.proc is not processor):  # (H3)
                    self.parking.notify()
                return
        self.inject(item)

    def inject(self, item: RunItem) -> None:
        """Queue item for whichever worker comes first."""
        self.injector.append(item)
        if self.parking.parked:
            self.parking.notify()

    def has_work(self) -> bool:
        """Is there something for a worker that is about to park?"""
        if self.injector or self.stopping:
            return True
        return any(processor.queue for processor in self.processors)

    def is_quiet(self) -> bool:
        """Has nobody anything to do? Workers that are stuck in a step without a processor don't count."""
        return len(self.parking.parked) >= len(self.processors) and not self.has_work()

    def queued(self) -> int:
        """How many strands wait for a worker."""
        return len(self.injector) + sum(len(processor.queue) for processor in self.processors)

    def deliver(self, handles: Iterable[Any]) -> None:
        """Post what a poll found."""
        self.polls += 1
        for handle in handles:
            handle._loop._post(handle)

    def fire_timers(self, most: int = sys.maxsize) -> None:
        """Post the timers that are due, the oldest so many."""
        self.timers.fire(Clock.monotonic(), most)

    # Strands and tasks

    def bare_strand(self) -> Strand:
        """A strand whose turn the caller holds."""
        strand = _new_object(Strand)
        strand._pool = self
        strand._next = strand._current = None
        strand._ready = []
        if self.main._debug:
            strand._debug = True
        return strand  # type: ignore[no-any-return]

    def all_tasks(self) -> list[Task[Any]]:
        """The tasks spawned and not done: queued, in their first step, or listed since. One on its way between two of these
        may be missed, unless the pool `is_quiet`."""
        queued = [item for queue in (self.injector, *(p.queue for p in self.processors)) for item in items_of(queue)]
        found = {item: None for item in queued if isinstance(item, Task)}
        starting = [worker.starting for worker in list(self.workers)]  # each read once: its worker goes on
        found.update((task, None) for task in starting if task is not None)
        found.update(self.tasks)
        return [task for task in found if not task.done()]

    # Workers

    def new_worker(self, processor: Processor | None) -> Worker:
        """A worker that has yet to be started."""
        worker = Worker(self, next(self._numbers), processor)
        self.workers.append(worker)
        return worker

    def ring_spare(self, worker: Worker) -> None:
        """Wake a spare so that it looks whether it is still needed."""
        try:
            self.spares.remove(worker)
        except ValueError:
            return
        worker.bell.release()
