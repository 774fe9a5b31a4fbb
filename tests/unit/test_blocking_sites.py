"""Places that are known: they give their processor away first, those that compute wait for each other where there is a GIL."""

from __future__ import annotations

import asyncio
import math
import os
import queue
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from unit_helpers import GIL_BUILD, LONG, eventually, eventually_in_thread, in_plait, other_strand

import plait
from plait._rt.sched import compute_gate
from plait._rt.sched import worker as worker_module
from plait._rt.sched.blocking_sites import COMPUTED, KNOWN, BlockingSites, start_of
from plait._rt.sched.blocking_sites import LONG as LONG_STEP
from plait._rt.sched.compute_gate import ComputeGate
from plait._rt.sched.worker import Worker
from plait._rt.strand.carrier import Carrier
from plait._rt.watch.gaps import Gaps
from plait._rt.watch.monitor import Monitor
from plait._rt.watch.turn_watch import Watch

EPOLL_WAIT = 232

needs_gil = pytest.mark.skipif(not GIL_BUILD, reason="where there is no GIL they compute side by side")


def pool() -> Any:
    return asyncio.get_running_loop()._pool  # type: ignore[attr-defined]


def teach(function: Any, computes: bool) -> None:
    """As if a task of that function had been caught twice in its first step."""
    for _ in range(int(KNOWN)):
        pool().blocking_sites.caught(function.__code__, start_of(function.__code__), computes)


# What is learned


def test_one_sighting_teaches_nothing_and_two_do() -> None:
    sites, point = BlockingSites(), start_of(teach.__code__)
    sites.caught(teach.__code__, None, False)
    assert teach.__code__ in sites.suspects
    sites.caught(teach.__code__, point, False)
    assert not sites.is_known(point)
    sites.caught(teach.__code__, point, True)
    assert sites.is_known(point)
    assert sites.computes(point)


@pytest.mark.parametrize("computes", [False, True])
def test_a_short_step_is_forgiven(computes: bool) -> None:
    """Of one that computes the time on a core counts: it may have waited for the GIL long enough."""
    sites, point = BlockingSites(), start_of(teach.__code__)
    for _ in range(2):
        sites.caught(teach.__code__, point, computes)
    sites.took(point, LONG_STEP, COMPUTED)
    assert sites.is_known(point)
    for _ in range(2):
        sites.took(point, 1.0 if computes else LONG_STEP / 2, COMPUTED / 2)
    assert not sites.is_known(point)


@pytest.mark.parametrize("computes", [False, True])
def test_a_place_where_most_steps_are_short_is_never_known(computes: bool) -> None:
    """A handler of requests, every third of which is heavy: it was known after each, and the next ones waited behind it."""
    sites, point = BlockingSites(), start_of(teach.__code__)
    for number in range(100):
        if number % 3 == 0:
            sites.caught(teach.__code__, point, computes)
            sites.took(point, 1.0, 1.0)
        elif sites.has_score(point):
            sites.took(point, LONG_STEP / 2, COMPUTED / 2)
        assert not sites.is_known(point)
    for _ in range(3):
        sites.took(point, LONG_STEP / 2, COMPUTED / 2)
    assert not sites.has_score(point)
    assert not sites.computes(point)


@in_plait(workers=1)
async def test_a_task_at_a_known_place_gives_its_processor_away_first() -> None:
    go = threading.Event()

    async def blocks() -> bool:
        return go.wait(LONG)

    teach(blocks, computes=False)
    async with something_that_waits():
        before = plait.stats().handoffs
        tasks = [plait.spawn(blocks()) for _ in range(3)]
        await other_strand(go.set)
        assert all([await task for task in tasks])
        assert plait.stats().handoffs == before + 3
        assert pool().monitor.handoffs.count == 0  # none that the monitor had to make


