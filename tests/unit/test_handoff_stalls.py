"""Who blocks is handed off, and named. In most tests the blocker waits for the very task that waits behind it."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
import time
from typing import Any

import pytest
from unit_helpers import GIL_BUILD, LONG, eventually, everywhere, forever, in_plait, in_strand, spin_until, value

import plait


class Flag:
    """Set by a strand, spun on by another."""

    def __init__(self) -> None:
        self.up = False

    def set(self) -> None:
        self.up = True

    def __call__(self) -> bool:
        return self.up


async def call(function: Any, *args: Any) -> Any:
    return function(*args)


# Hand-off


@in_plait(workers=1)
async def test_a_blocked_worker_gives_its_processor_away() -> None:
    go = threading.Event()
    blocker = plait.spawn(call(go.wait, LONG))
    plait.spawn(call(go.set))  # behind it: without a hand-off nobody would ever set it
    assert await blocker
    assert plait.stats().handoffs >= 1


@in_plait(workers=1)
async def test_a_computing_worker_gives_its_processor_away() -> None:
    go = Flag()
    hog = plait.spawn(call(spin_until, go))
    plait.spawn(call(go.set))
    await hog
    assert plait.stats().handoffs >= 1


@in_plait(workers=1)
async def test_many_blockers() -> None:
    go = threading.Barrier(31, timeout=LONG)
    blockers = [plait.spawn(call(go.wait)) for _ in range(30)]
    await plait.spawn(call(go.wait))
    await asyncio.gather(*blockers)
    stats = plait.stats()
    assert stats.handoffs >= 30
    assert stats.workers == 1
    await eventually(lambda: plait.stats().handed_off == 0)
    assert plait.stats().spares >= 1  # kept for the next time


@in_plait(workers=1)
async def test_spares_are_used_again() -> None:
    for _ in range(10):
        go = threading.Event()
        blocker = plait.spawn(call(go.wait, LONG))
        await plait.spawn(call(go.set))
        assert await blocker
        await eventually(lambda: plait.stats().handed_off == 0)
    stats = plait.stats()
    assert stats.handoffs >= 10
    assert stats.workers + stats.spares <= 4


@in_plait(workers=1)
async def test_timers_go_on_behind_a_blocker() -> None:
    go = threading.Event()

    async def later() -> None:
        await plait.sleep(0.02)
        go.set()

    sleeper = plait.spawn(later())
    assert await plait.spawn(call(go.wait, LONG))
    await sleeper


@in_plait(workers=1)
async def test_the_poller_goes_on_behind_a_blocker() -> None:
    go = threading.Event()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def read() -> None:
        reading.set()
        await asyncio.get_running_loop().sock_recv(ours, 10)
        go.set()

    reading = plait.Event()
    reader = plait.spawn(read())
    await reading.wait()
    await plait.sleep(0.005)
    blocker = plait.spawn(call(go.wait, LONG))
    await plait.sleep(0.005)
    theirs.send(b"x")
    assert await blocker
    await reader
    ours.close()
    theirs.close()


@in_plait(workers=1)
async def test_a_handed_off_step_ends_without_a_processor_and_the_task_goes_on() -> None:
    go = threading.Event()

    async def block_and_go_on() -> list[Any]:
        found = [go.wait(LONG), asyncio.current_task() is mine, plait.current_strand() is asyncio.get_running_loop()]
        await plait.checkpoint()
        await asyncio.sleep(0.001)
        found.append(await plait.spawn(value(True)))
        found.append(go.wait(0))
        return [*found, asyncio.current_task() is mine]

    mine = plait.spawn(block_and_go_on())
    plait.spawn(call(go.set))
    assert await mine == [True] * 6


@in_plait(workers=2)
async def test_never_two_threads_in_one_strand() -> None:
    """What is posted to a stuck strand waits for its step to end, however many processors are free."""
    for _ in range(5):
        go, steps = threading.Event(), []

        async def block(go: threading.Event = go, steps: list[str] = steps) -> None:
            steps.append("begin")
            go.wait(LONG)
            steps.append("end")

        strand = plait.Strand()
        blocker = strand.spawn(block())
        await eventually(lambda steps=steps: steps == ["begin"])  # type: ignore[misc]
        strand.call_soon_threadsafe(steps.append, "callback")
        other = strand.spawn(call(steps.append, "task"))
        for _ in range(5):
            await plait.spawn(plait.sleep(0.002))
        assert steps == ["begin"]
        go.set()
        await asyncio.gather(blocker, other)
        assert steps == ["begin", "end", "callback", "task"]


@in_plait(workers=1)
async def test_callbacks_block_too() -> None:
    go = threading.Event()
    plait.Strand().call_soon_threadsafe(go.wait, LONG)
    await asyncio.wait_for(plait.spawn(value(1)), LONG)
    go.set()


@in_plait(workers=1)
async def test_a_blocked_main_strand_stops_nobody_else() -> None:
    go = threading.Event()

    async def later() -> None:
        await plait.sleep(0.005)
        await plait.spawn(value(1))
        go.set()

    task = plait.spawn(later())
    assert go.wait(LONG)  # on the main thread
    await task


def test_at_the_cap_it_says_so_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        go = threading.Event()
        started: list[int] = []

        async def block() -> bool:
            started.append(1)
            return go.wait(LONG)

        blockers = [plait.spawn(block()) for _ in range(8)]
        await eventually(lambda: plait.stats().at_cap > 0)
        stats = plait.stats()
        assert stats.max_threads == 3
        assert stats.workers + stats.spares + stats.handed_off <= 3
        assert len(started) <= 3
        go.set()
        assert await asyncio.gather(*blockers) == [True] * 8
        assert await plait.spawn(value(1)) == 1

    with caplog.at_level(logging.WARNING, logger="plait"):
        plait.run(main(), workers=1, max_threads=3)
    said = [record.getMessage() for record in caplog.records if "max_threads" in record.getMessage()]
    assert len(said) == 1
    assert "to_thread" in said[0]


def test_handoff_after_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hog keeps its processor for so long; one that is quicker is never handed off."""

    async def main() -> int:
        hog = plait.spawn(call(spin_until, deadline()))
        await plait.spawn(value(1))
        await hog
        return plait.stats().handoffs

    def deadline() -> Any:
        until = time.monotonic() + 0.05
        return lambda: time.monotonic() > until

    assert plait.run(main(), workers=1, handoff_after=1000.0) == 0
    monkeypatch.setenv("PLAIT_HANDOFF_AFTER", "1000")
    assert plait.run(main(), workers=1) == 0


