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
def held_off() -> Iterator[bool]:
    """No collection begins by itself meanwhile; False if another thread holds it off.

    (A `gc.disable()` or `gc.enable()` of the program's in these microseconds can't be told from ours, and is undone.)
    """
    global _was_on
    forks.in_child(_after_fork)
    if not _holding.acquire(False):
        yield False
        return
    try:
        _was_on = gc.isenabled()
        gc.disable()
        yield True
    finally:
        _turn_on()
        _holding.release()


def _turn_on() -> None:
    global _was_on
    if _was_on:
        _was_on = False
        gc.enable()


def _after_fork() -> None:
    """In the child: who held it off stayed with the parent."""
    global _holding
    if _holding.locked():
        _turn_on()
    _holding = threading.Lock()
