"""Teller: a thread that lives while there are stalls to tell of. It does what takes too long for the monitor, which has others
to see to: the source, the advice, log handlers, `on_stall`.

Ownership: `_to_tell` and `_thread` change under `_lock`; nothing of the user's runs under it.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections import deque
from collections.abc import Callable

from plait._rt.ground.threads import Thread
from plait.diagnose.advice import advise
from plait.diagnose.capture import FREE_THREADED, Frame
from plait.diagnose.logger import kept_logger
from plait.diagnose.source import wait_for_trees
from plait.diagnose.stall import Stall
from plait.diagnose.step import call_of

logger = kept_logger("plait.stalls")
kept_logger("plait")

PATIENCE = 0.5  # seconds that a report waits for a collection to end, to name the call that it is in
TELLING = 2.0  # seconds that the end of the run waits for slow log handlers and `on_stall`


class Teller:
    """One runtime's."""

    def __init__(self, on_stall: Callable[[Stall], object] | None) -> None:
        self.on_stall = on_stall
        self._json = os.environ.get("PLAIT_STALLS") == "json"
        self._lock = threading.Lock()
        self._to_tell: deque[tuple[Stall, Frame | None, int]] = deque()
        self._thread: threading.Thread | None = None

    def say(self, stall: Stall, at: Frame | None, level: int) -> None:
        """Have it told: stall, at that frame of its stack."""
        with self._lock:
            self._to_tell.append((stall, at, level))
            thread = None
            if self._thread is None:
                thread = self._thread = Thread("plait-reports", self._tell)
        if thread is not None:
            try:
                thread.start()
            except RuntimeError:  # the system gives no more threads: on the monitor's, which has no time to wait
                self._tell(0.0)

    def finish(self) -> None:
        """Wait until all is told, but not for ever."""
        thread = self._thread
        if thread is not None:
            thread.join(TELLING)

    def _tell(self, patience: float = PATIENCE) -> None:
        while True:
            with self._lock:
                if not self._to_tell:
                    self._thread = None
                    return
                stall, at, level = self._to_tell.popleft()
            try:
                wait_for_trees(patience)
                self._tell_one(stall, at, level)
            except Exception:
                logger.exception("plait failed to report a stall")

    def _tell_one(self, stall: Stall, at: Frame | None, level: int) -> None:
        call = stall.call or (call_of(stall.stack, at, stall.kind, stall.detail) if at is not None else None)
        stall = dataclasses.replace(stall, call=call, advice=advise(stall.stack, call, stall.kind, FREE_THREADED))
        logger.log(level, "%s", stall.as_json() if self._json else stall)
        if self.on_stall is not None:
            try:
                self.on_stall(stall)
            except Exception:
                logger.exception("on_stall raised")
