"""Pool: one runtime: a scheduler, and the threads, poller, monitor and executor that it has from its first use to its end.

A pool belongs to a main strand. It is a handful of empty containers until the first `spawn` or `Strand` starts it. Its monitor
alone can be started before that, to watch the main strand.

Ownership: `_starting` guards `start`, thread creation and `close`; nothing of the user's runs under it. The rest: scheduler.py.
"""

from __future__ import annotations

import threading
import traceback
from contextvars import Context, copy_context
from types import CoroutineType, FrameType
from typing import TYPE_CHECKING, Any

from plait._rt import process
from plait._rt.asyncio_face.inherited import MadeByFactory
from plait._rt.asyncio_face.loop import logger
from plait._rt.ground.clock import Clock
from plait._rt.ground.here import here
from plait._rt.ground.run_queue import IDLE
from plait._rt.ground.spawn_site import site_of
from plait._rt.ground.threads import MORE_THREADS, no_thread
from plait._rt.io.blocking_pool import BlockingPool, Lane
from plait._rt.io.poller import SharedPoller
from plait._rt.options import Options
from plait._rt.sched.processor import Processor
from plait._rt.sched.scheduler import Scheduler
from plait._rt.sched.worker import Worker
from plait._rt.strand import belonging
from plait._rt.strand.strand import Strand
from plait._rt.task.checks import check_coroutine
from plait._rt.task.task import Task
from plait._rt.watch.monitor import Monitor
from plait.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plait._rt.strand.carrier import Carrier, Turn
    from plait._rt.strand.pinned import PinnedStrand, Seat
    from plait._rt.strand.thread_strand import ThreadStrand

JOIN_SECONDS = 0.5, 2.0  # how long close() waits for the threads of the pool, all together: the run's grace, within that