def test_the_switch_interval_is_the_users_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        go = Flag()
        hog = plait.spawn(call(spin_until, go))
        await plait.spawn(call(go.set))
        await hog

    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(0.003)
        mine = sys.getswitchinterval()
        plait.run(main(), workers=1)
        assert sys.getswitchinterval() == mine
    finally:
        sys.setswitchinterval(before)


# Stalls


class Stalls:
    """An `on_stall` that the blocked code itself waits for, so that no test depends on a clock."""

    def __init__(self) -> None:
        self.found: list[plait.Stall] = []
        self.came = threading.Event()

    def __call__(self, stall: plait.Stall) -> None:
        self.found.append(stall)
        self.came.set()


def test_a_blocked_step_is_named_while_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    stalls = Stalls()
    line = 0

    async def blocks() -> bool:
        nonlocal line
        line = sys._getframe().f_lineno + 1
        return stalls.came.wait(LONG)

    async def main() -> plait.Task[bool]:
        task = plait.spawn(blocks(), name="the blocker")
        other = plait.spawn(value(1))
        assert await task
        await other
        return task

    with caplog.at_level(logging.WARNING, logger="plait.stalls"):
        task = plait.run(main(), workers=1, on_stall=stalls)
    stall, end = stalls.found
    assert (stall.file, stall.line, stall.function) == (__file__, line, "blocks")
    assert stall.call == "stalls.came.wait"
    assert (stall.state, stall.kind, stall.times) == ("began", "lock", 1)
    assert 0.1 <= stall.seconds < LONG
    assert end.state == "ended"
    assert end.seconds >= stall.seconds
    assert stall.advice is not None and "plait.Event" in stall.advice
    assert stall.task == "the blocker"
    assert stall.spawned_at == task.spawn_site
    assert stall.handed_off_after is not None
    assert 0 < stall.handed_off_after < stall.seconds
    assert stall.stack
    record, last = [record for record in caplog.records if record.name == "plait.stalls"]
    assert "is done after" in last.getMessage()
    for part in (f"{__file__}:{line}", "stalls.came.wait", "the blocker", str(task.spawn_site)):
        assert part in record.getMessage()


def test_time_sleep_is_named(caplog: pytest.LogCaptureFixture) -> None:
    stalls = Stalls()

    async def sleeps() -> None:
        while not stalls.came.is_set():
            time.sleep(1)

    async def main() -> None:
        await plait.spawn(sleeps())

    plait.run(main(), workers=1, on_stall=stalls)
    assert stalls.found[0].call == "time.sleep"
    assert stalls.found[0].kind == "blocked"
    assert "time.sleep" in caplog.text


def test_a_computing_step_is_named() -> None:
    async def computes() -> None:
        spin_until(stalls.came.is_set)

    async def main() -> None:
        await plait.spawn(computes(), name="hog")

    for _ in range(5):
        stalls = Stalls()
        plait.run(main(), workers=1, on_stall=stalls)
        stall = stalls.found[0]
        if stall.kind != "host":  # which is right where the machine gives it no core
            break
    assert stall.kind == "cpu"
    assert stall.task == "hog"
    assert stall.function in ("computes", "spin_until", "<lambda>", "is_set")


def test_a_stall_of_the_main_strand_is_named() -> None:
    stalls = Stalls()

    async def main() -> None:
        await plait.spawn(value(1))  # the monitor starts with the first spawn
        assert stalls.came.wait(LONG)

    plait.run(main(), workers=1, on_stall=stalls)
    stall = stalls.found[0]
    assert stall.function == "main"
    assert stall.kind == "lock"
    assert stall.handed_off_after is None


