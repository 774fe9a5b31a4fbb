"""Steps that outlast the run: nothing says that they are done, and when they end at last it is no fault of plait's."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from unit_helpers import LONG, Program, eventually, eventually_in_thread, plait_threads

import plait

pytestmark = pytest.mark.filterwarnings("ignore::plait.StuckThreads")
Step = Callable[[threading.Event], Coroutine[Any, Any, Any]]


async def returns(go: threading.Event) -> int:
    go.wait(LONG)
    return 5


async def raises(go: threading.Event) -> None:
    go.wait(LONG)
    raise ValueError("late")


async def exits(go: threading.Event) -> None:
    go.wait(LONG)
    raise SystemExit(4)


async def sleeps(go: threading.Event) -> None:
    go.wait(LONG)
    await plait.sleep(0)


async def waits(go: threading.Event) -> None:
    go.wait(LONG)
    await plait.Event().wait()


async def offloads(go: threading.Event) -> None:
    go.wait(LONG)
    await plait.to_thread(int)


async def spawns(go: threading.Event) -> None:
    go.wait(LONG)
    await plait.spawn(asyncio.sleep(0))


async def awaits_a_future(go: threading.Event) -> None:
    future = asyncio.get_running_loop().create_future()
    future.add_done_callback(print)
    go.wait(LONG)
    future.set_result(1)
    await future


STEPS = [returns, raises, exits, sleeps, waits, offloads, spawns, awaits_a_future]


@pytest.mark.parametrize("where", ["spawned", "pinned", "in a group"])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_a_step_that_ends_after_the_run_is_no_fault_of_plait_s(
    step: Step, where: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, stalls, died = threading.Event(), [], []
    monkeypatch.setattr(threading, "excepthook", died.append)

    async def in_a_group(group: plait.TaskGroup) -> None:
        async with group:
            group.create_task(step(go))

    async def main() -> None:
        if where == "spawned":
            plait.spawn(step(go))
        elif where == "pinned":
            plait.Strand(pinned=True).spawn(step(go))
        else:
            asyncio.create_task(in_a_group(plait.TaskGroup()))
        await eventually(lambda: stalls)

    loop = plait.new_event_loop(shutdown_grace=0, on_stall=stalls.append)
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
        closed = len(stalls)
        go.set()
    eventually_in_thread(lambda: not plait_threads())
    assert [stall.state for stall in stalls[:closed]][-1] == "unfinished"
    assert "is not done after" in str(stalls[closed - 1]) and "and the run ends, in " in str(stalls[closed - 1])
    assert len(stalls) == closed
    assert not [record for record in caplog.records if record.levelno >= logging.CRITICAL], caplog.text
    assert not died
    assert not [strand for strand in getattr(asyncio.tasks, "_current_tasks", ()) if isinstance(strand, plait.Strand)]


def test_callbacks_of_other_runtimes_are_called() -> None:
    """The task's own runtime has ended; the strand that waits for it has not."""
    go, told, ended = threading.Event(), threading.Event(), threading.Event()
    tasks: list[Any] = []

    def first() -> None:
        async def main() -> None:
            tasks.append(plait.spawn(returns(go)))
            await eventually(lambda: plait.stats().stalls)
            told.set()

        plait.run(main(), shutdown_grace=0)
        ended.set()

    async def second() -> Any:
        await eventually(told.is_set)
        task, results = tasks[0], []
        task.add_done_callback(results.append)
        await eventually(ended.is_set)
        go.set()
        await eventually(lambda: results)
        return await task

    thread = threading.Thread(target=first)
    thread.start()
    assert plait.run(second()) == 5
    thread.join(LONG)


@pytest.mark.parametrize("kind", ["blocks", "computes"])
def test_no_report_says_done_of_what_goes_on(kind: str, program: Callable[..., Program]) -> None:
    step = "time.sleep(60)" if kind == "blocks" else "\n    while True: pass"
    running = program(
        "import asyncio, time, plait\n"
        f"async def step(): {step}\n"
        "async def main():\n"
        "    plait.spawn(step())\n"
        "    while not plait.stats().stalls: await asyncio.sleep(0.01)\n"
        "plait.run(main(), shutdown_grace=0.2)\n"
        "print('after')\n"
    )
    code, out, err = running.end()
    assert (code, out) == (0, "after\n")
    assert "is done after" not in err
    assert "is not done after" in err and "StuckThreads" in err