@in_plait(workers=1)
async def test_what_computes_is_noted_before_its_processor_is_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heir may begin with a step from the same place. (That it computes can be told if it has had a core by then.)"""
    noted: list[bool] = []
    handoff, sites = pool().handoff, pool().blocking_sites
    give = type(handoff).give

    def look_and_give(self: Any, worker: Any) -> bool:
        noted.append(computes.__code__ in sites.suspects)
        return give(self, worker)

    async def computes() -> None:
        end = time.monotonic() + LONG
        while not noted and time.monotonic() < end:
            sum(range(1000))

    monkeypatch.setattr(type(handoff), "give", look_and_give)
    async with something_that_waits():
        for attempt in range(10):
            noted.clear()
            computes.__code__ = computes.__code__.replace(co_name=f"computes_{attempt}")  # another place each time
            await plait.spawn(computes())
            if noted[:1] == [True]:
                return
    raise AssertionError("given away first")


@asynccontextmanager
async def something_that_waits() -> AsyncIterator[None]:
    """Without it nobody gives a processor away."""
    waiting = plait.spawn(plait.sleep(LONG))
    await eventually(lambda: plait.stats().timers)
    yield
    waiting.cancel()


class Robbed:
    """A worker whose processor the monitor takes as soon as somebody has looked at it."""

    def __init__(self, task: Any) -> None:
        self.pool, self.starting, self.gave = pool(), task, 0
        self.point, self.timed_since = None, (0.0, 0.0)
        self.procs = [self.pool.processors[0]]

    @property
    def proc(self) -> Any:
        return self.procs.pop() if self.procs else None


@in_plait(workers=1)
async def test_one_whose_processor_is_taken_in_that_moment_makes_its_step_all_the_same() -> None:
    """It raised inside of plait, and the task was never heard of again."""

    async def blocks() -> None:
        pass

    teach(blocks, computes=False)
    task = pool().new_task(blocks(), None, None, sys._getframe())  # not scheduled yet: its steps are short, and forgiven
    worker: Any = Robbed(task)
    Worker._expect_step(worker, task)
    assert worker.gave == 0
    assert worker.timed_since > (0.0, 0.0)
    pool().schedule(task)
    await task


# The compute gate


class Count:
    """How many are inside, and were at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.now -= 1


def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))


@needs_gil
@in_plait(workers=1)
async def test_those_that_are_known_to_compute_do_so_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_gate, "PATIENCE", LONG)
    inside = Count()

    async def computes() -> None:
        with inside:
            compute(0.03)

    teach(computes, computes=True)
    async with something_that_waits():
        for task in [plait.spawn(computes()) for _ in range(5)]:
            await task
    assert inside.most == 1


@needs_gil
@in_plait(workers=1)
async def test_one_that_waits_for_another_that_computes_starts_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_gate, "PATIENCE", 0.05)
    started: list[int] = []

    async def computes(number: int) -> None:
        started.append(number)
        while len(started) < 3:  # each waits for all: without patience they would do so for ever
            sum(range(1000))

    teach(computes, computes=True)
    async with something_that_waits():
        for task in [plait.spawn(computes(number)) for number in range(3)]:
            await task


@needs_gil
@in_plait(workers=1)
async def test_who_has_computed_leaves() -> None:
    async def computes() -> None:
        compute(0.01)
        raise KeyError

    teach(computes, computes=True)
    async with something_that_waits():
        for _ in range(3):
            with pytest.raises(KeyError):
                await plait.spawn(computes())
    await eventually(lambda: not pool().compute_gate._computing)


@needs_gil
@in_plait(workers=1)
async def test_one_that_blocks_after_all_lets_the_next_one_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_gate, "PATIENCE", 1000.0)
    reader, writer = os.pipe()
    inside: list[int] = []

    async def computes_and_blocks() -> None:
        compute(0.01)
        inside.append(1)
        if len(inside) == 3:
            os.write(writer, b"all")
        os.read(reader, 1)

    teach(computes_and_blocks, computes=True)
    async with something_that_waits():
        for task in [plait.spawn(computes_and_blocks()) for _ in range(3)]:
            await task
    os.close(reader)
    os.close(writer)


