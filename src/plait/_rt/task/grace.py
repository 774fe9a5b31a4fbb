"""Grace: how long a wait that was cancelled waits for a task of another strand to take the cancel.

A cancel of a task goes on to the task that it waits for, whose end then ends the wait, as in asyncio: that may clean up, or
swallow the cancel and return a result. But in another strand it may be in a step that doesn't end (it blocks, or computes), or
in the queue of a strand that nobody gets to. A time-out must bound the waiting all the same. So who waits looks, after
`GRACE_SECONDS`, whether the cancel was taken; if it wasn't, and not just because others come first, it stops waiting.

Ownership: all of it belongs to the loop of who waits, but for what is asked of the pool, which is a hint: a strand counts as
stuck if two looks, both later than the cancel, meet it in the same turn; the cancel, which is queued, would be in the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait._rt.task.cancel import Cancellation

logger = logging.getLogger("plait")

GRACE_SECONDS = 0.05
LONGEST = 1.0  # seconds between two looks, where a strand is only late

_Turns = dict[Any, tuple[Any, int]]  # by carrier


class Grace:
    """The looks after one cancel, in the loop of who waits for its task.

    `give_up` ends the wait and returns True; or False, as it is to go on; or None, as nobody waits any more.
    """

    __slots__ = ("_cancellation", "_give_up", "_loop", "_passed", "_seen")

    def __init__(
        self, cancellation: Cancellation, loop: Any, give_up: Callable[[], bool | None], seconds: float | None = None
    ) -> None:
        self._cancellation, self._loop, self._give_up = cancellation, loop, give_up
        self._seen: _Turns = {}
        self._passed = (GRACE_SECONDS if seconds is None else seconds) / 2
        self._look_in(self._passed)

    def _look_in(self, seconds: float) -> None:
        if not self._loop.is_closed():
            self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        if not self._cancellation.is_coming():
            return
        task = self._cancellation.task
        strand = task._home
        pool = getattr(self._loop if strand is None else strand, "_pool", None)
        before, self._seen = self._seen, {} if pool is None else _turns(pool)
        given_up = False if pool is None or not _is_stuck(strand, pool, before, self._seen) else self._give_up()
        if given_up:
            logger.warning(
                "%r was cancelled, but has not come to the end of its step: it is no longer waited for, and left to end by "
                "itself. Its cancel is delivered when the step is over.",
                task,
            )
        elif given_up is not None:
            self._look_in(min(self._passed, LONGEST))
            self._passed *= 2


def _turns(pool: Any) -> _Turns:
    return {carrier: turn[:2] for carrier, turn in pool.turns()}


def _is_stuck(strand: Any, pool: Any, before: _Turns, now: _Turns) -> bool:
    """Is strand in the same turn as before? Or, if nobody runs it, all that could?"""
    for carrier, turn in now.items():
        if turn[0] is strand:
            return before.get(carrier) == turn
    if strand is not None and hasattr(strand, "carrier"):
        return False  # its thread is between two turns
    workers = {carrier: turn for carrier, turn in now.items() if carrier.pooled}
    holding = sum(worker.proc is not None for worker in workers)
    return holding >= len(pool.processors) > 0 and all(before.get(worker) == turn for worker, turn in workers.items())
