"""Turns: posting against the end of a turn (S1, S2, S4)."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from .baton import seeds
from .rig import SCHEDULING, Item, rig

FOCUS = (SCHEDULING, ("_rt/strand/strand.py",), ("_rt/strand/strand.py",))


@pytest.mark.parametrize("workers", [1, 2])
def test_post_against_end_of_turn(workers: int) -> None:
    """Nothing is lost, nothing runs twice, one holder at a time, each poster's items in order.

    Mutations caught: `_end_turn` puts IDLE in without looking after it; `_post` looks for IDLE before it appends; `_post`
    schedules without removing IDLE.
    """
    for seed in seeds():
        with rig(seed, FOCUS[seed % 3], workers) as r:
            strand = r.strand()
            log: list[str] = []

            def post(poster: int, r: Any = r, strand: Any = strand, log: Any = log) -> None:
                for number in range(4):
                    r.pause()
                    strand._post(Item(r, strand, f"{poster}.{number}", log))

            for poster in range(3):
                r.actor(f"poster{poster}", lambda poster=poster: post(poster))  # type: ignore[misc]
            r.run()
            counts = Counter(log)
            r.expect(len(log) == 12 and set(counts.values()) == {1}, f"ran {log}")
            for poster in range(3):
                mine = [name for name in log if name.startswith(f"{poster}.")]
                r.expect(mine == sorted(mine), f"out of order: {log}")
            r.check_quiet(strand)


def test_a_finaliser_between_two_turns() -> None:
    """The collector runs it on a worker, before, in the middle of and after the strand's turns: it wakes a task of the strand,
    or cancels it, as if it were in it, where the running loop says so.

    Mutations caught: `call_soon` doesn't look for IDLE; `_is_here` doesn't ask what the worker runs.
    """
    for seed in seeds():
        with rig(seed, SCHEDULING, 1) as r:
            strand, at = r.strand(), r.rng.randrange(400)
            future: asyncio.Future[None] = asyncio.Future(loop=strand)
            ends, collected, cancels = [], [], seed % 2  # type: ignore[var-annotated]

            async def waits(future: Any = future, ends: Any = ends) -> None:
                with suppress(asyncio.CancelledError):
                    await future
                ends.append(None)

            def collect(
                r: Any = r, strand: Any = strand, at: int = at, future: Any = future, collected: Any = collected
            ) -> None:
                if r.schedule.points < at or collected or not threading.current_thread().name.startswith("actor-worker"):
                    return
                collected.append(None)
                if cancels:
                    task.cancel()
                elif asyncio._get_running_loop() is strand:
                    future.set_result(None)
                else:
                    strand.call_soon_threadsafe(future.set_result, None)

            def wake(r: Any = r, strand: Any = strand, collected: Any = collected) -> None:
                while not collected:
                    strand.call_soon_threadsafe(list)
                    r.schedule.wait(lambda: False, 0.01)

            r.schedule.coin, r.schedule.falls, r.schedule.always = 1.0, None, collect
            task = r.spawn(waits(), strand)
            r.actor("waker", wake)
            r.run()
            r.expect(task.done() and (ends or cancels), f"{task!r} waits")
            r.check_quiet(strand)