def test_patience_is_in_proportion_to_the_step() -> None:
    sites, point = BlockingSites(), start_of(teach.__code__)
    sites.caught(teach.__code__, point, True)
    assert sites.last(point) == math.inf
    sites.took(point, 1.0, 0.02)
    assert sites.last(point) == 0.02
    line = ComputeGate()
    line.caught(SimpleNamespace(running="a strand", proc=None))  # type: ignore[arg-type]
    late = SimpleNamespace(running="another", batch=0)
    began = time.monotonic()
    line.wait(late, 0.001)  # type: ignore[arg-type]
    assert time.monotonic() - began < compute_gate.PATIENCE
    assert late.running == "another"
    assert line.includes(late)  # type: ignore[arg-type]


@pytest.mark.parametrize("running, proc", [(None, None), ("a strand", "a processor")])
def test_one_that_was_caught_late_is_not_waited_for(running: Any, proc: Any) -> None:
    """Its step ended just before, so nobody else would take it out (G2)."""
    line, worker = ComputeGate(), SimpleNamespace(running=running, proc=proc)
    line.caught(worker)  # type: ignore[arg-type]
    assert not line.includes(worker)  # type: ignore[arg-type]
    line.leave(worker)  # type: ignore[arg-type]
    assert not line._computing


def test_all_that_were_caught_are_waited_for() -> None:
    line = ComputeGate()
    caught: list[Any] = [SimpleNamespace(running="a strand", proc=None) for _ in range(2)]
    known: list[Any] = [SimpleNamespace(running="a strand", batch=0) for _ in range(2)]
    went: queue.Queue[Any] = queue.Queue()

    def goes(worker: Any) -> None:
        line.wait(worker, 1000.0)
        went.put(worker)

    for worker in caught:
        line.caught(worker)
    threads = [threading.Thread(target=goes, args=(worker,)) for worker in known]
    for thread in threads:
        thread.start()
    eventually_in_thread(lambda: not any(worker.running for worker in known))
    line.leave(caught[0])
    assert line._computing == [caught[1]]
    line.leave(caught[1])
    first = went.get()
    assert line._computing == [first]
    line.leave(first)
    second = went.get()
    assert line._computing == [second]
    line.leave(second)
    assert not line._computing
    for thread in threads:
        thread.join()


# The monitor's glance


class Clock:
    """A thread's probe, of which a glance asks the clock."""

    def __init__(self, noted: int, now: int) -> None:
        self.noted, self.now = noted, now

    def cpu_ns(self) -> int:
        return self.now


@pytest.mark.parametrize("seen", [True, False])
def test_a_glance_trusts_no_clock_that_was_noted_before_the_last_look(seen: bool) -> None:
    """A worker that had nothing to do at the last look was not looked at, and what it used since says nothing of this turn: it
    was taken for busy, and one that blocked right after a calm while was found 10 ms later."""
    carrier: Any = Carrier()
    carrier.probe = Clock(0, 10**9)
    turn = "strand", 7, 0
    watched = SimpleNamespace(turns=lambda: iter([(carrier, turn)]), options=SimpleNamespace(stall_after=0.1))
    monitor = Monitor(watched, None)  # type: ignore[arg-type]
    now = time.monotonic()
    monitor._calm, monitor._last.began, monitor._last.ended = 1000, now - 0.004, now
    monitor._last.seen = {carrier: ("strand", 6)} if seen else {}
    assert monitor._glance() is seen


class Thread(Clock):
    """A thread's probe, of which the judge of a gap asks the kernel, too."""

    begun, noted_schedule = 0.0, (0, 0)

    def __init__(self, wakes: int, asks: Any = lambda: None) -> None:
        super().__init__(0, 1_000_000)
        self.wakes, self.asks = wakes, asks

    def schedule(self) -> tuple[int, int]:
        self.asks()
        return 0, self.wakes

    def system_call(self) -> int:
        return EPOLL_WAIT


