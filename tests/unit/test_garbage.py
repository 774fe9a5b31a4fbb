"""What the stall reports know of garbage collections (diagnose/garbage.py)."""

from __future__ import annotations

import gc
import sys
import threading
import time

import pytest
from unit_helpers import LONG, eventually_in_thread

from plait._rt import interval
from plait.diagnose import garbage


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


@pytest.mark.parametrize("of", ["interval", "garbage"])
def test_a_finaliser_ends_another_runtime_in_the_middle(of: str) -> None:
    """A monitor begins; a finaliser that runs there waits for another runtime's monitor, which ends."""
    ended: list[bool] = []

    def finaliser() -> None:
        if not ended:
            ended.append(False)
            other = threading.Thread(target=lambda: (interval.put_back("other"), garbage.unwatch()), daemon=True)
            other.start()
            other.join(LONG)
            ended[0] = not other.is_alive()

    interval.lower("other")
    garbage.watch()
    begins = {"interval": lambda: interval.lower("one"), "garbage": garbage.watch}[of]
    sys.settrace(lambda frame, *_: finaliser() if frame.f_code.co_name in ("_set", "_listen") else None)  # type: ignore[arg-type, func-returns-value]
    try:
        begins()
    finally:
        sys.settrace(None)
    assert ended == [True]
    assert (garbage._note in gc.callbacks) == (of == "garbage")
    interval.put_back("one")
    if of == "garbage":
        garbage.unwatch()
    assert garbage._note not in gc.callbacks
    assert sys.getswitchinterval() > 2 * interval.LOW
