"""WaitQueue and Claim: grants, cancels, purges and selects from several threads (Q1-Q5, C1-C4)."""

from __future__ import annotations

import sys
from asyncio import CancelledError
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any

import pytest

from plait import sync
from plait._rt.task import wait_queue
from plait._rt.task.claim import Claim
from plait._rt.task.wait_queue import GrantWait, WaitQueue
from plait._rt.task.waiter import NEW

from .baton import seeds
from .rig import TASKS, Rig, rig

FILES = ("_rt/task/wait_queue.py", "_rt/task/claim.py", "_rt/task/waiter.py")
FOCUS = ((*TASKS, *FILES), FILES[:1], FILES, (*FILES, "_rt/strand/strand.py"))


class Pipe:
    """Sends never wait; who has the turn serves, and looks again if somebody asked meanwhile."""

    def __init__(self) -> None:
        self.queue = WaitQueue()
        self.items: list[Any] = []
        self.returned: list[Any] = []
        self.asked: list[None] = []
        self.turn = Lock()

    def send(self, item: Any) -> None:
        self.items.append(item)
        self.serve()

    def receive(self) -> Any:
        return Receive(self)

    def serve(self) -> None:
        self.asked.append(None)
        while self.asked and self.turn.acquire(False):
            try:
                self.asked.clear()
                while self.returned:
                    self.items.insert(0, self.returned.pop())
                while self.items and self.queue.grant(self.items[0]):
                    del self.items[0]
            finally:
                self.turn.release()


class Receive(GrantWait):
    __slots__ = ("_pipe",)

    def __init__(self, pipe: Pipe) -> None:
        super().__init__(pipe.queue)
        self._pipe = pipe

    def __next__(self) -> Any:
        if self._state == NEW and self._pipe.returned:  # before what is being sent just now
            with suppress(IndexError):
                raise StopIteration(self._pipe.returned.pop())
        return super().__next__()

    def _look(self) -> None:
        self._pipe.serve()

    def _give_back(self, value: Any) -> None:
        self._pipe.returned.append(value)
        self._pipe.serve()


async def _receive(pipe: Pipe, got: list[Any]) -> None:
    got.append(await pipe.receive())


def _actors(r: Rig, **bodies: Callable[[], object]) -> None:
    for name, body in bodies.items():
        r.actor(name, body)


@pytest.fixture
def purges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_queue, "PURGE_AT_LEAST", 1)


@pytest.mark.usefixtures("purges")
def test_grant_against_cancel() -> None:
    """Each item is received once or is still there, and nobody waits while it is.

    Mutations caught: `_give` does not look at the state after it claimed, or grants to the next though the strand has the
    value; nothing is handed on by a waiter that is abandoned.
    """
    for seed in seeds(400):
        with rig(seed, FOCUS[seed % 4], 2) as r:
            pipe, got = Pipe(), list[Any]()
            tasks = [r.spawn(_receive(pipe, got)) for _ in range(4)]

            begun: list[bool] = []

            def ready(pipe: Pipe = pipe, begun: list[bool] = begun) -> bool:
                if len(pipe.queue._waiting) == 4:
                    begun.append(True)
                return bool(begun)

            def cancel(numbers: tuple[int, ...], r: Rig = r, tasks: Any = tasks, ready: Any = ready) -> None:
                r.schedule.wait(ready)
                for number in numbers:
                    tasks[number].cancel()

            def send(r: Rig = r, pipe: Pipe = pipe, ready: Any = ready) -> None:
                r.schedule.wait(ready)
                pipe.send(0)
                pipe.send(1)

            _actors(
                r,
                sender=send,
                canceller=lambda cancel=cancel: cancel((0, 2)),  # type: ignore[misc]
                other=lambda cancel=cancel: cancel((1,)),  # type: ignore[misc]
            )
            r.run()
            r.expect(sorted(got + pipe.items) == [0, 1] and not pipe.returned, f"{got} {pipe.items}")
            r.expect(tasks[3].done() or not pipe.items, f"{tasks} {pipe.items}")
            r.expect(all(task.done() for task in tasks[:3]) and not pipe.queue._claims, f"{tasks} {pipe.queue._claims}")
            r.check_quiet()


