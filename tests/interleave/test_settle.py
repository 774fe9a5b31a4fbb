"""Settle: changes on several threads, and the one that acts on them."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from plait._rt.ground import settle
from plait._rt.ground.settle import Settle

from .baton import Lock, Schedule, seeds


def test_the_last_change_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """By one thread at a time.

    Mutations caught: who has the turn empties what was asked after it looked; it doesn't look again when it has given the turn
    back; who comes tries for the turn before it has asked.
    """
    for seed in seeds():
        schedule = Schedule(seed, ("_rt/ground/settle.py",))
        wanted, done, acting = [0], [0], []  # type: ignore[var-annotated]
        with monkeypatch.context() as patch:
            patch.setattr(settle, "threading", SimpleNamespace(Lock=lambda schedule=schedule: Lock(schedule)))

            def act(schedule: Any = schedule, wanted: Any = wanted, done: Any = done, acting: Any = acting) -> None:
                assert not acting
                acting.append(1)
                now = wanted[0]
                schedule.point()
                done[0] = now
                acting.pop()

            made = Settle(act)

            def change(made: Settle = made, wanted: Any = wanted) -> None:
                for _ in range(3):
                    wanted[0] += 1
                    made()

            for name in range(3):
                schedule.actor(f"changes{name}", change)
            schedule.run()
        assert done == wanted, f"{done} {wanted}\n{schedule.story()}"


def test_a_finaliser_changes_it_too_and_waits_for_a_thread_that_does() -> None:
    """In the middle of a change: nobody waits, and what was asked for last is done in the end."""
    wanted: list[int] = []
    seen: list[int] = []

    def finaliser() -> None:
        thread = threading.Thread(target=made)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        made()

    def act() -> None:
        seen.append(len(wanted))
        if len(wanted) == 1:
            wanted.append(2)
            finaliser()

    made = Settle(act)
    wanted.append(1)
    made()
    assert seen == [1, 2]
