"""A pool whose workers are actors of a schedule: the real classes, with locks, epoll and clock that the schedule knows."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from types import SimpleNamespace
from typing import Any

import pytest

from plait import taskgroup as taskgroup_module
from plait._rt import pool as pool_module
from plait._rt.asyncio_face import loop as loop_module
from plait._rt.ground.run_queue import IDLE
from plait._rt.ground.threads import Thread
from plait._rt.io.poller import SharedPoller
from plait._rt.options import Options
from plait._rt.pool import Pool
from plait._rt.sched import parking
from plait._rt.sched import processor as processor_module
from plait._rt.sched import scheduler as scheduler_module
from plait._rt.sched import worker as worker_module
from plait._rt.sched.processor import Processor
from plait._rt.sched.worker import Worker
from plait._rt.strand import strand as strand_module
from plait._rt.strand.strand import Strand
from plait._rt.strand.thread_strand import ThreadStrand
from plait._rt.task import rarely
from plait._rt.task.current_task import current_tasks, forget
from plait._rt.task.task import Task

from .baton import Actor, Killed, Lock, Schedule, acting

SELECTOR = os.environ.get("PLAIT_SELECTOR", "")  # what the pollers stand on
SCHEDULING = (
    "_rt/strand/strand.py", "_rt/sched/parking.py", "_rt/sched/scheduler.py", "_rt/sched/worker.py",
    "_rt/sched/processor.py", "_rt/ground/run_queue.py",
)  # fmt: skip
TASK = tuple(
    f"_rt/task/{file}.py"
    for file in ("identity", "result", "done_callbacks", "join", "cancel", "task_face", "task", "local_task")
)
"""What a task is made of."""
TASKS = ("_rt/strand/strand.py", *TASK, "_rt/task/waiter.py", "_rt/sched/worker.py", "sync.py", "taskgroup.py")


class Epoll:
    """select.epoll, on which an actor waits."""

    def __init__(self, schedule: Schedule, real: Any) -> None:
        self._schedule, self._real = schedule, real
        self.modify, self.register, self.unregister, self.close = real.modify, real.register, real.unregister, real.close
        self._ready = select.poll()
        self._ready.register(real.fileno(), select.POLLIN)

    def poll(self, timeout: float | None, most: int) -> list[tuple[int, int]]:
        if acting():
            self._schedule.point()
            if timeout != 0 and not self._ready.poll(0):
                self._schedule.wait(lambda: self._ready.poll(0), timeout)
        return self._real.poll(0, most)  # type: ignore[no-any-return]


class Select:
    """A selector's `select`, on which an actor waits."""

    def __init__(self, schedule: Schedule, selector: Any, lock: Lock) -> None:
        self._schedule, self._real = schedule, selector._select
        selector._select, selector._lock = self, lock

    def __call__(self, timeout: float | None) -> Any:
        if acting():
            self._schedule.point()
            if timeout != 0 and not self._real(0):
                self._schedule.wait(lambda: self._real(0), timeout)
        return self._real(0)


class RigPool(Pool):
    """A pool whose locks the schedule knows."""

    rig: Rig

    def new_worker(self, processor: Processor | None) -> Worker:
        worker = super().new_worker(processor)
        worker.bell = Lock(self.rig.schedule, held=processor is None)  # type: ignore[assignment]
        worker.probe.life = Lock(self.rig.schedule)  # type: ignore[assignment]
        self.rig.workers.append(worker)
        return worker