@needs_gil
@pytest.mark.parametrize("over", [True, False])
@pytest.mark.parametrize("wakes", [11, 60])
def test_who_slept_with_the_gil_may_be_elsewhere_when_the_monitor_asks(over: bool, wakes: int) -> None:
    """The monitor lets go of the GIL to ask the kernel. The step that kept it ended then, and its thread slept in epoll_wait:
    nobody was blamed, and on a machine where a file takes long to read hardly one was reported."""
    under_way = [True]
    turn: Any = SimpleNamespace(_post=lambda watch: watch._run()), 7, 0

    class Blocks(Carrier):
        def turn(self) -> Any:
            return turn if under_way else None

    carrier: Any = Blocks()
    carrier.probe = Thread(wakes)
    gaps, now = Gaps(SimpleNamespace()), time.monotonic()  # type: ignore[arg-type]
    gaps._process_ns = time.process_time_ns()
    gaps._probe = Thread(80, under_way.clear if over else lambda: None)  # type: ignore[assignment]
    watch = Watch(carrier, turn, now, 0.1)
    culprit = gaps.judge(0.4, now, [watch])
    assert culprit is (watch if over and wakes == 11 else None)
    assert watch.was_of(turn)
    assert watch.is_of(turn) is (culprit is None)


@needs_gil
@pytest.mark.parametrize("late", [0.0, 0.005])
@pytest.mark.parametrize("seen, suspicious", [(None, True), (7, True), (6, False)])
def test_a_tick_that_is_late_is_blamed_on_who_computes(late: float, seen: int | None, suspicious: bool) -> None:
    """Nobody ran at the last look, or a worker is in the same batch still: not one that has gone through others since."""
    worker: Any = Worker.__new__(Worker)
    watched = SimpleNamespace(turns=lambda: iter([(worker, ("strand", 7, 0))]))
    monitor = Monitor(watched, None)  # type: ignore[arg-type]
    monitor._last.seen = {} if seen is None else {worker: ("strand", seen)}
    hurry = monitor._was_kept(late)
    assert hurry is (late > 0 and suspicious)
    assert monitor._last.kept_gil == pytest.approx(late if seen is None else 0.0)


@pytest.mark.parametrize(
    "lasts, computed, is_suspect, is_long",
    [(5, 3, False, False), (5, 3, True, True), (5, 2, True, False), (10, 2, True, True), (10, 0, False, True)],
)
def test_a_suspect_has_half_of_the_time_once_it_can_be_learned_from(
    lasts: int, computed: int, is_suspect: bool, is_long: bool
) -> None:
    """(Handed off before, it would leave the next in the queue to begin at the same place, which isn't known yet.)"""
    monitor = Monitor(SimpleNamespace(options=SimpleNamespace(handoff_after=0.010)), None)  # type: ignore[arg-type]
    worker: Any = SimpleNamespace(point=start_of(teach.__code__) if is_suspect else None)
    watch: Any = SimpleNamespace(turn_since=100.0, unseen=0.0, turn_computed=lambda: computed / 1e3)
    assert monitor.handoffs.is_long(worker, watch, 100.0 + lasts / 1e3 + 1e-6) is is_long


def test_the_monitor_looks_again_when_a_step_has_had_its_time() -> None:
    monitor = Monitor(SimpleNamespace(options=SimpleNamespace(handoff_after=0.010)), None)  # type: ignore[arg-type]
    worker: Any = SimpleNamespace(point=None)
    watch: Any = SimpleNamespace(turn_since=100.0, unseen=0.0)
    usual = monitor._tick()
    assert not monitor.handoffs.is_long(worker, watch, 100.0 + 0.005)
    assert monitor._tick() == usual
    assert not monitor.handoffs.is_long(worker, watch, 100.0 + 0.0098)
    assert monitor._tick() == pytest.approx(0.0002)


@pytest.mark.parametrize("first", [True, False])
def test_a_step_is_made_though_its_place_cant_be_told(
    first: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What goes wrong before the step of a suspect loses no task, and no worker."""

    async def body() -> str:
        await plait.sleep(0.001)
        await asyncio.sleep(0.001)
        return "done"

    def fail(*_args: Any) -> bool:
        raise ZeroDivisionError("mine")

    async def main() -> None:
        sites = plait.current_strand()._pool.blocking_sites
        sites.suspect(body.__code__)
        monkeypatch.setattr(worker_module, "start_of" if first else "point_of", fail)
        tasks = [plait.spawn(body()) for _ in range(5)]
        assert await asyncio.gather(*tasks) == ["done"] * 5
        monkeypatch.undo()

    plait.run(main())
    assert "mine" in caplog.text
