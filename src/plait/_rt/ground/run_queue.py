"""Run queues: what those of processors and of strands with a thread of their own have in common."""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

T = TypeVar("T")

BATCH = 61  # turns between two looks at injector, timers and poller (Go's and tokio's number: prime, so nothing locks step)


def items_of(queue: deque[T]) -> list[T]:
    """What is in a queue that other threads change meanwhile: roughly, one that moves may be missed or be there twice.

    (By index: on a free-threaded build iterating or copying a deque raises when another thread changes it.)
    """
    items = []
    for index in range(len(queue)):
        try:
            items.append(queue[index])
        except IndexError:
            break
    return items


class RunItem:
    """What stands in a run queue: a strand whose turn the queue has, a task that has yet to get one, or something else that is
    to be done when a worker comes to it."""

    __slots__ = ()

    _next: Any = None  # a strand's next step, if that is all it has to do: the worker makes it without a `_take_turn`

    def _take_turn(self, worker: Any) -> None:
        """Do it, on worker's thread; afterwards it is in no queue, unless it queued itself again."""
        raise NotImplementedError


class Mark:
    """Stands in a strand's queue, and does nothing when it is run."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def _run(self) -> None:
        pass

    def __repr__(self) -> str:
        return self._what


IDLE = Mark("IDLE")
"""At the front of a pooled strand's queue: nobody runs the strand (strand.py)."""
