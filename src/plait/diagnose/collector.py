"""The garbage collector, held off for a moment: by one thread at a time, so that who turns it on again is who turned it off.

On a GIL build, while it is off, nothing that allocates in C lets go of the GIL in a finaliser or a callback of the collector's.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from plait._rt.ground import forks

_holding = threading.Lock()
_was_on = False  # when the one who holds it off began; that one's own


@contextmanager
def held_off(timeout: float = 0.0) -> Iterator[bool]:
    """No collection begins by itself meanwhile. False if another thread holds it off for longer than timeout, in seconds."""
    global _was_on
    if not _holding.acquire(timeout=timeout):
        yield False
        return
    forks.in_child(_after_fork)
    _was_on = gc.isenabled()
    gc.disable()
    try:
        yield True
    finally:
        _turn_on()
        _holding.release()


def one_is_under_way() -> bool:
    """Is another thread in the middle of a collection? (While it is, a collection that is asked for does nothing.)"""
    before = gc.get_stats()[0]["collections"]
    gc.collect(0)
    return bool(gc.get_stats()[0]["collections"] == before)


def _turn_on() -> None:
    if _was_on:
        gc.enable()


def _after_fork() -> None:
    """In the child: who held it off stayed with the parent."""
    global _holding
    if _holding.locked():
        _turn_on()
    _holding = threading.Lock()
