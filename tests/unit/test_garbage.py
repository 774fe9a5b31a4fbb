"""What the stall reports know of garbage collections (diagnose/garbage.py)."""

from __future__ import annotations

import gc
import sys
import threading
import time

from unit_helpers import LONG, eventually_in_thread

from plait._rt.ground import switch_interval
from plait.diagnose import garbage
from plait.diagnose.capture import FREE_THREADED


def collect(all_there: threading.Barrier) -> None:
    """As the garbage collector calls it, on this thread."""
    garbage._note("start", {})
    time.sleep(0.01)
    garbage._note("stop", {})
    all_there.wait()  # an identity is free for the next thread only when all have one


def test_threads_that_end_leave_nothing_for_good() -> None:
    garbage.watch()
    try:
        all_there = threading.Barrier(300)
        threads = [threading.Thread(target=collect, args=(all_there,)) for _ in range(300)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        eventually_in_thread(lambda: not garbage._began)  # another thread may be collecting
        assert len(garbage._last) <= 128
    finally:
        garbage.unwatch()


def test_a_threads_collections_are_its_own() -> None:
    garbage.watch()
    try:
        since, ident = time.monotonic(), threading.get_ident()
        collect(threading.Barrier(1))
        now = time.monotonic()
        assert 0.01 <= garbage.seconds_since(ident, since, now) <= now - since
        assert garbage.seconds_since(ident + 1, since, now) == 0
        assert garbage.seconds_since(ident, now, now + 1) == 0
        assert any(code.co_name == "collect" for code, _ in garbage.calls_since(ident, since))
        assert garbage.calls_since(ident + 1, since) == []
    finally:
        garbage.unwatch()


def test_a_finaliser_ends_another_runtime_in_the_middle() -> None:
    """A monitor lowers the switch interval; a finaliser that runs there waits for another runtime's monitor, which ends."""
    ended: list[bool] = []

    def finaliser() -> None:
        if not ended:
            ended.append(False)
            other = threading.Thread(target=switch_interval.put_back, args=("other",), daemon=True)
            other.start()
            other.join(LONG)
            ended[0] = not other.is_alive()

    switch_interval.lower("other")
    sys.settrace(lambda frame, *_: finaliser() if frame.f_code.co_name == "_set" else None)  # type: ignore[arg-type, func-returns-value]
    try:
        switch_interval.lower("one")
    finally:
        sys.settrace(None)
    assert ended == [True]
    switch_interval.put_back("one")
    assert sys.getswitchinterval() > 2 * switch_interval.LOW


def test_nobody_changes_the_collectors_callbacks_while_another_thread_may_collect() -> None:
    """(A free-threaded 3.13 crashes if it goes through them just then.) Elsewhere they are ours while somebody watches: who
    interrupts a program in the middle of one would not be heard."""
    garbage.loop_is_made()
    before = list(gc.callbacks)
    assert (garbage._note in before) is FREE_THREADED
    garbage.watch()
    assert garbage._note in gc.callbacks
    assert FREE_THREADED is (gc.callbacks == before)
    garbage.unwatch()
    assert gc.callbacks == before


def test_who_collects_while_nobody_watches_is_not_noted() -> None:
    assert not garbage._users
    collect(threading.Barrier(1))
    assert not garbage._began and not garbage._last


def test_a_collection_that_goes_on_when_the_last_one_stops_watching_is_forgotten() -> None:
    """Nobody would be told of its end, and the next runtime take it for one that lasts."""
    garbage.watch()
    garbage._note("start", {})
    garbage.unwatch()
    assert not garbage._began