def test_a_value_that_comes_back_is_not_overtaken() -> None:
    """A task that gives up waiting and tries again receives what one sender sends in order.

    Mutations caught: a value that comes back is handed on when the strand runs what the granter posted.
    """
    for seed in seeds(300):
        with rig(seed, FOCUS[seed % 4], 2) as r:
            pipe, got = Pipe(), list[Any]()

            async def consume(pipe: Pipe = pipe, got: list[Any] = got) -> None:
                while len(got) < 4:
                    try:
                        got.append(await pipe.receive())
                    except CancelledError:
                        pass

            task = r.spawn(consume())
            _actors(
                r,
                sender=lambda pipe=pipe: [pipe.send(number) for number in range(4)],  # type: ignore[misc]
                canceller=lambda task=task, r=r: [(task.cancel(), r.pause()) for _ in range(3)],  # type: ignore[misc]
            )
            r.run()
            if got or not task.cancelled():  # else it was cancelled before its first step
                r.expect(got == [0, 1, 2, 3] and task.done(), f"{got} {task}")
            r.check_quiet()


def test_grant_against_grant() -> None:
    """Each of three values that are granted at a time goes to a waiter of its own.

    Mutations caught: `_claims[waiter] = cell` in place of `setdefault`; `grant` takes entries out without having the turn.
    """
    for seed in seeds():
        with rig(seed, FOCUS[seed % 4], 2) as r:
            pipe, got, granted = Pipe(), list[Any](), list[bool]()
            tasks = [r.spawn(_receive(pipe, got)) for _ in range(3)]

            def grant(value: int, r: Rig = r, pipe: Pipe = pipe, granted: Any = granted) -> None:
                r.schedule.wait(lambda: granted or len(pipe.queue._waiting) == 3)
                granted.append(pipe.queue.grant(value))

            for value in range(3):
                r.actor(f"granter{value}", lambda value=value, grant=grant: grant(value))  # type: ignore[misc]
            r.run()
            r.expect(granted == [True] * 3 and sorted(got) == [0, 1, 2], f"{granted} {got} {tasks}")
            r.check_quiet()


def test_grant_against_enrol() -> None:
    """Whoever comes while something is sent sees it, or is seen.

    Mutations caught: `_enrol` looks before it appends; `grant` takes out more than it has seen.
    """
    for seed in seeds():
        with rig(seed, FOCUS[seed % 4], 2) as r:
            pipe, got = Pipe(), list[Any]()
            tasks: list[Any] = []
            for name in range(2):
                r.actor(
                    f"spawner{name}",
                    lambda r=r, pipe=pipe, got=got, t=tasks: [t.append(r.spawn(_receive(pipe, got))) for _ in range(2)],  # type: ignore[misc]
                )
                r.actor(f"sender{name}", lambda pipe=pipe, name=name: [pipe.send((name, n)) for n in range(2)])  # type: ignore[misc]
            r.run()
            r.expect(all(task.done() for task in tasks) and len(set(got)) == 4, f"{got} {tasks} {pipe.items}")
            r.check_quiet()


@pytest.mark.usefixtures("purges")
def test_purge_against_grant() -> None:
    """Who waits patiently is found by who grants, though nobody would look again, whatever is purged meanwhile.

    Mutations caught: a purge takes all out and puts the living back; a purge without the turn; a purge looks at the length
    after it looked who lives.
    """
    for seed in seeds(400):
        with rig(seed, FOCUS[seed % 4], 2) as r:
            pipe, got, granted = Pipe(), list[Any](), list[bool]()
            tasks = [r.spawn(_receive(pipe, got)) for _ in range(6)]
            begun: list[bool] = []

            def ready(pipe: Pipe = pipe, begun: list[bool] = begun) -> bool:
                if len(pipe.queue._waiting) == 6:
                    begun.append(True)
                return bool(begun)

            def grant(r: Rig = r, pipe: Pipe = pipe, granted: Any = granted, ready: Any = ready) -> None:
                r.schedule.wait(ready)
                granted.append(pipe.queue.grant(0))

            def cancel(numbers: range, r: Rig = r, tasks: Any = tasks, ready: Any = ready) -> None:
                r.schedule.wait(ready)
                for number in numbers:
                    tasks[number].cancel()

            late: list[Any] = []

            def come(r: Rig = r, pipe: Pipe = pipe, got: Any = got, late: Any = late, ready: Any = ready) -> None:
                r.schedule.wait(ready)
                late.append(r.spawn(_receive(pipe, got)))

            _actors(
                r,
                granter=grant,
                other=grant,
                canceller=lambda cancel=cancel: cancel(range(2)),  # type: ignore[misc]
                canceller2=lambda cancel=cancel: cancel(range(2, 4)),  # type: ignore[misc]
                comer=come,
            )
            r.run()
            sent = len(got) + len(pipe.items)
            r.expect(granted == [True, True] and sent == 2, f"{granted} {got} {pipe.items}")
            living = [task for task in (*tasks, *late) if not task.done()]
            for _ in living:
                r.expect(pipe.queue.grant(1), f"{living} {pipe.queue._waiting}")
            r.check_quiet() if not living else None


