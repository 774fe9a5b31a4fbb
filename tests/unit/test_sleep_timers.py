"""plait.sleep, plait.checkpoint, call_later and call_at."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from unit_helpers import LONG, eventually, everywhere, hear, in_plait, in_strand, value

import plait
from plait._rt.ground.run_queue import BATCH
from plait._rt.sched.processor import FIRST, OTHERS_SECONDS, Processor


@everywhere
async def test_sleep_takes_its_time_and_returns_the_result() -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert await plait.sleep(0.02, "rested") == "rested"
    assert loop.time() - started >= 0.0199
    assert await asyncio.sleep(0.001, "too") == "too"
    assert await plait.sleep(0, "at once") == "at once"
    assert await plait.sleep(-5) is None


@everywhere
async def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        await plait.sleep(math.nan)
    with pytest.raises(TypeError):
        await plait.sleep("1")  # type: ignore[arg-type]


@everywhere
async def test_sleepers_wake_in_the_order_of_their_deadlines() -> None:
    order: list[float] = []

    async def nap(seconds: float) -> None:
        await plait.sleep(seconds)
        order.append(seconds)

    naps = [0.15, 0.05, 0.1, 0.025]
    await asyncio.gather(*map(nap, naps))
    assert order == sorted(naps)


@everywhere
async def test_sleep_can_be_cancelled() -> None:
    before = plait.stats().timers
    tasks = [asyncio.create_task(plait.sleep(1000)), plait.spawn(plait.sleep(1000)), asyncio.create_task(asyncio.sleep(1000))]
    await plait.sleep(0.002)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError)
    await eventually(lambda: plait.stats().timers <= before + 4)


@pytest.mark.parametrize("seconds", [1e6, 1e7, 1e10, math.inf])
@everywhere
async def test_sleeps_without_end(seconds: float) -> None:
    """Nothing is left to do but this sleep, so the poller is told to wait that long."""
    for sleep in (plait.sleep, asyncio.sleep):
        task = asyncio.create_task(sleep(seconds))  # type: ignore[operator]
        event = plait.Event()
        waker = threading.Timer(0.02, event.set)
        waker.start()
        await event.wait()
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        waker.join()


@in_plait(workers=2)
async def test_an_earlier_timer_shortens_a_sleep_under_way() -> None:
    long = plait.spawn(plait.sleep(1000))
    for where in ("main", "spawned", "pooled", "pinned"):
        await eventually(lambda: plait.stats().timers >= 1)
        await asyncio.wait_for(in_strand(where, plait.sleep(0.005)), LONG)
    assert not long.done()


@in_plait(workers=2)
async def test_a_timer_from_another_strand_wakes_this_one() -> None:
    """`call_later` of a strand that sleeps already, called by its own callback that a thread posted."""
    for pinned in (False, True):
        strand, fired = plait.Strand(pinned=pinned), threading.Event()
        strand.call_soon_threadsafe(strand.call_later, 0.002, fired.set)
        await hear(fired)


@in_plait(workers=1)
async def test_timers_fire_while_the_workers_are_busy() -> None:
    """Strands that are always ready keep no sleeper waiting (the look at the timers every 61 turns)."""
    over = False

    async def spin() -> None:
        while not over:
            await plait.checkpoint()

    spinners = [plait.spawn(spin()) for _ in range(3)]
    await asyncio.wait_for(plait.spawn(plait.sleep(0.005)), LONG)
    over = True
    await asyncio.gather(*spinners)


# call_later, call_at


@in_plait(workers=1, handoff_after=1000.0)
async def test_those_whose_time_has_come_go_first_but_others_have_their_turn() -> None:
    """Behind a queue of tasks that take long each of these would make them later."""
    order: list[Any] = []
    deadlines: list[float] = []
    sleepers, waiters = FIRST + 50, 200

    async def sleeper(number: int) -> None:
        deadlines.append(time.monotonic() + 0.1)
        await plait.sleep(0.1)
        order.append(number)

    async def waiter() -> None:
        order.append("waiter")

    async def busy() -> list[plait.Task[None]]:
        tasks = [plait.spawn(waiter()) for _ in range(waiters)]
        while time.monotonic() < max(deadlines) + 0.01:
            pass
        return tasks

    sleeping = [plait.spawn(sleeper(number)) for number in range(sleepers)]
    await eventually(lambda: len(deadlines) == sleepers)
    for task in [*sleeping, *await plait.spawn(busy())]:
        await task
    first = order.index(0)
    assert first <= BATCH
    assert order[first : first + FIRST] == list(range(FIRST))
    assert order[first + FIRST] == "waiter"
    assert [each for each in order if each != "waiter"] == list(range(sleepers))
    assert len(order) == sleepers + waiters


def test_the_mark_behind_those_that_went_first_is_never_in_the_way() -> None:
    """Stolen with half of the queue it says nothing, and after a long step among them the others wait no longer for it."""
    fired: list[int] = []
    pool: Any = SimpleNamespace(processors=[], fire_timers=lambda *_: (fired.append(1), first.queue.append("timer")))
    first, thief = Processor(pool, 0), Processor(pool, 1)
    pool.processors += [first, thief]
    first.queue.append("other")
    first._fire_timers()
    first._fire_timers()
    assert len(fired) == 1
    assert first.queue.popleft() == "timer"
    first.queue.rotate(1)  # the other goes to the front, the mark to the end
    assert thief.steal()
    assert list(thief.queue) == ["other"]
    first.queue.append("another")
    first._fire_timers()
    assert len(fired) == 2
    mark = first.queue[1]
    mark._began -= 1000.0
    mark._take_turn(None)
    first._fire_timers()  # at the next look the others' time begins
    assert len(fired) == 2
    assert time.monotonic() < first.first_again <= time.monotonic() + OTHERS_SECONDS


@everywhere
async def test_call_later_and_call_at() -> None:
    calls: list[Any] = []
    loop = asyncio.get_running_loop()
    now = loop.time()
    late = loop.call_at(now + 0.02, calls.append, "late")
    loop.call_later(0.01, calls.append, "early")
    gone = loop.call_later(0.005, calls.append, "gone")
    assert isinstance(late, asyncio.TimerHandle)
    assert late.when() == now + 0.02
    gone.cancel()
    assert gone.cancelled()
    loop.call_at(now - 1, lambda: calls.append(asyncio.current_task()))
    await eventually(lambda: len(calls) == 3)
    assert calls == [None, "early", "late"]
    for bad in (loop.call_later, loop.call_at):
        with pytest.raises(TypeError):
            bad(None, print)  # type: ignore[arg-type]


@everywhere
async def test_equal_deadlines_go_first_come_first_served() -> None:
    calls: list[int] = []
    loop = asyncio.get_running_loop()
    when = loop.time() + 0.005
    for number in range(100):
        loop.call_at(when, calls.append, number)
    await eventually(lambda: len(calls) == 100)
    assert calls == list(range(100))


@everywhere
async def test_no_timer_fires_early() -> None:
    loop = asyncio.get_running_loop()
    early: list[float] = []
    fired = 0

    def look(when: float) -> None:
        nonlocal fired
        fired += 1
        if loop.time() < when - 1e-6:
            early.append(when - loop.time())

    for number in range(200):
        when = loop.time() + number * 0.0001
        loop.call_at(when, look, when)
    await eventually(lambda: fired == 200)
    assert early == []


@everywhere
async def test_cancelled_timers_are_swept() -> None:
    loop = asyncio.get_running_loop()
    await plait.spawn(value(1))
    keep = loop.call_later(1000, print)
    for _ in range(20):
        for handle in [loop.call_later(500, print) for _ in range(500)]:
            handle.cancel()
        await plait.sleep(0.001)
    assert len(loop._timers) + plait.stats().timers < 3000  # type: ignore[attr-defined]
    keep.cancel()


def test_time_is_the_monotonic_clock() -> None:
    async def main() -> None:
        for where in ("main", "spawned"):

            async def look() -> float:
                return asyncio.get_running_loop().time()

            before = time.monotonic()
            assert before <= await in_strand(where, look()) <= time.monotonic()

    plait.run(main())


# checkpoint


@everywhere
async def test_checkpoint_lets_the_others_run() -> None:
    steps: list[str] = []

    async def step(name: str) -> None:
        for _ in range(3):
            steps.append(name)
            await plait.checkpoint()

    await asyncio.gather(step("a"), step("b"))
    assert steps == ["a", "b"] * 3


@everywhere
async def test_checkpoint_lets_callbacks_run() -> None:
    loop = asyncio.get_running_loop()
    calls: list[int] = []
    for number in range(3):
        loop.call_soon(calls.append, number)
        await plait.checkpoint()
        assert calls == list(range(number + 1))


@everywhere
async def test_checkpoint_is_where_a_cancel_comes_in() -> None:
    rounds = 0

    async def spin() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await plait.checkpoint()

    for start in (asyncio.create_task, plait.spawn):
        rounds = 0
        task: Any = start(spin())  # type: ignore[operator]
        await eventually(lambda: rounds > 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@in_plait(workers=1)
async def test_strands_take_turns() -> None:
    """Ready strands on one worker: none is more than a few batches behind another."""
    counts = [0, 0, 0]
    over = False

    async def spin(number: int) -> None:
        while not over:
            counts[number] += 1
            await plait.checkpoint()

    tasks = [plait.spawn(spin(number)) for number in range(3)]
    await eventually(lambda: min(counts) > 1000)
    over = True
    await asyncio.gather(*tasks)
