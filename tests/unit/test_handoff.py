"""Who has a processor, whatever happens to the thread that it was meant for. (Every order of steps: tests/interleave.)"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from unit_helpers import eventually, in_plait, value

import plait
from plait._rt.ground.build import GIL_BUILD
from plait._rt.ground.here import here
from plait._rt.sched.worker import Worker


async def _worker() -> Any:
    return here.worker


@in_plait(workers=1)
async def test_one_that_is_told_late_to_retire_gives_its_processor_away() -> None:
    worker = await plait.spawn(_worker())
    worker.retired = True
    await plait.spawn(value(1))  # it was parked
    await eventually(worker.ended.is_set)
    assert await plait.spawn(_worker()) is not worker
    assert plait.stats().workers == 1


@in_plait(workers=1)
async def test_no_thread_for_an_heir(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker keeps its processor: it is never without one, so it can't be lost."""
    worker = await plait.spawn(_worker())
    held: list[Any] = []

    def start(_worker: Worker) -> None:
        held.append(worker.proc)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Worker, "start", start)
    assert not worker.pool.handoff.give(worker)
    assert held == [worker.proc]
    assert worker.proc is not None
    assert worker.pool.workers == [worker]
    monkeypatch.undo()
    assert worker.pool.handoff.give(worker)
    assert await plait.spawn(_worker()) is not worker


@in_plait(workers=1)
async def test_an_heir_that_is_not_needed_becomes_a_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another giver is quicker, while its thread is being started."""
    worker = await plait.spawn(_worker())
    pool, start, first = worker.pool, Worker.start, threading.Event()

    def start_late(heir: Worker) -> None:
        start(heir)
        if not first.is_set():
            first.set()
            assert pool.handoff.give(worker)

    monkeypatch.setattr(Worker, "start", start_late)
    assert not pool.handoff.give(worker)
    assert await plait.spawn(value(1)) == 1
    await eventually(lambda: plait.stats().spares >= 1)
    assert plait.stats().workers == 1


@pytest.mark.skipif(not GIL_BUILD(), reason="who lets go of it last is another thread's matter there")
@pytest.mark.parametrize("busy", [False, True])
def test_a_timer_that_a_finaliser_sets_between_two_turns_is_its_strands(busy: bool) -> None:
    """The task's result is let go when the turn has ended; the timer is due already."""
    ran: list[bool] = []

    class Result:
        def __del__(self) -> None:
            strand = plait.current_strand()
            strand.call_later(0, lambda: ran.append(plait.current_strand() is strand))

    async def ends(steps: int) -> Result:
        for _ in range(steps):
            await plait.checkpoint()
        return Result()

    async def runs() -> None:
        while len(ran) < 3:
            await plait.checkpoint()

    async def main() -> None:
        other = plait.spawn(runs()) if busy else None
        for steps in range(3):
            plait.spawn(ends(steps))
            await eventually(lambda steps=steps: len(ran) == steps + 1)  # type: ignore[misc]
        if other is not None:
            await other

    plait.run(main(), workers=1)
    assert ran == [True] * 3