def test_the_innermost_user_frame_is_named() -> None:
    """Not the standard library's, which called."""
    stalls = Stalls()

    def inner(_match: Any) -> str:
        stalls.came.wait(LONG)
        return ""

    async def outer() -> None:
        import re

        re.sub("a", inner, "a")

    async def main() -> None:
        await plait.spawn(outer())

    plait.run(main(), workers=1, on_stall=stalls)
    assert (stalls.found[0].file, stalls.found[0].function) == (__file__, "inner")


def test_local_tasks_and_callbacks_are_named() -> None:
    async def main() -> None:
        strand = plait.Strand()

        async def local() -> None:
            assert stalls.came.wait(LONG)

        async def parent() -> None:
            await asyncio.create_task(local(), name="the local one")

        await strand.call(parent())
        assert stalls.found[0].task == "the local one"
        await eventually(lambda: stalls.found[-1].state == "ended")
        stalls.came.clear()
        strand.call_soon_threadsafe(stalls.came.wait, LONG)
        await eventually(lambda: len(stalls.found) == 4)
        await strand.call(value(1))

    stalls = Stalls()
    plait.run(main(), workers=1, on_stall=stalls)


def test_a_raising_on_stall_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    came = threading.Event()

    def on_stall(_stall: plait.Stall) -> None:
        came.set()
        raise ValueError("in on_stall")

    async def main() -> None:
        for _ in range(2):
            came.clear()
            assert await plait.spawn(call(came.wait, LONG))

    plait.run(main(), workers=1, on_stall=on_stall)
    assert "in on_stall" in caplog.text


def test_short_steps_are_no_stall() -> None:
    """Neither are many in a row, of one strand that nothing else disturbs."""
    stalls = Stalls()

    def compute(seconds: float) -> None:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    async def steps() -> None:
        for _ in range(100):
            compute(0.004)
            await plait.checkpoint()

    async def main() -> None:
        await plait.spawn(steps())
        await plait.Strand().call(steps())
        await steps()

    plait.run(main(), workers=1, on_stall=stalls)
    assert [str(stall) for stall in stalls.found if stall.kind not in ("host", "starved")] == []


def test_waiting_is_no_stall() -> None:
    stalls = Stalls()

    async def main() -> None:
        waiting = [plait.spawn(forever()), plait.Strand(pinned=True).spawn(forever())]
        await plait.spawn(plait.sleep(0.3))
        assert not any(task.done() for task in waiting)

    plait.run(main(), on_stall=stalls)
    assert stalls.found == []


@everywhere
async def test_stalls_are_counted() -> None:
    """(On a machine that has no core for the monitor a stall may pass unseen: again, then.)"""
    before = plait.stats().stalls
    for _ in range(20):
        await plait.spawn(call(time.sleep, 0.3))
        if plait.stats().stalls > before:
            return
    raise AssertionError("none of 20 was counted")


@pytest.mark.skipif(not GIL_BUILD, reason="is about the GIL")
@in_plait(workers=1)
async def test_the_main_strand_gets_the_gil_from_a_busy_worker() -> None:
    """Rounds between the main strand and a worker that is never idle: none takes seconds."""
    over = Flag()

    async def busy() -> None:
        while not over():
            await plait.checkpoint()

    task = plait.spawn(busy())
    for _ in range(200):
        await asyncio.wait_for(plait.spawn(value(1)), LONG)
    over.set()
    await task


@pytest.mark.parametrize("where", ["main", "pooled"])
def test_a_strand_that_is_never_idle_lets_other_threads_in(where: str) -> None:
    """A thread that wants the GIL a hundred times is done while the busy strand makes some thousand steps, not some million:
    on a GIL build each poll between two steps would put the thread back to the end of its wait, for 100 ms and more a time."""
    rounds = 100

    def count_steps() -> int:
        """Of a loop that computes without polling, while the thread is at it: it is let in every switch interval."""
        thread = threading.Thread(target=often)
        thread.start()
        steps = 0
        while thread.is_alive():
            steps += 1
            sum(range(50))
        return steps

    def often() -> None:
        for _ in range(rounds):
            time.sleep(0.0005)

    async def busy() -> int:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, print)  # so that there is something to poll for
        thread = threading.Thread(target=often)
        thread.start()
        steps = 0
        while thread.is_alive():
            steps += 1
            sum(range(50))
            await plait.checkpoint()
        loop.remove_reader(ours)
        ours.close()
        theirs.close()
        return steps

    without_polling = count_steps()
    polling = plait.run(in_strand(where, busy()), workers=1)
    assert polling < 3 * without_polling or not GIL_BUILD  # without a GIL it waits for nobody


@pytest.mark.parametrize("where", ["pinned", "pooled"])
def test_a_stall_is_reported_wherever_it_is(where: str) -> None:
    stalls = Stalls()
    plait.run(in_strand(where, call(stalls.came.wait, LONG)), workers=1, on_stall=stalls)
    assert stalls.found[0].kind == "lock"
    assert stalls.found[0].function == "call"
