"""Timers: the heap of the near ones, the lists of the others (N1-N4), at scale."""

from __future__ import annotations

import asyncio
import math
import random
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from unit_helpers import eventually, everywhere

from plait._rt.io.timers import LONG, Timers

MILLION = 1_000_000


class Timer:
    """What the heap asks of a timer."""

    __slots__ = ("_cancelled", "_when", "number")

    def __init__(self, when: float, number: int = 0) -> None:
        self._when, self.number, self._cancelled = when, number, False


class Fired(Timer):
    """And what firing one asks."""

    __slots__ = ("_loop",)

    def __init__(self, when: float, number: int, loop: Any) -> None:
        super().__init__(when, number)
        self._loop = loop


def cancel(timers: Timers, timer: Timer) -> None:
    timer._cancelled = True
    timers.cancelled += 1


def check(timers: Timers) -> None:
    """N1 and N2."""
    bounds, far = timers._bounds, timers._far
    assert len(bounds) == len(far)
    assert bounds == sorted(set(bounds))
    for low, high, listed in zip(bounds, (*bounds, math.inf)[1:], far, strict=True):
        assert all(low <= timer._when < high or timer._when == high == math.inf for timer in listed)
    assert not bounds or all(when < bounds[0] for when, _, _ in timers._heap)
    assert timers._heap or not far


def drain(timers: Timers, step: float = math.inf) -> list[Any]:
    """All of them, in the order in which they come due."""
    found: list[Any] = []
    while (deadline := timers.deadline(0.0)) is not None:
        check(timers)
        found += timers.due(deadline + step)
    return found


@pytest.mark.parametrize("order", ["up", "down", "random", "equal", "few", "endless"])
def test_they_come_due_in_order(order: str) -> None:
    count, chance, timers = LONG * 9 + 7, random.Random(order), Timers()
    made = []
    for number in range(count):
        when = {
            "up": float(number),
            "down": float(count - number),
            "random": chance.random(),
            "equal": 5.0,
            "few": float(chance.randrange(5)),
            "endless": math.inf if number % 2 else 1e300,
        }[order]
        made.append(Timer(when, number))
        timers.add(made[-1])
        if not number % 1000:
            timers.deadline(0.0)
            check(timers)
    assert len(timers) == count
    found = drain(timers, count / 50 if order in ("up", "down") else 0.01)
    assert [timer.number for timer in found] == [timer.number for timer in sorted(made, key=lambda timer: timer._when)]
    assert not timers
    assert len(timers) == 0
    assert timers.deadline(0.0) is None


