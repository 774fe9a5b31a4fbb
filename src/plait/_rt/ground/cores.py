"""Cores that this process may run on."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """How many: those it is bound to, where a process can be bound."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
