"""Garbage collections: which thread collects, and when the last ones were.

`gc.callbacks` calls `_note` on the collecting thread, before and after. It writes only the entries of that thread.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import deque
from typing import Any

from plait._rt.processor import items_of

_began: dict[int, float] = {}
_last: dict[int, deque[tuple[float, float]]] = {}  # thread -> when its last collections began and ended
_NONE: deque[tuple[float, float]] = deque()
_users = 0
_lock = threading.Lock()


def _note(phase: str, _info: dict[str, Any]) -> None:
    ident, now = threading.get_ident(), time.monotonic()
    if phase == "start":
        _began[ident] = now
    else:
        began = _began.pop(ident, None)
        if began is not None and now - began > 0.005:
            _last.setdefault(ident, deque(maxlen=32)).append((began, now))


def watch() -> None:
    """Begin to note collections; counted, for several runtimes may do so."""
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            gc.callbacks.append(_note)


def unwatch() -> None:
    """The other end of `watch`."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            gc.callbacks.remove(_note)
            _last.clear()


def seconds_since(ident: int, since: float, now: float) -> float:
    """How much of the time from since to now thread ident collected, of what was noted."""
    began, spans = _began.get(ident), items_of(_last.get(ident, _NONE))
    if began is not None:
        spans.append((began, now))
    return sum(max(0.0, min(end, now) - max(start, since)) for start, end in spans)
