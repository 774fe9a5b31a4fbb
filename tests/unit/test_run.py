"""plait.run, plait.Runner, plait.new_event_loop, plait.stats."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import math
import os
import threading
import warnings
import weakref
from typing import Any

import pytest
from unit_helpers import GIL_BUILD, LONG, collected, eventually_in_thread, forever, in_plait, plait_threads, raises, value

import plait

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_returns_the_result() -> None:
    assert plait.run(value(42)) == 42


def test_raises_what_main_raises() -> None:
    with pytest.raises(ZeroDivisionError, match="mine"):
        plait.run(raises(ZeroDivisionError("mine")))


def test_cancelled_main_raises_cancelled_error() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        plait.run(main())


@pytest.mark.parametrize("wrong", [None, 42, value, print])
def test_refuses_what_is_no_coroutine(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="coroutine"):
        plait.run(wrong)


def test_main_stays_on_the_thread_that_runs_it() -> None:
    async def main() -> None:
        here, strand = threading.get_ident(), plait.current_strand()
        assert asyncio.get_running_loop() is strand
        for wait in (plait.spawn(value(1)), plait.sleep(0.001), asyncio.sleep(0.001), plait.to_thread(int)):
            await wait
            assert threading.get_ident() == here
            assert plait.current_strand() is strand

    plait.run(main())


@pytest.mark.parametrize("where", ["main", "spawned", "callback"])
def test_nested_run_is_refused(where: str) -> None:
    def run() -> None:
        coro = value(1)
        with pytest.raises(RuntimeError, match="running event loop"):
            plait.run(coro)
        coro.close()

    async def nested() -> None:
        run()

    async def main() -> None:
        if where == "main":
            run()
        elif where == "spawned":
            await plait.spawn(nested())
        else:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def callback() -> None:
                run()
                done.set_result(None)

            asyncio.get_running_loop().call_soon(callback)
            await done

    plait.run(main())


def test_run_inside_asyncio_is_refused() -> None:
    async def main() -> None:
        coro = value(1)
        with pytest.raises(RuntimeError, match="running event loop"):
            plait.run(coro)
        coro.close()

    asyncio.run(main())


def test_run_again_makes_another_runtime() -> None:
    async def strand() -> Any:
        await plait.spawn(value(1))
        return plait.current_strand()

    assert plait.run(strand()) is not plait.run(strand())
    assert plait_threads() == []


def test_run_in_another_thread() -> None:
    async def main() -> tuple[int, int]:
        return threading.get_ident(), await plait.spawn(value(7))

    found: list[tuple[int, int]] = []
    thread = threading.Thread(target=lambda: found.append(plait.run(main())))
    thread.start()
    ident = thread.ident
    thread.join(LONG)
    assert found == [(ident, 7)]


# Settings


async def workers() -> int:
    await plait.spawn(value(None))
    return len(plait.stats().queued)


def test_workers_default() -> None:
    assert plait.run(workers()) == (1 if GIL_BUILD else len(os.sched_getaffinity(0)))


def test_workers_given() -> None:
    assert plait.run(workers(), workers=3) == 3


def test_workers_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_WORKERS", "4")
    assert plait.run(workers()) == 4
    assert plait.run(workers(), workers=2) == 2  # the program knows better


def test_max_threads_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def cap() -> int:
        return plait.stats().max_threads

    monkeypatch.setenv("PLAIT_MAX_THREADS", "9")
    assert plait.run(cap()) == 9
    assert plait.run(cap(), max_threads=8) == 8


@pytest.mark.parametrize(("name", "text"), [("WORKERS", "many"), ("WORKERS", "0"), ("HANDOFF_AFTER", "soon")])
def test_nonsense_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(f"PLAIT_{name}", text)
    with pytest.raises(ValueError, match=f"PLAIT_{name}"):
        plait.new_event_loop()


@pytest.mark.parametrize(
    "setting",
    [{"workers": 0}, {"workers": -1}, {"max_threads": 0}, {"handoff_after": -1.0}, {"handoff_after": math.nan},
     {"workers": 4, "max_threads": 3}],
)  # fmt: skip
def test_bad_values_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting)) + "|max_threads"):
        plait.new_event_loop(**setting)


@pytest.mark.parametrize("setting", [{"workers": "2"}, {"workers": 1.5}, {"workers": True}, {"handoff_after": "x"}])
def test_bad_types_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(setting))):
        plait.new_event_loop(**setting)


def test_debug_reaches_every_strand() -> None:
    async def debugs() -> list[bool]:
        async def debug() -> bool:
            return asyncio.get_running_loop().get_debug()

        return [await debug(), await plait.spawn(debug()), await plait.Strand().call(debug())]

    assert plait.run(debugs(), debug=True) == [True, True, True]
    assert plait.run(debugs(), debug=False) == [False, False, False]


# Runner


def test_runner_keeps_one_runtime_over_its_runs() -> None:
    async def strand() -> Any:
        await plait.spawn(value(1))
        return plait.current_strand()

    with plait.Runner(workers=1) as runner:
        assert runner.run(strand()) is runner.run(strand()) is runner.get_loop()


def test_runner_leaves_spawned_tasks_running_between_runs() -> None:
    async def start() -> plait.Task[Any]:
        return plait.spawn(done.wait())

    async def wait(task: plait.Task[Any]) -> Any:
        done.set()
        return await task

    done = plait.Event()
    with plait.Runner() as runner:
        task = runner.run(start())
        assert not task.done()
        assert runner.run(wait(task)) is True


def test_runner_keeps_the_context() -> None:
    async def change() -> None:
        variable.set("changed")

    async def look() -> str:
        return variable.get()

    with plait.Runner() as runner:
        runner.run(change())
        assert runner.run(look()) == "changed"
        assert runner.run(look(), context=contextvars.Context()) == "unset"
    assert variable.get() == "unset"


def test_closed_runner_refuses() -> None:
    runner = plait.Runner()
    runner.run(value(1))
    runner.close()
    coro = value(1)
    with pytest.raises(RuntimeError, match="closed"):
        runner.run(coro)
    coro.close()


def test_what_is_left_is_cancelled_and_waited_for() -> None:
    started, ended = plait.Event(), []

    async def wait(name: str) -> None:
        try:
            started.set()
            await forever()
        finally:
            await asyncio.sleep(0.001)
            ended.append(name)

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(wait("local")), plait.spawn(wait("spawned"))]
        await started.wait()
        return tasks

    tasks = plait.run(main())
    assert [task.done() for task in tasks] == [True, True]
    assert "local" in ended


# new_event_loop


def test_loop_for_asyncios_runner() -> None:
    async def main() -> int:
        return await plait.spawn(value(3))

    with asyncio.Runner(loop_factory=plait.new_event_loop) as runner:
        assert runner.run(main()) == 3


def test_loop_by_hand() -> None:
    loop = plait.new_event_loop()
    assert loop.run_until_complete(value(5)) == 5
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert not loop.is_running()
    assert not loop.is_closed()
    loop.close()
    loop.close()
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)
    coro = value(1)
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_until_complete(coro)
    coro.close()


def test_workers_start_with_the_first_spawn() -> None:
    async def main() -> None:
        await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_soon(int)
        assert await asyncio.create_task(value(1)) == 1
        assert sorted(thread.name for thread in plait_threads()) == ["plait-monitor", "plait-ps"]
        await plait.spawn(value(1))
        assert len(plait_threads()) > 2

    plait.run(main())


def test_a_loop_that_nobody_closes_is_collected_with_its_threads() -> None:
    def leave() -> Any:
        loop = plait.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        return weakref.ref(loop)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        left = leave()
        eventually_in_thread(lambda: collected(left))
        eventually_in_thread(lambda: plait_threads() == [])


def test_closing_a_running_loop_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="running"):
            asyncio.get_running_loop().close()

    plait.run(main())


def test_loops_live_side_by_side() -> None:
    both = threading.Barrier(2, timeout=LONG)
    strands: list[Any] = []

    def live(number: int) -> None:
        async def meet() -> int:
            both.wait()  # both runtimes run a spawned task now
            return number

        async def main() -> int:
            strands.append(plait.current_strand())
            return await plait.spawn(meet())

        with asyncio.Runner(loop_factory=plait.new_event_loop) as runner:
            results[number] = runner.run(main())

    results: dict[int, int] = {}
    threads = [threading.Thread(target=live, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert results == {0: 0, 1: 1}
    assert strands[0] is not strands[1]


def test_a_task_of_another_runtime_can_be_awaited() -> None:
    let_go = plait.Event()
    tasks: list[plait.Task[bool]] = []
    made = threading.Event()

    def live() -> None:
        async def main() -> None:
            tasks.append(plait.spawn(let_go.wait()))
            made.set()
            await tasks[0]

        plait.run(main())

    async def main() -> bool:
        asyncio.get_running_loop().call_later(0.01, let_go.set)
        return await tasks[0]

    thread = threading.Thread(target=live)
    thread.start()
    assert made.wait(LONG)
    assert plait.run(main()) is True
    thread.join(LONG)
    assert not thread.is_alive()


# stats


def test_stats_are_of_a_running_runtime() -> None:
    with pytest.raises(RuntimeError, match="plait.run"):
        plait.stats()


@in_plait(workers=2)
async def test_stats_count() -> None:
    let_go = plait.Event()
    before = plait.stats()
    assert (before.workers, before.tasks, before.timers) == (0, 0, 0)
    tasks = [plait.spawn(let_go.wait()) for _ in range(5)]
    sleeper = plait.spawn(plait.sleep(1000))
    while (during := plait.stats()).timers == 0 or during.tasks < 6:  # (one on its way is in no list for a moment)
        await asyncio.sleep(0.001)
    assert (during.workers, during.tasks, len(during.queued)) == (2, 6, 2)
    let_go.set()
    sleeper.cancel()
    await asyncio.wait([*tasks, sleeper])
    while plait.stats().tasks:
        await asyncio.sleep(0.001)
    for _ in range(200):
        await plait.spawn(value(1))
    while (after := plait.stats()).polls == 0:  # (whoever sits at the poller may do so all the time)
        await plait.spawn(plait.sleep(0.001))
    assert after.steps > before.steps
    with pytest.raises(dataclasses.FrozenInstanceError):
        after.tasks = 3  # type: ignore[misc]
