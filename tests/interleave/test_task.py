"""Tasks: cancel against start, callbacks and joins against the end (T1-T5)."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from plait import Event
from plait.runtime import checkpoint

from .baton import seeds
from .rig import TASK, TASKS, rig

FOCUS = (TASKS, TASK, (*TASK, "_rt/sched/worker.py"))


def test_callbacks_against_end() -> None:
    """Each done-callback and each join is delivered once, whenever it was added.

    Mutations caught: `_add_callback` looks at the state before it appends; `_finish` delivers before the state changes; two
    threads create the list of callbacks at a time; `_deliver_callbacks` takes the first without popping it.
    """
    for seed in seeds():
        with rig(seed, FOCUS[seed % 3], 2) as r:
            calls: list[str] = []

            async def body() -> int:
                await checkpoint()
                return 7

            async def join(task: Any, calls: Any = calls) -> None:
                calls.append(f"join{await task}")

            task = r.spawn(body())
            joins = [r.spawn(join(task)) for _ in range(2)]

            def add(name: str, task: Any = task, calls: Any = calls) -> None:
                for number in range(2):
                    task.add_done_callback(lambda done, number=number: calls.append(f"{name}.{number}"))

            for name in "ab":
                r.actor(name, lambda name=name, add=add: add(name))  # type: ignore[misc]
            r.run()
            r.expect(all(t.done() for t in (task, *joins)), f"{task} {joins}")
            r.expect(Counter(calls) == {"join7": 2, "a.0": 1, "a.1": 1, "b.0": 1, "b.1": 1}, f"{calls}")
            r.check_quiet()


def test_cancel_against_start() -> None:
    """A cancel that meets the start of a task is delivered once: before the first step, or where it waits.

    Mutations caught: `cancel` looks for the strand before it counts; `_start` looks for a cancel before it gives the strand;
    a delivered cancel stays due; a coroutine that no `async def` made begins before it is counted (`_run_first`).
    """
    for seed in seeds():
        with rig(seed, FOCUS[seed % 3], 2) as r:
            never = Event()
            steps: list[str] = []
            kind: Any = Foreign if seed & 1 else lambda coro: coro

            async def body(never: Any = never, steps: Any = steps) -> None:
                steps.append("began")
                try:
                    await never.wait()
                except CancelledError:
                    steps.append("cancelled")
                    await checkpoint()
                    steps.append("cleaned up")
                    raise

            tasks: list[Any] = []

            def spawn(r: Any = r, tasks: Any = tasks, kind: Any = kind, body: Any = body) -> None:
                tasks.append(r.spawn(kind(body())))

            r.actor("spawner", spawn)

            def cancel(r: Any = r, tasks: Any = tasks) -> None:
                r.schedule.wait(lambda: tasks)
                tasks[0].cancel()

            r.actor("canceller", cancel)
            r.run()
            r.expect(tasks[0].cancelled(), f"{tasks[0]} {steps}")
            r.expect(steps in ([], ["began", "cancelled", "cleaned up"]), f"{steps}")
            r.check_quiet()


def test_short_tasks_share_a_strand() -> None:
    """Tasks that end in their first step pass their strand on; cancels, callbacks and posts that come late find nobody wrong.

    Mutations caught: `_start` passes the strand on although somebody knows it; it does not end the turn of one that it keeps.
    """
    for seed in seeds():
        with rig(seed, (*FOCUS[seed % 3], "_rt/strand/strand.py"), 2) as r:
            ended: list[int] = []
            calls: list[int] = []

            loops: list[Any] = []
            later: list[int] = []

            async def body(number: int, ended: Any = ended, loops: Any = loops, later: Any = later) -> None:
                ended.append(number)
                if number == 1:
                    loops.append(asyncio.get_running_loop())
                elif number == 2:
                    asyncio.get_running_loop().call_soon(later.append, number)

            tasks: list[Any] = []

            def spawn(r: Any = r, tasks: Any = tasks, body: Any = body) -> None:
                for number in (1, 1, 2, 1):
                    tasks.append(r.spawn(body(number)))

            def disturb(r: Any = r, tasks: Any = tasks, calls: Any = calls) -> None:
                r.schedule.wait(lambda: len(tasks) == 4)
                for task in tasks:
                    task.cancel()
                    strand = task._home
                    if strand is not None:
                        strand._post(Called(calls))

            r.actor("spawner", spawn)
            r.actor("disturber", disturb)
            r.run()
            r.expect(all(task.done() for task in tasks), f"{tasks}")
            r.expect(len(ended) == sum(not task.cancelled() for task in tasks), f"{ended}, {tasks}")
            r.expect(len(later) == ended.count(2), "what a short task left to do was not done")
            r.expect(len(set(loops)) == len(loops), "a strand that somebody knows was passed on")
            for task in tasks:
                r.expect(task.cancelled() or task._phase == 1, f"{task}")
            r.check_quiet()


class Foreign(Coroutine):  # type: ignore[type-arg]
    """A coroutine that no `async def` made, as Cython's aren't."""

    def __init__(self, coro: Any) -> None:
        self.send, self.throw, self.close = coro.send, coro.throw, coro.close  # type: ignore[method-assign]

    def send(self, value: Any) -> Any: ...
    def throw(self, *error: Any) -> Any: ...
    def __await__(self) -> Any: ...


class Called:
    """A queue item."""

    def __init__(self, calls: list[int]) -> None:
        self.calls = calls

    def _run(self) -> None:
        self.calls.append(1)


def test_cancel_of_who_waits_against_the_end() -> None:
    """Tasks that wait for a task of another strand are cancelled, once and again, while it ends: each wait ends, and the task
    is done, whoever comes first.

    Mutations caught: a cancellation stays in `coming` when it is delivered; `_abandon` of a Join succeeds twice; who gives up
    is resumed by the end as well.
    """
    for seed in seeds():
        with rig(seed, (*FOCUS[seed % 3], "_rt/task/grace.py"), 2) as r:
            ended: list[str] = []
            never = Event()

            async def body(swallow: bool = bool(seed & 1), never: Any = never) -> str:
                await checkpoint()
                try:
                    await never.wait()
                except CancelledError:
                    await checkpoint()
                    if not swallow:
                        raise
                return "swallowed"

            async def wait(task: Any, ended: Any = ended) -> None:
                try:
                    ended.append(await task)
                except CancelledError:
                    ended.append("cancelled")

            task = r.spawn(body())
            waits = [r.spawn(wait(task)) for _ in range(2)]

            def cancel(task: Any = task, waits: Any = waits) -> None:
                for each in (*waits, waits[0], task):
                    each.cancel()

            r.actor("canceller", cancel)
            r.run()
            r.expect(all(each.done() for each in (task, *waits)), f"{task} {waits}")
            r.expect(all(each.cancelled() for each in waits) or len(ended) <= 2, f"{ended}")
            r.expect(sum(each.cancelled() for each in waits) + len(ended) == 2, f"{ended} {waits}")
            r.expect(not task._coming(), "a cancel is on its way to a task that is done")
            r.check_quiet()


def test_cancels_go_round_a_circle() -> None:
    """Tasks in strands of their own that wait for each other are cancelled on several threads: all of them end.

    Mutations caught: a cancellation forgets what caused it; `_take_back` passes the cancel on; `passing` is not taken back.
    """
    for seed in seeds():
        with rig(seed, FOCUS[seed % 3], 2) as r:
            tasks: list[Any] = []
            count = r.rng.randint(2, 3)

            async def body(number: int, tasks: Any = tasks, count: int = count) -> None:
                while len(tasks) < count:
                    await checkpoint()
                await tasks[(number + 1) % count]

            tasks += [r.spawn(body(number)) for number in range(count)]
            for number in range(2):
                r.actor(f"canceller {number}", tasks[number].cancel)
            r.run()
            r.expect(all(task.cancelled() for task in tasks), f"{tasks}")
            r.check_quiet()


def test_a_cancel_that_is_passed_on_against_the_end() -> None:
    """Who waits for a task that ends is cancelled all the same if the task didn't take the cancel; and not twice.

    Mutations caught: a cancel that comes to a task that has ended is dropped; who waits looks for it without taking it away.
    """
    for seed in seeds():
        with rig(seed, FOCUS[seed % 3], 2) as r:
            never, log = Event(), []  # type: ignore[var-annotated]

            async def short(log: Any = log) -> None:
                try:
                    await checkpoint()
                except CancelledError:
                    log.append("taken")
                    raise

            async def waits(r: Any = r, never: Any = never, log: Any = log, short: Any = short) -> None:
                await r.spawn(short())
                try:
                    await never.wait()
                except CancelledError:
                    log.append("after")
                    raise

            task = r.spawn(waits())

            def cancel(r: Any = r, task: Any = task) -> None:
                r.pause()
                task.cancel()

            r.actor("canceller", cancel)
            r.run()
            r.expect(task.cancelled() and task.cancelling() == 1 and log in ([], ["taken"], ["after"]), f"{task} {log}")
            r.check_quiet()
