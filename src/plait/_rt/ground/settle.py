"""Settle: bring what belongs to the whole process to what was asked for last, one thread at a time, and nobody waits.

A lock would do, but for finalisers: the garbage collector may run one in the middle, which may end a runtime and wait for its
threads, and these would wait for the lock.

Ownership: `_asked` (list) any thread; what `act` reads and writes, the holder of `_turn`, which is taken without waiting.
    Who changes what is asked for calls, which appends first and tries for the turn after; who has the turn empties `_asked`
    first and looks at what is asked for after; and looks at `_asked` again when it has given the turn back. So the last change
    is seen by somebody, and `act` runs alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Settle:
    """Calls act, which looks at what is asked for, after each change."""

    __slots__ = ("_act", "_asked", "_turn")

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._asked: list[None] = []
        self._turn = threading.Lock()

    def __call__(self) -> None:
        """Something else is asked for; any thread, and finalisers."""
        self._asked.append(None)
        while self._asked and self._turn.acquire(False):
            try:
                self._asked.clear()
                self._act()
            finally:
                self._turn.release()

    def after_fork(self) -> None:
        """In the child: nobody has the turn."""
        self._turn = threading.Lock()
        self()
