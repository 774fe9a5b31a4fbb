"""Run queues: what those of processors and of strands with a thread of their own have in common."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

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


class Errand:
    """Queued like a strand, to have something done when a worker comes to it: in `_drain`, after which it is gone."""

    __slots__ = ()

    _next = None  # what a strand has there is a step

    def _end_turn(self) -> bool:
        return False
