"""Threads: the one place where plait makes its own.

All are daemons: the interpreter's end waits for none, and each runtime ends its own. A scheduler is driven without threads, or
with few, by another method in the place of `Thread.start`, which has `run()` called, or raises what the system raises where it
gives no thread: RuntimeError. Who starts one undoes then what was done for it, and goes on without, or says so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from plait._rt.ground.cpython import not_waited_for

MORE_THREADS = "raise what limits this process's threads (ulimit -u, or pids.max of its cgroup)"


class Thread(threading.Thread):
    """One that will call target(*args). Where `waited_for` is False, `start` returns before it has begun."""

    def __init__(self, name: str, target: Callable[..., object], *args: Any, waited_for: bool = True) -> None:
        super().__init__(target=target, args=args, name=name, daemon=True)
        if not waited_for:
            not_waited_for(self)


def no_thread(what: str, error: object) -> str:
    """What to say of it: what for there is none."""
    return f"the system gives no thread for {what} ({error}): {MORE_THREADS}"
