"""Which task runs in a strand, as `asyncio.current_task()` sees it.

Up to CPython 3.13 asyncio keeps one dict from loop to current task for the whole process. Two workers that write it at
every step fight over it, so a strand's entry stays where it is between two steps of one task, and is taken away
before a callback or another task of that strand runs (an entry left in place would show callbacks a current task, and a
C Task entered under it dies with "Cannot enter into task"). From 3.14 on the current task is the thread's: it is written each
step and costs no sharing.

Invariants
    M1  Up to 3.13, `_current_tasks[strand] is strand._current`, or both are absent (None). Only the holder of the strand's
        turn calls `set_current` and `clear_current`. `strand._current` stays None from 3.14 on.
    M2  The strand that a worker keeps for the next task that it starts has an entry with None, which costs less than to take
        it out and put it in again. `forget` takes it out.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait._rt.strand.strand import Strand

if sys.version_info >= (3, 14):
    from plait._rt.ground.cpython import _swap_current_task

    CURRENT_STAYS = False
    current_tasks: dict[Any, Any] = {}

    def set_current(strand: Strand, task: Any) -> None:
        """Make task the current one of this thread, which runs strand."""
        _swap_current_task(strand, task)

    def clear_current(strand: Strand) -> None:
        """Leave this thread, which runs strand, without a current task."""
        try:
            _swap_current_task(strand, None)
        except RuntimeError:  # a fork's child on its way out of its parent's loop, which asyncio forgot for it
            pass

    def forget(strand: Strand) -> None:
        """Take out what M2 leaves: nothing."""

else:
    from plait._rt.ground.cpython import _current_tasks

    CURRENT_STAYS = True
    current_tasks = _current_tasks

    def set_current(strand: Strand, task: Any) -> None:
        """Make task the current one of strand."""
        current_tasks[strand] = strand._current = task

    def clear_current(strand: Strand) -> None:
        """Leave strand without a current task."""
        strand._current = None
        current_tasks.pop(strand, None)

    def forget(strand: Strand) -> None:
        """Take out the entry that M2 leaves."""
        current_tasks.pop(strand, None)
