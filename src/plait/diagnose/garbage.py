"""Garbage collections: which thread collects, when the last ones were, and what set them off.

`gc.callbacks` calls `_note` on the collecting thread, before and after. It writes that thread's entry in `_began`, and appends
to `_last`: one list for all threads, since one of each would stay when its thread has ended. One thread collects at a time.

It is called from the import of plait on, and notes nothing while no runtime watches. A free-threaded 3.13 crashes where one
thread changes `gc.callbacks` while another goes through it, and a runtime that begins can't know who collects.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections import deque
from typing import Any

from plait._rt.ground import forks
from plait._rt.ground.clock import Clock
from plait._rt.ground.run_queue import items_of
from plait.diagnose.capture import Call, calls_from

_Span = tuple[int, float, float, list[Call]]  # a collection: its thread, when it began and ended, and in what
_began: dict[int, float] = {}
_last: deque[_Span] = deque(maxlen=128)
_users: list[None] = []


def _note(phase: str, _info: dict[str, Any]) -> None:
    if not (_users or _began):
        return
    ident, now = threading.get_ident(), Clock.monotonic()
    if phase == "start":
        _began[ident] = now
    else:
        began = _began.pop(ident, None)
        if began is not None and now - began > 0.005:
            _last.append((ident, began, now, _calls()))


def _calls() -> list[Call]:
    try:
        return calls_from(sys._getframe(2))
    except ValueError:  # no code runs: the thread, or the interpreter, is about to end
        return []


def watch() -> None:
    """Begin to note collections; counted, for several runtimes may do so."""
    forks.in_child(_after_fork)
    _users.append(None)


def unwatch() -> None:
    """The other end of `watch`."""
    _users.pop()
    if not _users:
        _last.clear()


def _after_fork() -> None:
    """In the child: who watched stayed with the parent."""
    _users.clear()
    _began.clear()


def seconds_since(ident: int, since: float, now: float) -> float:
    """How much of the time from since to now thread ident collected, of what was noted."""
    began, spans = _began.get(ident), [(start, end) for thread, start, end, _ in items_of(_last) if thread == ident]
    if began is not None:
        spans.append((began, now))
    return sum(max(0.0, min(end, now) - max(start, since)) for start, end in spans)


def calls_since(ident: int, since: float) -> list[Call]:
    """What the longest collection since then interrupted, of what was noted."""
    spans = [(end - start, calls) for thread, start, end, calls in items_of(_last) if thread == ident and start >= since]
    return max(spans, key=lambda span: span[0], default=(0.0, []))[1]


gc.callbacks.append(_note)
