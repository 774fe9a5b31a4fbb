"""Forks: what is put right in the child of a fork, where no thread is left but the one that forked.

Who has state that the child must not share (a lock that another thread may hold, a descriptor that is written to, something of
the process's that was changed for a while) says so when it comes to be: `in_child(call)`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

_calls: dict[Callable[[], None], None] = {}


def in_child(call: Callable[[], None]) -> None:
    """Have call() called in each child from now on; once is enough. From any thread."""
    if call not in _calls:
        _calls[call] = None
        _watch()


@functools.cache
def _watch() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_run)


def _run() -> None:
    for call in list(_calls):
        call()
