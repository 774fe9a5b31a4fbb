"""Worker: an OS thread that runs strands while it holds a processor, and is a spare while it does not (Go's M).

Ownership
    `proc` is set by the monitor (hand-off) and by the pool (start), and read by the worker after every turn: when it is
    not the one it serves, the worker gives back what it holds and becomes a spare.
    `running` and `batch` are written by the worker at each turn, and read by the monitor: two looks that find the same pair
    have perhaps met the same turn (the monitor posts its watch to the strand to be sure).
    `bell` is a lock used as a binary semaphore: whoever took its release out of `parked`, or the worker out of `spares`, or
    started it as an heir, releases it, once.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from functools import partial
from operator import attrgetter
from sys import getrefcount
from types import CoroutineType
from typing import TYPE_CHECKING, Any
from weakref import getweakrefcount

from plait._rt.asyncio_face.asyncgens import hooks
from plait._rt.ground.build import GIL_BUILD
from plait._rt.ground.clock import Clock
from plait._rt.ground.cpython import _get_running_loop, _set_running_loop
from plait._rt.ground.gil_yield import yield_gil
from plait._rt.ground.here import here
from plait._rt.ground.run_queue import BATCH
from plait._rt.ground.threads import Thread
from plait._rt.sched.blocking_sites import Point, point_of, start_of
from plait._rt.sched.processor import BATCH_SECONDS
from plait._rt.sched.reuse import own_refs
from plait._rt.strand.carrier import Carrier
from plait._rt.task.current_task import CURRENT_STAYS, clear_current, current_tasks, forget, set_current
from plait._rt.task.identity import RETURNED, LeftStrand
from plait._rt.task.task import Task, task_of

if TYPE_CHECKING:
    from plait._rt.sched.processor import Processor
    from plait._rt.sched.scheduler import Scheduler
    from plait._rt.strand.carrier import Turn
    from plait._rt.strand.strand import Strand

logger = logging.getLogger("plait")

LOW_PRIORITY = 19  # the nice value of a thread that computes without a processor
AFTER_A_FAULT = 0.010  # seconds before a worker goes on whose round failed: what failed may fail again at once
SPARE_SECONDS = 10.0  # how long a thread without work is kept: starting and ending one is dear


class Worker(Carrier):
    """One thread of the pool."""

    __slots__ = (
        "batch",
        "bell",
        "ended",
        "gave",
        "left",
        "overdue",
        "own_refs",
        "point",
        "pool",
        "proc",
        "retired",
        "running",
        "sent",
        "starting",
        "steps",
        "thread",
        "timed",
        "timed_since",
        "unused",
    )

    pooled = True

    def __init__(self, pool: Scheduler, number: int, proc: Processor | None) -> None:
        super().__init__()  # (its `item` is left as it is on the fast path: `task`)
        self.pool = pool
        self.proc = proc
        self.running: Strand | None = None
        self.starting: Task[Any] | None = None  # a task in its first step: the pool lists it when it outlives that
        self.point: Point | None = None  # where the task that it runs was resumed, if that was noted (blocking_sites.py)
        self.timed_since = 0.0, 0.0  # when the step from a point with a score began, by the clock and by the thread's
        self.timed = False  # are there timers or descriptors? Then it looks at the clock between turns
        self.sent = False  # the strand that it runs sent something, perhaps to itself
        self.overdue: list[Any] = []  # timers that were due when the strand that it runs set them, for the end of the turn
        self.gave = 0  # how often it gave its processor away itself
        self.retired = False  # not to be a spare any more
        self.batch = 0
        self.steps = 0
        self.own_refs = 0
        self.unused: Strand | None = None  # a strand for the next task that starts
        self.left = LeftStrand(pool.main)
        self.bell = threading.Lock()
        if proc is None:
            self.bell.acquire()  # else it has rung: there is a processor
        self.ended = threading.Event()
        self.thread = Thread(f"plait-worker-{number}", self._main, waited_for=False)  # the monitor starts one a blocked task

    @property
    def name(self) -> str:
        return self.thread.name

    def turn(self) -> Turn | None:
        strand = self.running
        return None if strand is None else (strand, self.batch, id(self.item))

    def task(self) -> Task[Any] | None:
        strand, starting = self.running, self.starting
        if starting is not None:
            return starting
        return strand._next_task if strand is not None and strand._next is not None else task_of(self.item)

    def start(self) -> None:
        self.thread.start()

    def _main(self) -> None:
        here.worker = self
        self.probe.begin()
        self.own_refs = own_refs(partial(Worker, self.pool, 0, None))
        sys.set_asyncgen_hooks(*hooks)
        self.bell.acquire()  # an heir is no spare before it was rung for (H5)
        try:
            while not self.pool.stopping and (self.proc is not None or self._wait_for_processor()):
                self._serve()
        finally:
            if self.unused is not None:
                forget(self.unused)
            self.probe.end()
            self.pool.worker_ended(self)
            self.ended.set()

    def _wait_for_processor(self) -> bool:
        """Be a spare; False when it is time to go."""
        pool = self.pool
        if self.retired:
            return False
        pool.spares.append(self)
        if pool.stopping or not self.bell.acquire(timeout=SPARE_SECONDS):
            try:
                pool.spares.remove(self)
                return False
            except ValueError:
                self.bell.acquire()  # somebody took us meanwhile, and rings
        return True

    def _serve(self) -> None:
        """Run strands until the processor is taken away or the pool stops."""
        proc, pool = self.proc, self.pool
        if proc is None:
            return
        full = True
        while self.proc is proc and not pool.stopping:
            self.batch += 1
            if self.retired and pool.handoff.may_give(self) and pool.handoff.give(self):
                break  # it was told so late, when it had its next processor
            try:
                full = self._round(proc, full)
            except (KeyboardInterrupt, SystemExit) as stop:
                self._forget_step()
                pool.stop_main(stop)
            except Exception:
                self._forget_step()
                if pool.closed:
                    logger.warning("a step left behind at the end of the run could not end as usual", exc_info=True)
                else:
                    logger.critical("a turn failed inside plait; this is a bug of plait's: please report it", exc_info=True)
                Clock.sleep(AFTER_A_FAULT)
        self.step_out()
        if self.overdue:
            self._post_overdue(None)
        pool.compute_gate.leave(self)
        # H3: what we queued while the processor was taken away, the wake-up we took, and our seat at the poller are others' now
        pool.parking.notify()

    def _round(self, proc: Processor, full: bool) -> bool:
        """Look what there is, and run a batch of it, or park; full is what the last batch returned. True after a full batch."""
        pool = self.pool
        if self.unused is not None and self.unused._ready:  # a finaliser of what its task returned has posted there
            self._run_unused()
        if self.overdue:
            self._post_overdue(None)
        self.timed = proc.look(full)
        if proc.queue or proc.steal():
            if full:
                yield_gil(pool)
            return self._run_batch(proc)
        if self._linger():
            return full
        self.step_out()
        if self.overdue or (self.unused is not None and self.unused._ready):  # a finaliser's, since they were looked at
            return False
        pool.parking.park(self)
        pool.monitor.wake()
        return False

    def _linger(self) -> bool:
        """Look a little longer before parking: a park and a wake-up cost both sides a system call (Go's spinning Ms).

        Pointless under a GIL, which the one who has work for us may be waiting for.
        """
        injector = self.pool.injector
        return any(injector for _ in _LOOKS)

    def _run_batch(self, proc: Processor) -> bool:
        """Run a batch of turns; False if the queue ran empty or the processor is gone.

        The hot path of the runtime: a strand of one task that only yields stays within this function, which looks at no
        more than `_next` and `_ready` of it (strand.py, S3), and not whether the processor was taken away: a hand-off queues
        LOOK_AGAIN in the strand that it met, and so does a cancel.
        """
        popleft, append, set_loop = proc.queue.popleft, proc.queue.append, _set_running_loop
        current_stays, now, turn = CURRENT_STAYS, Clock.monotonic, 0
        timed = self.timed
        until = now() + BATCH_SECONDS if timed else 0.0
        for turn in _TURNS:
            try:
                strand: Any = popleft()
            except IndexError:
                self.steps += turn - 1
                return False
            step = strand._next
            if step is not None:
                self.running = strand
                set_loop(strand)
                if not current_stays:
                    set_current(strand, strand._next_task)
                try:  # a copy of Task._run, for a task that stays current and has nothing to be raised in it (test_steps.py)
                    yielded = step()
                except BaseException as raised:
                    task, strand._next, strand._next_task, step = strand._next_task, None, None, None
                    self._after(strand, task._stopped, raised)
                    task = None  # a traceback may know this frame: no cycle
                else:
                    if yielded is None:
                        if not strand._ready:
                            append(strand)
                            if timed and now() >= until:
                                break
                            continue
                        strand._next = None
                        self._after(strand, strand._ready_again, strand._next_task)
                    else:
                        strand._next = None
                        self._after(strand, strand._next_task._suspend, yielded)
            elif type(strand) is Task:  # its `_take_turn`, without the price of a call
                self.start_task(strand)
            else:
                strand._take_turn(self)
            if self.proc is not proc:
                return False
            if timed:
                if self.sent or now() >= until:
                    break
            elif self.timed:
                timed, until = True, now() + BATCH_SECONDS
        self.steps += turn
        self.sent = False
        return True

    def start_task(self, task: Task[Any]) -> None:
        """Make the first step of a spawned task, in a strand that it gets now.

        A task that is done in one step, whose strand nobody has come to know, leaves the strand for the next one to start
        here: much of what a short task costs is making its strand.
        """
        strand, self.unused = self.unused or self.pool.bare_strand(), None
        self.running, self.starting = strand, task
        _set_running_loop(strand)
        if CURRENT_STAYS:
            current_tasks[strand] = strand._current = task
        else:
            set_current(strand, task)
        task._strand = strand
        if self.pool.blocking_sites.suspects:
            self.before_step(task)
        if task._cancel is not None:
            self._start_cancelled(strand, task)
            return
        try:  # a copy of Task._run, without what a new task hasn't (test_steps.py); and one that returns may leave its strand
            if task._coro.__class__ is CoroutineType:
                yielded = task._context.run(_send, task._coro, None)
            else:
                yielded = task._context.run(task._coro.send, None)
        except StopIteration as stop:
            if task._cancel is not None:
                self._after(strand, task._stopped, stop)
            else:
                if CURRENT_STAYS:
                    current_tasks[strand] = strand._current = None  # (M2)
                task._settle(RETURNED, stop.value)
                task._strand = self.left  # type: ignore[assignment]
                if getrefcount(strand) == self.own_refs and not (strand._ready or strand.__dict__ or getweakrefcount(strand)):
                    self.unused = strand
                else:
                    forget(strand)
                    self.end_turn(strand)
        except BaseException as raised:
            self._after(strand, task._stopped, raised)
        else:
            self.pool.tasks[task] = None
            if yielded is not None:
                self._after(strand, task._suspend, yielded)
            elif (
                strand._ready
                or self.overdue
                or self.pool.blocking_sites.suspects
                or task._coro.__class__ is not CoroutineType
                or (proc := self.proc) is None
            ):
                self._after(strand, strand._ready_again, task)
            else:  # a copy of Strand._ready_again and of `end_turn`, for the usual case
                strand._next_task = task  # first (S3)
                strand._next = partial(task._context.run, _send, task._coro, None)
                proc.queue.append(strand)
        self.starting = task = None  # type: ignore[assignment]  # a traceback may know this frame: no cycle
        if self.point is not None:
            self.after_step()

    def _start_cancelled(self, strand: Strand, task: Task[Any]) -> None:
        """It was cancelled before its first step (T3)."""
        self.pool.tasks[task] = None
        self._after(strand, task._run_first)
        self.starting = None
        if self.point is not None:
            self.after_step()

    def _run_unused(self) -> None:
        """(Not in `_round`, whose variable would be a reference to a strand that is to be found without one.)"""
        strand, self.unused = self.unused, None
        assert strand is not None
        forget(strand)
        self.end_turn(strand)

    # Known points (blocking_sites.py)

    def before_step(self, task: Task[Any]) -> None:
        """If task is a suspect, note where it is resumed; at a known point give the processor away first.

        Whatever goes wrong here, the step is made.
        """
        try:
            self._expect_step(task)
        except Exception:
            self.point, self.timed_since = None, (0.0, 0.0)
            logger.exception("the place where %r is resumed can't be told; it is resumed all the same", task)

    def _expect_step(self, task: Task[Any]) -> None:
        coro = task._coro
        pool = self.pool
        if coro.__class__ is not CoroutineType or coro.cr_code not in pool.blocking_sites.suspects:
            return
        self.point = point = start_of(coro.cr_code) if task is self.starting else point_of(coro)
        if not pool.blocking_sites.has_score(point):
            return
        proc = self.proc if pool.blocking_sites.is_known(point) else None  # read once: the monitor may take it at any moment
        if proc is not None and pool.monitor.handoffs.something_waits(proc) and pool.handoff.give(self):
            self.gave += 1
            if pool.blocking_sites.computes(point):
                if GIL_BUILD():
                    pool.monitor.interval.crowded()
                    pool.compute_gate.wait(self, pool.blocking_sites.last(point))
                else:
                    self.yield_cores()
        self.timed_since = Clock.monotonic(), time.thread_time()

    def yield_cores(self) -> None:
        """The step computes without a processor: let threads that have one go first, on a build where it doesn't keep them
        waiting for the GIL. Any thread calls it. A nice value that was raised can't be lowered again without privilege, so the
        thread ends with its step."""
        self.retired = True
        self.probe.lower_priority(LOW_PRIORITY)

    def after_step(self) -> None:
        """The step of a suspect is over."""
        point, self.point = self.point, None
        since, clock = self.timed_since
        if since and point is not None:
            self.pool.blocking_sites.took(point, Clock.monotonic() - since, time.thread_time() - clock)
            self.timed_since = 0.0, 0.0

    def _forget_step(self) -> None:
        self.starting, self.point, self.timed_since = None, None, (0.0, 0.0)

    def _after(self, strand: Strand, action: Any, *args: Any) -> None:
        """Do the rest of a turn and end it, whatever happens."""
        try:
            action(*args)
        finally:
            self.end_turn(strand)

    def end_turn(self, strand: Strand) -> None:
        if self.overdue:
            self._post_overdue(strand)
        if strand._next is None:
            self.running = None  # a finaliser that runs from now on hasn't the turn, though its running loop is the strand
            if self.pool.closed:
                clear_current(strand)  # nobody will, of a step that was left behind
        if not strand._end_turn():
            self.sent = False  # it waits: what it sent finds others
        else:
            proc = self.proc
            if proc is not None:
                proc.queue.append(strand)
            else:  # handed off meanwhile
                self.pool.inject(strand)

    def _post_overdue(self, strand: Strand | None) -> None:
        """They come behind what the turn of strand made ready, the earliest first, as in an iteration of asyncio's. What a
        finaliser has set between two turns is perhaps another strand's."""
        self.pool.fire_timers()  # those of the same time that were set before are older
        overdue, self.overdue = self.overdue, []
        overdue.sort(key=attrgetter("_when"))
        for timer in overdue:
            if timer._loop is strand:
                strand._ready.append(timer)  # type: ignore[union-attr]
            else:
                timer._loop._post(timer)

    def step_out(self) -> None:
        """It runs no strand."""
        strand = self.running
        if CURRENT_STAYS and self.pool.closed and strand is not None:
            clear_current(strand)  # nobody will, of a step that was left behind
        self.running = self.item = None
        if not CURRENT_STAYS:
            loop: Any = _get_running_loop()
            if loop is not None:
                clear_current(loop)
        _set_running_loop(None)


_TURNS = range(1, BATCH + 1)
_LOOKS = range(0 if GIL_BUILD() else 300)
_send: Any = CoroutineType.send
