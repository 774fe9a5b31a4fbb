"""Event: set, clear, wait, cancel and the purge of abandoned waiters (E1-E3, W1, W2)."""

from __future__ import annotations

from asyncio import CancelledError
from typing import Any

import pytest

from plait import sync
from plait._rt.ground.run_queue import IDLE
from plait._rt.task import wait_queue

from .baton import seeds
from .rig import TASKS, alone, rig

QUEUE = "_rt/task/wait_queue.py"
FOCUS = ((*TASKS, QUEUE), ("sync.py", QUEUE), ("sync.py", QUEUE, "_rt/task/waiter.py", "_rt/strand/strand.py"))


async def _wait(r: Any, event: Any, strand: Any = None) -> Any:
    result = await event.wait()
    if strand is not None:
        with alone(r, strand, "waiter"):
            pass
    return result


def test_set_against_wait() -> None:
    """Whoever waits when `set` is called wakes, and returns True; so does who comes later, while it stays set.

    Mutations caught: `_enrol` does not look again after it appended.
    """
    for seed in seeds():
        with rig(seed, FOCUS[seed % 3], 2) as r:
            event = sync.Event()
            tasks: list[Any] = []
            for name in range(2):
                r.actor(f"spawner{name}", lambda r=r, e=event, t=tasks: [t.append(r.spawn(_wait(r, e))) for _ in range(2)])  # type: ignore[misc]
            r.actor("setter", lambda r=r, e=event: (r.pause(), e.set()))  # type: ignore[misc]
            r.run()
            r.expect(all(task.done() and task.result() is True for task in tasks), f"{tasks}")
            r.check_quiet()


def test_set_and_clear_against_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `set` wakes all that waited, even if it is cleared at once and abandoned waiters are being purged meanwhile.

    Mutations caught: a purge takes all out and puts the living back.
    """
    monkeypatch.setattr(wait_queue, "PURGE_AT_LEAST", 1)
    for seed in seeds(400):
        with rig(seed, FOCUS[seed % 3], 2) as r:
            event = sync.Event()
            tasks = [r.spawn(_wait(r, event)) for _ in range(5)]
            doomed = tasks[1:4]
            begun: list[bool] = []

            def waiting(event: Any = event, begun: Any = begun) -> bool:
                if len(event._unset.get(None, ())) == 5:
                    begun.append(True)
                return bool(begun)

            def set_it(r: Any = r, event: Any = event, waiting: Any = waiting, dead: int = seed % 2 * 2) -> None:
                r.schedule.wait(lambda: waiting() and (event._dead >= dead or len(event._unset[None]) < 5))  # at 3 it is purged
                event.set()
                event.clear()

            def cancel(task: Any, r: Any = r, waiting: Any = waiting) -> None:
                r.schedule.wait(waiting)
                task.cancel()

            r.actor("setter", set_it)
            for number, task in enumerate(doomed):
                r.actor(f"canceller{number}", lambda task=task, cancel=cancel: cancel(task))  # type: ignore[misc]
            r.run()
            r.expect(all(task.done() for task in doomed), f"cancelled, but not done: {tasks}")
            r.expect(all(task.done() and task.result() is True for task in (tasks[0], tasks[4])), f"slept through: {tasks}")
            r.check_quiet()


def test_a_set_wakes_nobody_who_waits_after_its_clear() -> None:
    """Three tasks hand a token round, each clearing its event: none is woken by a `set` that it has seen and cleared.

    Mutations caught: one queue for all that wait, which `set` empties after it raised the flag (woken twice, and in the end a
    token is where nobody waits for it any more).
    """
    for seed in seeds(400):
        with rig(seed, FOCUS[seed % 3], 2) as r:
            events = [sync.Event() for _ in range(3)]
            got = [0, 0, 0]

            async def pass_on(number: int, events: Any = events, got: Any = got) -> None:
                for _ in range(3):
                    await events[number].wait()
                    events[number].clear()
                    got[number] += 1
                    events[(number + 1) % 3].set()

            tasks = [r.spawn(pass_on(number)) for number in range(3)]
            r.actor("setter", events[0].set)
            r.run()
            r.expect(all(task.done() for task in tasks), f"{got} {events}")
            r.check_quiet()


def test_wakes_and_cancels_of_one_task() -> None:
    """A task woken by two setters and cancelled by two cancellers is resumed once for each await, by one thread at a time.

    Mutations caught: `Waiter._run` does not look at the state; `_fire` resumes the task instead of posting;
    `_deliver_cancel` runs in the canceller's thread.
    """
    for seed in seeds():
        with rig(seed, TASKS, 2) as r:
            strand = r.strand()
            events = [sync.Event() for _ in range(3)]
            caught: list[int] = []

            async def body(r: Any = r, strand: Any = strand, events: Any = events, caught: Any = caught) -> int:
                for number, event in enumerate(events):
                    try:
                        assert await event.wait() is True
                    except CancelledError:
                        caught.append(number)
                    with alone(r, strand, "body"):
                        pass
                return 7

            task = r.spawn(body(), strand)
            asked: list[bool] = []
            for name in range(2):
                r.actor(f"setter{name}", lambda events=events: [event.set() for event in events])  # type: ignore[misc]
                r.actor(f"canceller{name}", lambda task=task, asked=asked: asked.append(task.cancel()))  # type: ignore[misc]
            r.run()
            r.expect(task.done(), f"{task} {strand._ready}")
            r.expect(task.cancelled() or task.result() == 7, f"{task}")
            r.expect(len(caught) <= sum(asked) == task.cancelling(), f"caught {caught}, asked {asked}, {task.cancelling()}")
            r.expect(list(strand._ready) == [IDLE], f"{strand._ready}")
            r.check_quiet(strand)
