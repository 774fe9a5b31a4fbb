"""How a worker tells that nobody has come to know a strand, so that the next task may have it (ADR 3): by its references.

`Worker.start_task` compares `own_refs` with what it counts at the end of a task. How many that are for a strand which only the
worker knows differs between interpreters, and functions; so it is asked of `start_task` itself, once a process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from plait._rt.ground.cpython import _get_running_loop, compiles
from plait._rt.task.current_task import forget
from plait._rt.task.task import Task

if TYPE_CHECKING:
    from plait._rt.sched.worker import Worker

_counted: int | None = None


def own_refs(new_worker: Callable[[], Worker]) -> int:
    """How many references `start_task` finds to a strand that only the worker knows; -1 if that can't be told for sure.

    new_worker makes a worker that the pool doesn't list: nobody else can find the tasks that it starts here, to cancel them.
    Tracers and profilers may add references while they look, so none does; one that comes later makes strands look known,
    which is safe. A compiler may leave out references that an interpreted frame has, which is not.
    """
    global _counted
    if _counted is None:
        tracer, profiler = sys.gettrace(), sys.getprofile()
        sys.settrace(None)
        sys.setprofile(None)
        try:
            _counted = -1 if compiles() else _count(new_worker())
        finally:
            sys.setprofile(profiler)
            sys.settrace(tracer)
    return _counted


class _Seen:
    """Stands for a count that nothing equals, and notes what it is compared with."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, seen: list[int]) -> None:
        self._seen = seen

    def __eq__(self, other: Any) -> bool:
        self._seen.append(other)
        return False


async def _unknown() -> None:
    """A task that doesn't come to know its strand."""


async def _known(held: list[Any]) -> None:
    """One that does, and has somebody else hold it."""
    held.append(_get_running_loop())


def _count(worker: Worker) -> int:
    seen: list[int] = []
    held: list[Any] = []
    worker.own_refs = _Seen(seen)  # type: ignore[assignment]
    for coro in (_unknown(), _known(held)):
        worker.start_task(Task(coro, None, None, Context()))
    worker.own_refs = seen[0]
    told = [_keeps(worker, coro) for coro in (_unknown(), _known(held), _unknown())]
    worker.step_out()
    return worker.own_refs if seen[1] == seen[0] + 1 and told == [True, False, True] else -1


def _keeps(worker: Worker, coro: Any) -> bool:
    """Does worker keep the strand of such a task for the next one?"""
    worker.start_task(Task(coro, None, None, Context()))
    strand, worker.unused = worker.unused, None
    if strand is not None:
        forget(strand)
    return strand is not None
