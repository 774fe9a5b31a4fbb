"""How a strand of the user's ends (`Strand.aclose`): its tasks are cancelled, in it, at one moment, and waited for.

As at the end of a run, but for one strand. While it closes, its own tasks may still start others, which are cancelled as well;
others are refused (`Strand._start`). At the end the class changes, so that nobody has to ask whether a strand that
lives is closed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from plait._rt.asyncio_face import asyncgens
from plait._rt.strand.strand import Strand


class ClosedStrand(Strand):
    """A pooled strand after `aclose`."""

    __slots__ = ()

    _closed = True  # type: ignore[assignment]

    def _check_closed(self) -> None:
        self._pool.check_open()
        raise RuntimeError(f"{self!r} is closed")


async def empty(strand: Strand) -> None:
    """End what strand, where this runs, has: its tasks, async generators and transports."""
    closer, cancelled = asyncio.current_task(), set[Any]()
    while True:
        somebody_comes = bool(strand.__dict__.get("_coming"))  # first
        tasks = _tasks_of(strand) - {closer}
        if not tasks and not somebody_comes:
            break
        for task in tasks - cancelled:
            task.cancel()
        cancelled |= tasks
        await (asyncio.wait(tasks) if tasks else asyncio.sleep(0))
    for generator, home in asyncgens.of_pool(strand._pool):
        if home is strand:
            await _close_generator(strand, generator)
    for transport in list(strand.__dict__.get("_transports", {}).values()):
        transport.abort()
    await asyncio.sleep(0)  # they tell their protocols


def _tasks_of(strand: Strand) -> set[Any]:
    spawned = {task for task in list(strand._pool.tasks) if task._home is strand and not task.done()}
    return spawned | asyncio.all_tasks(strand)


async def _close_generator(strand: Strand, generator: Any) -> None:
    try:
        await generator.aclose()
    except Exception as error:
        message = f"an error occurred during closing of asynchronous generator {generator!r}"
        strand.call_exception_handler({"message": message, "exception": error, "asyncgen": generator})