def test_against_a_sorted_list() -> None:
    """Adds, cancels, looks and time that passes, in random order; far more timers than fit into the heap."""
    for seed in range(4):
        chance, timers, now, number = random.Random(seed), Timers(), 0.0, 0
        pending: dict[int, Timer] = {}
        for _ in range(300):
            for _ in range(chance.choice((1, 10, 400))):
                timer = Timer(now + chance.choice((0.0, 1.0, chance.random() * 10, chance.random() * 1000)), number)
                pending[number] = timer
                timers.add(timer)
                number += 1
            for chosen in chance.sample(sorted(pending), len(pending) // chance.choice((2, 5, 100))):
                cancel(timers, pending.pop(chosen))
            now += chance.choice((0.0, 0.1, 3.0))
            wanted = sorted((t for t in pending.values() if t._when <= now), key=lambda t: (t._when, t.number))
            assert timers.due(now) == wanted
            check(timers)
            for timer in wanted:
                del pending[timer.number]
            first = min((timer._when for timer in pending.values()), default=None)
            assert timers.deadline(now) == first
            assert len(timers) < 3 * len(pending) + 2000


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_none_is_overtaken(most: int) -> None:
    """While one thread posts a timer, another one looks; those that it could find are later (N4)."""
    timers = Timers()
    posted: list[int] = []

    def post(timer: Any) -> None:
        other = threading.Thread(target=timers.fire, args=(1000.0,))
        other.start()
        other.join()
        posted.append(timer.number)

    home = SimpleNamespace(_post=post)
    for number in range(200):
        timers.add(Fired(float(number), number, home))
    while len(posted) < 200:
        timers.fire(1000.0, most)
    assert posted == list(range(200))


@pytest.mark.parametrize("looks", ["often", "seldom"])
@pytest.mark.parametrize("kept", [0, 3 * LONG])
def test_no_growth_after_a_million_cancels(looks: str, kept: int) -> None:
    timers, most = Timers(), 0
    for number in range(kept):
        timers.add(Timer(1e6 + number))
    batch, waiting = (10 if looks == "often" else 20_000), []
    for number in range(0, MILLION, batch):
        made = [Timer(3600.0 + number + i) for i in range(batch)]
        for timer in made:
            timers.add(timer)
        timers.due(number / MILLION)
        for timer in waiting:
            cancel(timers, timer)
        waiting = made
        most = max(most, len(timers))
    for timer in waiting:
        cancel(timers, timer)
    timers.due(2.0)
    assert most <= 2 * (kept + 2 * batch) + 200
    assert len(timers) <= 2 * kept + 200
    assert len(timers._far) < 10


def test_cancelled_before_the_look_they_never_enter() -> None:
    timers = Timers()
    for _ in range(1000):
        made = [Timer(3600.0) for _ in range(1000)]
        for timer in made:
            timers.add(timer)
            cancel(timers, timer)
        assert timers.due(0.0) == []
        assert len(timers) == 0


def test_sweeps_while_other_threads_add_and_cancel() -> None:
    """What stays is there at the end, once, and hardly anything else; whoever looks meanwhile."""
    timers, kept, over = Timers(), 3000, threading.Event()

    def use(name: int) -> None:
        chance = random.Random(name)
        for number in range(kept):
            mine = [Timer(1000.0 + chance.random(), -1) for _ in range(5)]
            for timer in mine:
                timers.add(timer)
            timers.add(Timer(1000.0 + chance.random(), name * kept + number))
            if number % 3 == name:
                timers.due(0.0)
            for timer in mine:
                cancel(timers, timer)

    def look() -> None:
        while not over.is_set():
            assert timers.due(0.0) == []
            deadline = timers.deadline(0.0)
            assert deadline is None or deadline == 0.001 or 1000.0 <= deadline <= 1001.0

    users = [threading.Thread(target=use, args=(name,)) for name in range(3)]
    looker = threading.Thread(target=look)
    looker.start()
    for thread in users:
        thread.start()
    for thread in users:
        thread.join()
    over.set()
    looker.join()
    timers.due(0.0)
    check(timers)
    assert len(timers) < 3 * kept * 2.5
    assert sorted(timer.number for timer in drain(timers)) == list(range(3 * kept))


@everywhere
async def test_a_cancel_from_another_thread() -> None:
    loop: Any = asyncio.get_running_loop()
    fired: list[int] = []
    until = loop.time() + 1.0
    handles = [loop.call_at(until + number / 1e6, fired.append, number) for number in range(3000)]
    for half in (handles[::2], handles[1::2]):
        await asyncio.sleep(0.001)
        thread = threading.Thread(target=lambda half=half: [handle.cancel() for handle in half])  # type: ignore[misc]
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)
    assert len(loop._timers) < 300
    await asyncio.sleep(until - loop.time() + 0.01)
    assert not fired


@everywhere
async def test_far_deadlines() -> None:
    """Beyond what any clock or system call takes; the near ones fire all the same."""
    loop: Any = asyncio.get_running_loop()
    now, fired = loop.time(), []
    far = [loop.call_at(when, fired.append, when) for when in (1e9, 1e18, 1e300, math.inf) for _ in range(LONG)]
    for number in range(10):
        loop.call_at(now + number / 1000, fired.append, number)
    await eventually(lambda: len(fired) >= 10)
    assert sorted(fired) == list(range(10))
    for handle in far:
        handle.cancel()
