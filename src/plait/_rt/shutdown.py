"""Shutdown: the tasks of a run that ends are cancelled and waited for, but not for those that are stuck in a step for long.

Ownership: a `Stuck` is the strand's that asks it; `_Cancels` runs in the strand of its tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from plait._rt.asyncio_face.loop import logger
from plait._rt.ground.clock import Clock
from plait._rt.strand.strand import Strand
from plait._rt.task.registry import registered_tasks, unlisted_tasks
from plait._rt.task.task import Task
from plait._rt.watch.turn_watch import Watch, follow

if TYPE_CHECKING:
    from plait._rt.pool import Pool


async def ended(tasks: set[Any], pool: Pool) -> set[Any]:
    """Wait for tasks of any strands; those that have ended when the others are stuck for long, which are named."""
    stuck, over = Stuck(pool), set()
    while tasks:
        done, tasks = await asyncio.wait(tasks, timeout=0.25)
        over |= done
        if tasks and stuck.have(tasks):
            break
    return over


async def cancel_pool(pool: Pool) -> set[Strand]:
    """Cancel every task of the pool's strands and wait until they are done, or stuck for long; returns the stuck strands."""
    stuck = Stuck(pool)
    cancelled: set[Any] = set()
    looks, unlisted = 0, _of_pool(unlisted_tasks(), pool)
    while True:
        listed = [*pool.all_tasks(), *_of_pool(registered_tasks(), pool)]
        pending: list[Any] = [task for task in (*listed, *unlisted) if not task.done()]
        if not pending:
            looks += 1
            if not pool.is_quiet() and looks <= 20:
                await asyncio.sleep(0.001)  # a task may have been on its way from one queue to another
                continue
            unlisted = _of_pool(unlisted_tasks(), pool)
            if not unlisted:
                return set()
            continue
        looks = 0
        ours: list[Any] = [task for task in pending if isinstance(task, Task)]
        _cancel_in_their_strands([task for task in pending if task not in cancelled])
        cancelled.update(pending)
        if len(ours) < len(pending):
            await asyncio.sleep(0.005)
        else:
            await asyncio.wait(ours, timeout=0.25)
        still = [task for task in pending if not task.done()]
        if stuck.have(still):
            return stuck.strands()


def _cancel_in_their_strands(tasks: list[Any]) -> None:
    """Cancel those of one strand at one moment, as asyncio does at its end: no task sees another's cancel before its own."""
    in_strand: dict[Any, list[Any]] = {}
    for task in tasks:
        strand = _home(task)
        if strand is None:
            task.cancel()  # not started
        else:
            in_strand.setdefault(strand, []).append(task)
    for strand, its_tasks in in_strand.items():
        strand._post(_Cancels(its_tasks))


class _Cancels:
    """The cancels of a strand's tasks, on their way to it."""

    def __init__(self, tasks: list[Any]) -> None:
        self._tasks = tasks

    def _run(self) -> None:
        for task in self._tasks:
            try:
                task.cancel()
            except Exception as error:  # foreign code: the others are cancelled all the same
                message = f"Exception in callback: {task!r} can't be cancelled"
                _home(task).call_exception_handler({"message": message, "exception": error, "task": task})


class Stuck:
    """Which threads have been in one turn since shutdown began to watch them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._watches: dict[Any, Watch] = {}

    def have(self, tasks: Collection[Any]) -> bool:
        """Are all of these in strands that are stuck? Then they are named. (To be asked again and again.)"""
        strands = self.strands()
        if not tasks or not all(_home(task) in strands for task in tasks):
            return False
        grace = self._pool.options.shutdown_grace
        logger.error("shutdown gives up on %d task(s) stuck in a step for %g s: %r", len(tasks), grace, list(tasks))
        return True

    def strands(self) -> set[Strand]:
        """Whose turn has lasted longer than the run's grace. (To be asked again and again.)"""
        now = Clock.monotonic()
        self._watches = follow(self._watches, self._pool, now)
        return {watch.strand for watch in self._watches.values() if now - watch.since >= self._pool.options.shutdown_grace}


def _home(task: Any) -> Any:
    return task._home if isinstance(task, Task) else task.get_loop()


def _of_pool(tasks: list[Any], pool: Pool) -> list[Any]:
    """Those of pool's strands that are not done, but not the main strand's."""
    homes = [(task, _home(task)) for task in tasks if not task.done()]
    return [task for task, home in homes if isinstance(home, Strand) and home._pool is pool and home is not pool.main]
