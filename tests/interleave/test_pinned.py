"""A pinned strand: posts, timers, its last reference and its end, on other threads, against the sleep of its thread (N1-N3)."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from plait._rt.strand import pinned, thread_strand
from plait._rt.strand.pinned import PinnedStrand

from .baton import seeds
from .rig import Item, Rig, rig

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()
FILES = ("_rt/strand/pinned.py", "_rt/strand/thread_strand.py", "_rt/io/timers.py")


def _patch(r: Rig, patch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: r.schedule.now)
    patch.setattr(thread_strand, "Clock", clock)
    patch.setattr(pinned, "Clock", clock)
    set_up = PinnedStrand.set_up

    def set_up_scheduled(strand: PinnedStrand, pool: Any, name: str | None) -> Any:
        set_up(strand, pool, name)
        r._schedule_polls(strand._poller)
        return strand

    patch.setattr(PinnedStrand, "set_up", set_up_scheduled)


@pytest.mark.parametrize("end", ["kept", "dropped", "stopped"])
def test_posts_against_the_sleep_without_the_strand(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is posted is run, in order and in time; a timer too; and the thread ends when the strand is dropped or stopped.

    Mutations caught: `_park` looks before it announces; `_ring` puts the strand into `held` after it woke.
    """
    for seed in seeds(300):
        with rig(seed, FILES[: 1 + seed % 3]) as r, monkeypatch.context() as patch:
            _patch(r, patch)
            log: list[str] = []
            box: list[Any] = []
            seat: list[Any] = []

            def post(name: str, r: Any = r, log: Any = log, box: Any = box) -> None:
                r.schedule.wait(lambda: box)
                strand = box.pop()
                for number in range(3):
                    r.pause()
                    if number == 1:
                        strand.call_soon_threadsafe(_set_timer, strand, r.schedule.now + 0.1, log, name)
                    strand._post(Item(r, strand, f"{name}{number}", log))

            def own(r: Any = r, box: Any = box, seat: Any = seat, log: Any = log) -> None:
                strand = PinnedStrand.start(r.pool, None)
                seat.append(strand.carrier)
                box += [strand, strand]
                if end == "kept":
                    seat.append(strand)
                if end == "stopped":
                    r.schedule.wait(lambda: len(log) == 8)
                    r.pause()
                    strand.stop_thread()

            def look(r: Any = r, log: Any = log, seat: Any = seat) -> None:
                r.schedule.wait(lambda: len(log) == 8, 50.0)
                for _ in range(50):
                    if FREE_THREADED and end == "dropped" and not seat[0].ended.done():
                        time.sleep(0.01)  # the threads that made and used the strand end outside of the schedule
                    r.schedule.wait(lambda: False, 1.0)
                r.expect(seat[0].ended.done() == (end != "kept"), f"the thread after {log}")
                r.expect(not seat[0].held, "the thread keeps the strand")
                r.expect(end != "kept" or (not seat[1]._ready and seat[1]._parked), "the thread doesn't sleep")

            r.actor("owner", own)
            r.actor("checker", look)
            for name in "ab":
                r.actor(name, lambda name=name, post=post: post(name))  # type: ignore[misc]
            r.run()
            for name in "ab":
                mine = [entry for entry in log if entry[0] == name and entry[1] != "t"]
                r.expect(mine == sorted(mine) and len(mine) == 3, f"{log}")
                r.expect(f"{name}t" in log, f"a timer is lost: {log}")


def _set_timer(strand: Any, when: float, log: list[str], name: str) -> None:
    strand.call_at(when, log.append, f"{name}t")
