"""Garbage collections: which thread collects, when the last ones were, and what set them off.

`gc.callbacks` calls `_note` on the collecting thread, before and after. It writes that thread's entry in `_began`, and appends
to `_last`: one list for all threads, since one of each would stay when its thread has ended. One thread collects at a time.

It is in `gc.callbacks` while a runtime watches: a Ctrl-C that comes in the middle of a collection is lost to a callback, unless
a handler such as `asyncio.Runner`'s takes it. But a free-threaded 3.13 goes through that list without a lock, and crashes where
another thread changes it just then. So there the thread that makes the first loop adds it, once, and nobody takes it out.
"""

from __future__ import annotations

import gc
import threading
from collections import deque
from typing import Any

from plait._rt.ground import forks
from plait._rt.ground.clock import Clock
from plait._rt.ground.cpython import _current_frames, _getframe
from plait._rt.ground.run_queue import items_of
from plait._rt.ground.settle import Settle
from plait.diagnose.capture import FREE_THREADED, Call, calls_from

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
        return calls_from(_getframe(2))
    except ValueError:  # no code runs: the thread, or the interpreter, is about to end
        return []


def loop_is_made() -> None:
    """On the thread that will run it, before the monitor's begins."""
    if FREE_THREADED and _note not in gc.callbacks:
        gc.callbacks.append(_note)


def watch() -> None:
    """Begin to note collections; counted, for several runtimes may do so."""
    _users.append(None)
    forks.in_child(_after_fork)
    _settle()


def unwatch() -> None:
    """The other end of `watch`."""
    _users.pop()
    _settle()


def one_is_under_way() -> bool:
    """Is another thread in the middle of a collection, as far as is noted? Asked on a GIL build, the collector held off."""
    own, code = threading.get_ident(), _note.__code__
    if any(ident != own for ident in list(_began)):
        return True
    return any(frame.f_code is code for ident, frame in _current_frames().items() if ident != own)  # it is about to note


def _after_fork() -> None:
    """In the child: who watched stayed with the parent."""
    _users.clear()
    _began.clear()
    _settle.after_fork()


def _listen() -> None:
    if not _users:  # who is in the middle of one is not heard to end it
        _last.clear()
        _began.clear()
    if FREE_THREADED:
        return
    if _users and _note not in gc.callbacks:
        gc.callbacks.append(_note)
    elif not _users and _note in gc.callbacks:
        gc.callbacks.remove(_note)


_settle = Settle(_listen)


def seconds_since(ident: int, since: float, now: float) -> float:
    """How much of the time from since to now thread ident collected, of what was noted."""
    began, spans = _began.get(ident), [(start, end) for thread, start, end, _ in items_of(_last) if thread == ident]
    if began is not None:
        spans.append((began, now))
    return sum(max(0.0, min(end, now) - max(start, since)) for start, end in spans)


def calls_since(ident: int, since: float) -> list[Call]:
    """What the longest collection since then interrupted, of what was noted. (It may have begun before: the monitor sees a step
    late that keeps the GIL from it.)"""
    own = [span[1:] for span in items_of(_last) if span[0] == ident]
    spans = [(end - max(start, since), calls) for start, end, calls in own if end > since]
    return max(spans, key=lambda span: span[0], default=(0.0, []))[1]
