"""What the calling thread is: the worker of a pool, the thread of a main strand, or neither."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait._rt.sched.worker import Worker
    from plait._rt.strand.thread_strand import ThreadStrand
    from plait._rt.task.cancel import Cancellation


def nothing() -> None:
    """What a weak reference to nothing would be."""


class _Here(threading.local):
    worker: Worker | None = None
    main: Callable[[], ThreadStrand | None] = staticmethod(nothing)
    """The main strand that this thread ran last, or made and didn't run yet, if it is still there: a weak reference."""
    delivering: Cancellation | None = None
    """The cancel from another strand that this thread delivers just now."""


here = _Here()