class Pool(Scheduler):
    """What the strands of one `plait.run` share."""

    def __init__(self, main: ThreadStrand, options: Options, report: Any, ps_server: Any = None) -> None:
        super().__init__(main, options)
        self.ps_server = ps_server if options.answers else None  # answers `plait ps`; the process's, for all of its pools
        self._leaving: list[threading.Thread] = []  # of workers that have ended, while they still are
        self.seats: list[Seat] = []  # the threads of pinned strands
        self.monitor = Monitor(self, report)
        self.started = self.watched = self.orphaned = False
        self._ended_steps = self._ended_gave = 0
        self._stopped_by: BaseException | None = None
        self._starting = threading.RLock()
        self._poller: SharedPoller | None = None
        self._blocking_pool: BlockingPool | None = None

    # Made when needed

    @property
    def poller(self) -> SharedPoller:
        """The strands' poller."""
        if self._poller is None:
            self.start()
        assert self._poller is not None
        return self._poller

    @property
    def blocking_pool(self) -> BlockingPool:
        """The threads for blocking calls."""
        if self._blocking_pool is None:
            with self._starting:
                self.check_open()
                if self._blocking_pool is None:
                    process.note(self)
                    self._blocking_pool = BlockingPool()
        return self._blocking_pool

    def start(self) -> None:
        """Start processors, workers and monitor; once."""
        with self._starting:
            self.check_open()
            if self.started:
                return
            belonging.watch()
            self._poller = SharedPoller(self.options.selector)
            self.processors = [Processor(self, number) for number in range(self.options.workers)]
            for processor in self.processors:
                processor.holder.append(self.new_worker(processor))
            self.started = True
            process.note(self)
            self._start_workers()
            self.watch()
            self.monitor.begin_now()
            self._open_server()

    def _start_workers(self) -> None:
        """As many as the system gives threads for; RuntimeError if that is none, and the next spawn tries again."""
        asked, refused = len(self.workers), None
        for worker in list(self.workers):
            try:
                worker.start()
            except RuntimeError as error:
                refused = error
                self.workers.remove(worker)
                self.processors = [each for each in self.processors if each is not worker.proc]  # anew: others go through it
        if not self.processors:
            assert self._poller is not None
            self._poller.close()
            self._poller, self.started = None, False
            raise RuntimeError(no_thread("plait's workers", refused)) from refused
        if len(self.processors) < asked:
            logger.warning("the system gives threads for %d of %d workers: %s", len(self.processors), asked, MORE_THREADS)

    def watch(self) -> None:
        """Start the monitor, once, if there is to be one."""
        with self._starting:
            self.check_open()
            if self.watched or not self.options.monitored:
                return
            process.note(self)
            try:
                self.monitor.start()
            except RuntimeError as error:
                logger.warning("no thread for plait's monitor (%s), so nothing is handed off: %s", error, MORE_THREADS)
                return
            self.watched = True
            self._open_server()

    def unwatch(self) -> None:
        """The interpreter ends, and nobody has closed the loop: no thread of ours keeps it from saying so."""
        if self.ps_server is not None:
            self.ps_server.close(self)
        self.monitor.stop()
        self.watched = False

    def forget_monitor(self) -> None:
        """In the child of a fork: its thread stayed with the parent, and may have held locks. The next run starts another."""
        self.watched = False
        self.monitor = Monitor(self, self.monitor.report.anew())

    def _open_server(self) -> None:
        if self.ps_server is not None:
            self.ps_server.open(self)

    def check_open(self) -> None:
        """Raise unless work may be given to this pool."""
        if self.orphaned:
            raise RuntimeError(
                "this process was forked from one that runs plait, and its threads stayed there: "
                "start anew with plait.run(), or fork before it runs"
            )
        if self.closed:
            raise RuntimeError("Event loop is closed")

    def worker_ended(self, worker: Worker) -> None:
        """On its thread, last."""
        with self._starting:
            self._ended_steps += worker.steps
            self._ended_gave += worker.gave
            self._leaving = [*(thread for thread in self._leaving if thread.is_alive()), worker.thread]
            self.workers.remove(worker)

    def seat_left(self, seat: Seat) -> None:
        """The same for a pinned strand's."""
        with self._starting:
            self._leaving = [*(thread for thread in self._leaving if thread.is_alive()), seat.thread]
            self.seats.remove(seat)

    # Strands and tasks

    def new_strand(self, name: str | None, pinned: bool) -> Strand:
        """An explicit strand, idle."""
        if not self.started or self.closed:
            self.start()  # so that no post, which must not fail, has to
        if pinned:
            from plait._rt.strand.pinned import PinnedStrand

            return PinnedStrand.start(self, name)
        strand = self.bare_strand()
        strand._ready.append(IDLE)
        if name is not None:
            strand.__dict__["_name"] = name
        return strand

    def new_task(self, coro: Any, name: str | None, context: Context | None, frame: FrameType) -> Task[Any]:
        """A task to be scheduled (the worker that takes it gives it a strand of its own); frame is where it is spawned."""
        if coro.__class__ is not CoroutineType:
            check_coroutine(coro)
        if not self.started or self.closed:
            self.start()
        site = site_of(frame)
        label = site if name is None else (str(name), site)
        if self.main._task_factory is not None:
            coro = MadeByFactory(coro, name)
        task: Task[Any] = Task(coro, None, label, copy_context() if context is None else context.copy())
        if self.main._debug:
            task._source_traceback = traceback.extract_stack(frame)
        return task

    @property
    def pinned(self) -> list[PinnedStrand]:
        """The strands with a thread of their own, but for the main one."""
        found = [seat.reference() for seat in list(self.seats)]
        return [strand for strand in found if strand is not None]

    def carriers(self) -> list[Carrier]:
        """The threads that run turns."""
        return [*self.workers, self.main.carrier, *self.seats]

    def turns(self) -> Iterator[tuple[Carrier, Turn]]:
        """What is being run, by whom. For the monitor, and shutdown."""
        for carrier in self.carriers():
            turn = carrier.turn()
            if turn is not None:
                yield carrier, turn

    # Scheduling

    def lanes(self) -> tuple[Lane, ...]:
        """The executor's, if there are any yet."""
        return () if self._blocking_pool is None else (self._blocking_pool, self._blocking_pool.lookups)

    def resting(self) -> int:
        """How many of our threads wait for something other than the GIL."""
        count = len(self.parking.parked) + len(self.spares) + int(self.monitor.started)
        count += sum(strand._parked for strand in (self.main, *self.pinned))
        count += int(self.ps_server is not None and self.ps_server.is_open())
        return count if self._blocking_pool is None else count + self._blocking_pool.idle()

    # The end

    def stop_main(self, stop: BaseException) -> bool:
        """KeyboardInterrupt or SystemExit was raised in a strand: raise it out of run(), as asyncio does; once, though who
        awaits the task that raised it raises it too. False if that was done already."""
        if stop is self._stopped_by:
            return False
        self._stopped_by = stop
        self.main.raise_soon(stop)
        return True

    def stats(self) -> Stats:
        """A snapshot."""
        workers = list(self.workers)
        holding = sum(worker.proc is not None for worker in workers)
        spares = len(self.spares)
        monitor = self.monitor
        return Stats(
            workers=holding,
            spares=spares,
            handed_off=max(0, len(workers) - holding - spares),
            max_threads=self.options.max_threads,
            at_cap=self.handoff.at_cap,
            queued=tuple(len(processor.queue) for processor in self.processors),
            injected=len(self.injector),
            tasks=len(self.all_tasks()),
            steps=self._ended_steps + sum(worker.steps for worker in workers),
            steals=sum(processor.steals for processor in self.processors),
            handoffs=monitor.handoffs.count + self._ended_gave + sum(worker.gave for worker in workers),
            stalls=monitor.stalls.count,
            polls=self.polls,
            timers=len(self.timers),
        )

    def close(self) -> list[Carrier]:
        """Stop and join all threads, close all descriptors; returns the threads that are stuck in a step.

        They were not waited for beyond JOIN_SECONDS. They end with their step; they hold no descriptor of ours.
        """
        if here.worker is not None and here.worker.pool is self:
            raise RuntimeError("a main strand can't be closed by what runs in its pool: return from main() instead")
        with self._starting:
            if self.closed:
                return []
            self.stopping = self.closed = True
        self._stopped_by = None
        if self.ps_server is not None:
            self.ps_server.close(self)
        self.monitor.stop()
        least, most = JOIN_SECONDS
        until = Clock.monotonic() + min(max(least, self.options.shutdown_grace), most)
        pinned, seats = self.pinned, list(self.seats)
        for strand in pinned:
            strand.stop_thread()
        stuck: list[Carrier] = []
        for worker in list(self.workers):
            self._dismiss(worker, until)
            if not worker.ended.is_set():
                stuck.append(worker)
        stuck += [strand.carrier for strand in pinned if not strand.has_ended(until)]
        for seat in seats:
            if seat.reference() is None:  # its strand was dropped: it is about to find out
                seat.thread.join(max(0.0, until - Clock.monotonic()))
        for thread in self._leaving:  # those too that went before we looked
            thread.join()
        self.monitor.interval.put_back()  # who computed until now may have lowered it again
        if self._blocking_pool is not None:
            self._blocking_pool.shutdown(wait=False)
        if self._poller is not None:
            self._poller.close()
        return stuck

    def _dismiss(self, worker: Worker, until: float) -> None:
        """Have worker end, and wait for it until then."""
        while True:
            self.parking.notify_all()
            for spare in list(self.spares):
                self.ring_spare(spare)
            if worker.ended.wait(0.005) or Clock.monotonic() >= until:
                return
