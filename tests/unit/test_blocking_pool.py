"""The executor, with finalisers at any line. (Two threads at any two lines: tests/interleave.)"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import pytest
from unit_helpers import LONG, eventually_in_thread

from plait._rt.io import blocking_pool
from plait._rt.io.blocking_pool import Lane


class At:
    """A tracer that calls something at the k-th line that a thread runs in the executor, as the garbage collector may do."""

    def __init__(self, line: int, call: Callable[[], object]) -> None:
        self.left, self._call = line, call

    def __call__(self, frame: Any, event: str, _arg: Any) -> Any:
        if frame.f_code.co_filename != blocking_pool.__file__:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self._call()
        return self


@pytest.mark.parametrize("whose", ["who submits", "the lane"])
def test_a_finaliser_submits_a_call(whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking_pool, "IDLE_SECONDS", 0.002)
    for line in range(1, 200):
        lane, inner = Lane("lane", 2), list[Future[int]]()

        def finaliser(lane: Lane = lane, inner: list[Future[int]] = inner) -> None:
            with suppress(RuntimeError):  # the lane is shut
                inner.append(lane.submit(lambda: 2))

        at = At(line, finaliser)
        outer: list[int] = []

        def submits(lane: Lane = lane, outer: list[int] = outer, at: At = at) -> None:
            sys.settrace(at if whose == "who submits" else None)
            try:
                outer.extend(future.result(LONG) for future in [lane.submit(lambda: 1) for _ in range(3)])
            finally:
                sys.settrace(None)

        threading.settrace(at if whose == "the lane" else None)  # type: ignore[arg-type]
        try:
            thread = threading.Thread(target=submits, daemon=True)
            thread.start()
            thread.join(LONG)
            assert not thread.is_alive(), f"deadlock at line {line}"
        finally:
            threading.settrace(None)  # type: ignore[arg-type]
        assert outer == [1, 1, 1]
        lane.shutdown()
        assert [future.result(LONG) for future in inner] == [2] * len(inner)
        assert not lane._threads
        if at.left > 0:
            break
    assert line > 10


def test_the_cap_holds() -> None:
    lane, let_go, most = Lane("lane", 3), threading.Event(), 0
    futures = [lane.submit(let_go.wait, LONG) for _ in range(10)]
    most = len(lane.threads())
    assert (most, lane.waiting()) == (3, 7)
    let_go.set()
    assert all(future.result(LONG) for future in futures)
    lane.shutdown()


def test_calls_that_were_queued_are_done_or_cancelled_at_the_end() -> None:
    for cancel in (False, True):
        lane, let_go = Lane("lane", 1), threading.Event()
        first, second = lane.submit(let_go.wait, LONG), lane.submit(lambda: 7)
        eventually_in_thread(first.running)
        lane.shutdown(wait=False, cancel_futures=cancel)
        with pytest.raises(RuntimeError, match="after shutdown"):
            lane.submit(int)
        let_go.set()
        assert first.result(LONG)
        assert second.cancelled() if cancel else second.result(LONG) == 7
