"""The main strand: posts and timers from other threads against its sleep (ThreadStrand)."""

from __future__ import annotations

from asyncio.events import _set_running_loop
from typing import Any

import pytest

from plait._rt.strand import thread_strand

from .baton import seeds
from .rig import Item, rig

FILES = ("_rt/strand/thread_strand.py", "_rt/io/timers.py", "_rt/io/poller.py")


def test_post_against_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is posted from other threads is run once and in order, what is timed is run in time, and no sleep goes on past it.

    Mutations caught: `_look` announces after it looked; `_post` looks before it appends; `_ring` clears `_parked`
    after it woke.
    """
    for seed in seeds(300):
        with rig(seed, FILES if seed % 3 == 0 else FILES[:1]) as r, monkeypatch.context() as patch:
            patch.setattr(thread_strand, "Clock", type("clock", (), {"monotonic": staticmethod(lambda r=r: r.schedule.now)}))
            main, log = r.main, []  # type: ignore[var-annotated]

            def post(name: str, r: Any = r, main: Any = main, log: Any = log) -> None:
                for number in range(3):
                    r.pause()
                    if r.rng.random() < 0.3:
                        main.call_soon_threadsafe(main.call_at, r.schedule.now + 0.1, lambda: None)
                    main._post(Item(r, main, f"{name}{number} {r.schedule.now}", log))

            def serve(main: Any = main) -> None:
                _set_running_loop(main)
                main._run_until_stopped()

            for name in "ab":
                r.actor(name, lambda name=name, post=post: post(name))  # type: ignore[misc]
            r.actor("main", serve, daemon=True)
            r.run()
            for name in "ab":
                mine = [entry for entry in log if entry[0] == name]
                r.expect(mine == sorted(mine) and len(mine) == 3, f"{log}")
            r.expect(not main._ready, f"left: {main._ready}")
