"""What all schedules run on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    """One actor runs at a time. On one core the next is there at once; another core may have to be woken first, which made the
    whole five times slower."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[os.getpid() % len(cores)]})  # the threads of the test inherit it
    yield
    os.sched_setaffinity(0, cores)