def test_a_claim_granted_from_two_threads() -> None:
    """A select over two pipes and an event gets one of them, and the others keep what they have; a cancel loses nothing.

    Mutations caught: `take` says yes each time; `_abandon` does not take the claim; `_give` claims the branch before it takes
    the claim; `_hand_on` of a claim does nothing; a granted branch doesn't win without `take`.
    """
    for seed in seeds(400):
        with rig(seed, FOCUS[seed % 4], 2) as r:
            pipes, event, got = [Pipe(), Pipe()], sync.Event(), list[Any]()

            async def body(pipes: Any = pipes, event: Any = event, got: Any = got) -> None:
                _, value = await Claim(pipes[0].receive(), pipes[1].receive(), event.wait())
                got.append(value)

            task = r.spawn(body())
            cancels, sets = seed % 2, seed % 3 == 0

            def disturb(r: Rig = r, task: Any = task, event: Any = event, cancels: Any = cancels, sets: Any = sets) -> None:
                r.pause()
                if cancels:
                    task.cancel()
                if sets:
                    event.set()

            _actors(
                r,
                one=lambda r=r, pipe=pipes[0]: (r.pause(), pipe.send(0)),  # type: ignore[misc]
                two=lambda r=r, pipe=pipes[1]: (r.pause(), pipe.send(1)),  # type: ignore[misc]
                disturber=disturb,
            )
            r.run()
            left = pipes[0].items + pipes[1].items
            values = [value for value in got if value is not True]
            r.expect(task.done() and len(got) <= 1, f"{task} {got}")
            r.expect(sorted(left + values) == [0, 1] and len(got) == (not task.cancelled()), f"{got} {left} {task}")
            r.expect(not any(pipe.queue._claims for pipe in pipes), "a claim is left")
            r.check_quiet()


@pytest.mark.usefixtures("purges")
def test_a_finaliser_in_the_middle() -> None:
    """What interrupts a send, a cancel or a purge sends itself, waits for nothing, and loses nothing.

    Mutations caught: `grant` and `abandoned` wait for their turn; a granter that finds the turn taken gives up.
    """
    for seed in seeds(300):
        with rig(seed, FOCUS[1 + seed % 3], 2) as r:
            pipe, got, granted = Pipe(), list[Any](), list[bool]()
            tasks = [r.spawn(_receive(pipe, got)) for _ in range(6)]
            armed: list[int] = []
            point = r.schedule.point

            def interrupted(
                r: Rig = r, pipe: Pipe = pipe, armed: Any = armed, granted: Any = granted, point: Any = point
            ) -> None:
                point()
                if armed and sys._getframe(1).f_code.co_name == "_stepped" and r.rng.random() < 0.1:  # at a line of FOCUS
                    value = armed.pop()
                    granted.append(pipe.queue.grant(value))
                    wait_queue.abandoned(pipe.queue._waiting, 99, pipe.queue._turn)

            r.schedule.point = interrupted  # type: ignore[method-assign]

            def go(r: Rig = r, pipe: Pipe = pipe, armed: Any = armed, granted: Any = granted, tasks: Any = tasks) -> None:
                r.schedule.wait(lambda: len(pipe.queue._waiting) == 6)
                armed.extend((1, 2))
                granted.append(pipe.queue.grant(0))
                for task in tasks[:3]:
                    task.cancel()
                while armed:
                    granted.append(pipe.queue.grant(armed.pop()))

            r.actor("go", go)
            r.run()
            r.expect(granted == [True] * 3 and sorted(got + pipe.items) == [0, 1, 2], f"{granted} {got} {pipe.items}")
