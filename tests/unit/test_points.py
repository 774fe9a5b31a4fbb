"""Places that are known: they give their processor away first, those that compute wait for each other where there is a GIL."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from unit_helpers import GIL_BUILD, LONG, eventually, in_plait, other_strand

import plait
from plait._rt import hogs
from plait._rt.hogs import Hogs
from plait._rt.monitor import Monitor
from plait._rt.points import COMPUTED, KNOWN, Points, start_of
from plait._rt.points import LONG as LONG_STEP
from plait._rt.worker import Worker

needs_gil = pytest.mark.skipif(not GIL_BUILD, reason="where there is no GIL they compute side by side")


def pool() -> Any:
    return asyncio.get_running_loop()._pool  # type: ignore[attr-defined]


def teach(function: Any, computes: bool) -> None:
    """As if a task of that function had been caught twice in its first step."""
    for _ in range(int(KNOWN)):
        pool().points.caught(function.__code__, start_of(function.__code__), computes)


# What is learned


def test_one_sighting_teaches_nothing_and_two_do() -> None:
    points, point = Points(), start_of(teach.__code__)
    points.caught(teach.__code__, None, False)
    assert teach.__code__ in points.suspects
    points.caught(teach.__code__, point, False)
    assert not points.is_known(point)
    points.caught(teach.__code__, point, True)
    assert points.is_known(point)
    assert points.computes(point)


@pytest.mark.parametrize("computes", [False, True])
def test_a_short_step_is_forgiven(computes: bool) -> None:
    """Of one that computes the time on a core counts: it may have waited for the GIL long enough."""
    points, point = Points(), start_of(teach.__code__)
    for _ in range(2):
        points.caught(teach.__code__, point, computes)
    points.took(point, LONG_STEP, COMPUTED)
    assert points.is_known(point)
    for _ in range(2):
        points.took(point, 1.0 if computes else LONG_STEP / 2, COMPUTED / 2)
    assert not points.is_known(point)


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
        assert pool().monitor.handoffs == 0  # none that the monitor had to make


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
        self.point, self.known_since = None, (0.0, 0.0)
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
    Worker.before_step(worker, task)
    assert worker.gave == 0
    assert worker.known_since > (0.0, 0.0)
    pool().schedule(task)
    await task


# Hogs


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
    monkeypatch.setattr(hogs, "PATIENCE", LONG)
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
    monkeypatch.setattr(hogs, "PATIENCE", 0.05)
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
    await eventually(lambda: not pool().hogs._holder)
    assert not pool().hogs._right.locked()


@needs_gil
@in_plait(workers=1)
async def test_one_that_blocks_after_all_lets_the_next_one_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hogs, "PATIENCE", 1000.0)
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
    points, point = Points(), start_of(teach.__code__)
    points.caught(teach.__code__, point, True)
    assert points.last(point) == math.inf
    points.took(point, 1.0, 0.02)
    assert points.last(point) == 0.02
    line = Hogs()
    line.caught(SimpleNamespace(running="a strand", proc=None))  # type: ignore[arg-type]
    late = SimpleNamespace(running="another", batch=0)
    began = time.monotonic()
    line.wait(late, 0.001)  # type: ignore[arg-type]
    assert time.monotonic() - began < hogs.PATIENCE
    assert late.running == "another"
    assert not line.has_right(late)  # type: ignore[arg-type]


@pytest.mark.parametrize("running, proc", [(None, None), ("a strand", "a processor")])
def test_one_that_was_caught_late_does_not_keep_the_right(running: Any, proc: Any) -> None:
    """Its step ended just before, so nobody else would give the right back (G2)."""
    line, worker = Hogs(), SimpleNamespace(running=running, proc=proc)
    line.caught(worker)  # type: ignore[arg-type]
    assert not line._right.locked()
    line.leave(worker)  # type: ignore[arg-type]
    assert not line._right.locked()


def test_one_that_is_caught_keeps_the_right_until_it_leaves() -> None:
    line, first, second = Hogs(), SimpleNamespace(running="a strand", proc=None), SimpleNamespace(running="another", proc=None)
    line.caught(first)  # type: ignore[arg-type]
    line.caught(second)  # type: ignore[arg-type]
    line.leave(second)  # type: ignore[arg-type]
    assert line._right.locked()
    line.leave(first)  # type: ignore[arg-type]
    assert not line._right.locked()


# The monitor's glance


class Clock:
    """A thread's vitals, of which a glance asks the clock."""

    def __init__(self, noted: int, now: int) -> None:
        self.noted, self.now = noted, now

    def cpu_ns(self) -> int:
        return self.now


@pytest.mark.parametrize("seen", [True, False])
def test_a_glance_trusts_no_clock_that_was_noted_before_the_last_look(seen: bool) -> None:
    """A worker that had nothing to do at the last look was not looked at, and what it used since says nothing of this turn: it
    was taken for busy, and one that blocked right after a calm while was found 10 ms later."""
    holder, turn = object(), ("strand", "running", 7, Clock(0, 10**9))
    watched = SimpleNamespace(turns=lambda: iter([(holder, turn)]), options=SimpleNamespace(stall_after=0.1))
    monitor = Monitor(watched, None)  # type: ignore[arg-type]
    now = time.monotonic()
    monitor._calm, monitor._last_look, monitor._looked_at = 1000, now - 0.004, now
    monitor._seen = {holder: ("running", 6)} if seen else {}
    assert monitor._glance() is seen