class Rig:
    """One schedule over one pool."""

    def __init__(self, seed: int, files: tuple[str, ...], workers: int = 0, limit: int = 60_000) -> None:
        self.schedule = Schedule(seed, files, limit)
        self.rng = self.schedule.rng
        self.workers: list[Worker] = []  # all that were ever made
        main = ThreadStrand()
        options = Options(workers=max(workers, 1), monitored=False, selector=SELECTOR)
        self.pool = pool = RigPool(main, options, lambda *_: None)
        pool.rig = self
        pool._starting = Lock(self.schedule, reentrant=True)  # type: ignore[assignment]
        self.main = main.set_up(pool)
        self._schedule_polls(self.main._poller)
        pool._poller = self.poller(SharedPoller(SELECTOR))
        pool.processors = [Processor(pool, number) for number in range(workers)]
        pool.started = True

    def start(self) -> None:
        """Start the pool's workers."""
        for processor in self.pool.processors:
            processor.holder.append(worker := self.pool.new_worker(processor))
            worker.start()

    def poller(self, poller: SharedPoller) -> SharedPoller:
        self._schedule_polls(poller)
        return poller

    def _schedule_polls(self, poller: Any) -> None:
        poller._lock = Lock(self.schedule, reentrant=True)
        if SELECTOR in ("", "epoll"):
            poller._epoll = Epoll(self.schedule, poller._epoll)
        else:
            Select(self.schedule, poller._epoll, poller._lock)

    def actor(self, name: str, body: Callable[[], object], daemon: bool = False) -> Actor:
        return self.schedule.actor(name, body, daemon)

    def strand(self) -> Strand:
        return self.pool.new_strand(None, False)

    def pause(self) -> None:
        """Let nothing happen for a while, or for no while: what is going on meanwhile may come to rest."""
        if self.rng.random() < 0.5:
            self.schedule.wait(lambda: False, self.rng.random())

    def spawn(self, coro: Any, strand: Strand | None = None) -> Task[Any]:
        """A task of strand's, or with one of its own."""
        if strand is not None:
            return strand._spawn(coro, None, Context(), sys._getframe())
        task = self.pool.new_task(coro, None, Context(), sys._getframe())
        self.pool.schedule(task, False)
        return task

    def run(self) -> None:
        """Run the schedule, and check that nothing is left behind."""
        __tracebackhide__ = True
        self.schedule.run()

    def check_quiet(self, *strands: Strand) -> None:
        """All work is done: no strand is queued anywhere, and each is idle (S1, S2)."""
        try:
            assert not self.pool.injector and not any(p.queue for p in self.pool.processors), "work is left, nobody awake"
            for strand in strands:
                assert list(strand._ready) == [IDLE], f"{strand!r} is not idle: {strand._ready}, {strand._next}"
        except AssertionError as error:
            error.add_note(self.schedule.story())
            raise

    def expect(self, good: Any, what: str) -> None:
        """assert, with the seed's story."""
        __tracebackhide__ = True
        if not good:
            raise AssertionError(f"{what}\n{self.schedule.story()}")

    def close(self) -> None:
        pool = self.pool
        pool.stopping = pool.closed = True
        if pool._poller is not None:
            pool._poller.close()
        self.main._closed = True  # type: ignore[misc]
        self.main._poller.close()
        self.main._ready.clear()
        for strand in [each for each in list(current_tasks) if isinstance(each, Strand) and each._pool is pool]:
            forget(strand)  # of tasks that wait for ever


@contextmanager
def rig(seed: int, files: tuple[str, ...], workers: int = 0, limit: int = 60_000) -> Iterator[Rig]:
    """A rig, with the modules that it touches patched meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        box: list[Rig] = []
        clock = SimpleNamespace(monotonic=lambda: box[0].schedule.now if box else 1000.0, sleep=lambda seconds: None)
        for module in (parking, loop_module, pool_module, processor_module, scheduler_module, strand_module, worker_module):
            patch.setattr(module, "Clock", clock)
        patch.setattr(Thread, "start", lambda self: box[0].actor(self.name.removeprefix("plait-"), self.run, True))
        made = Rig(seed, files, workers, limit)
        box.append(made)
        made.start()
        patch.setattr(rarely, "lock", Lock(made.schedule, reentrant=True))
        patch.setattr(taskgroup_module, "RLock", lambda: Lock(made.schedule, reentrant=True))
        patch.setattr(worker_module, "_LOOKS", range(1))
        try:
            yield made
        finally:
            made.close()


_inside: dict[Any, str] = {}


class Item:
    """A queue item that notes its run, and sees that it runs at once (time passes only when nobody can run) and alone."""

    def __init__(self, rig: Rig, strand: Any, name: str, log: list[str]) -> None:
        self.rig, self.strand, self.name, self.log = rig, strand, name, log
        self.made = rig.schedule.now

    def _run(self) -> None:
        with alone(self.rig, self.strand, self.name):
            self.log.append(self.name)
        if acting() and self.rig.schedule.now > self.made:
            self.rig.schedule.fail(AssertionError(f"{self.name} lay there while everybody slept"))
            raise Killed


@contextmanager
def alone(rig: Rig, strand: Any, name: str) -> Iterator[None]:
    """What is inside must be alone in its strand (S1, T1)."""
    other = _inside.get(strand)
    if other is not None and acting():
        rig.schedule.fail(AssertionError(f"{name} and {other} run in one strand at a time"))
        raise Killed
    _inside[strand] = name
    try:
        if acting():
            rig.schedule.point()
        yield
    finally:
        _inside.pop(strand, None)
