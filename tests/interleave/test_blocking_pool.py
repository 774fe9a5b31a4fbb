"""Lane: calls against threads that come to rest, end, or can't be started (L1-L3)."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from plait._rt.ground.threads import Thread
from plait._rt.io import blocking_pool
from plait._rt.io.blocking_pool import Lane

from .baton import Lock, Schedule, seeds


@pytest.mark.parametrize("refused", [0.0, 0.5])
def test_every_call_is_run_or_refused(refused: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, while time stands still, and never by more threads than there may be.

    Mutations caught: `submit` looks for a thread before it appends; a thread rests without a second look; it ends without
    one; it looks before it puts its number back; `_leave` does not take the wake that it is owed; who fails to start one looks
    who else is there before it puts its number back.
    """
    for seed in seeds(600):
        schedule = Schedule(seed, ("_rt/io/blocking_pool.py",))

        def start(thread: Thread, schedule: Schedule = schedule) -> None:
            schedule.point()
            if schedule.rng.random() < refused:
                raise RuntimeError("can't start new thread")
            schedule.actor(thread.name, thread.run, True)

        patched = SimpleNamespace(Lock=lambda schedule=schedule: Lock(schedule), current_thread=threading.current_thread)
        futures: list[Future[int]] = []
        raised: list[RuntimeError] = []
        with monkeypatch.context() as patch:
            patch.setattr(Thread, "start", start)
            patch.setattr(blocking_pool, "threading", patched)
            patch.setattr(blocking_pool, "IDLE_SECONDS", 1.0)
            lane, most = Lane("lane", 1 + seed % 2), 1 + seed % 2

            def call(made: float, lane: Lane = lane, most: int = most, schedule: Schedule = schedule) -> int:
                schedule.point()
                assert len(lane.running) <= most
                assert schedule.now == made, "it lay there while everybody slept"
                return 7

            def submit(lane: Any = lane, schedule: Any = schedule, futures: Any = futures, raised: Any = raised) -> None:
                for _ in range(3):
                    if schedule.rng.random() < 0.5:
                        schedule.wait(lambda: False, schedule.rng.choice((0.5, 1.0)))  # when threads give up, too
                    try:
                        futures.append(lane.submit(call, schedule.now))
                    except RuntimeError as error:
                        raised.append(error)

            for name in range(3):
                schedule.actor(f"submitter{name}", submit)
            schedule.run()
        assert all(future.done() for future in futures), f"{futures}\n{schedule.story()}"
        assert len(futures) + len(raised) == 9
        if not refused:
            assert all(future.result() == 7 for future in futures), schedule.story()
        else:
            assert not any(isinstance(future.exception(), AssertionError) for future in futures), schedule.story()
        assert len(lane._free) == most, schedule.story()
