"""TaskGroup: structured spawning (trio's nursery, with asyncio's interface)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from threading import RLock
from typing import Any, NoReturn, TypeVar

from plait._rt.ground.cpython import _get_running_loop, _getframe
from plait._rt.strand.strand import Strand
from plait._rt.task.checks import check_coroutine
from plait._rt.task.identity import CANCELLED, RETURNED
from plait._rt.task.task import Task

T = TypeVar("T")

LEAVE_AFTER = 1.0  # seconds
REAP_AT = 256  # so many finished children make a reap worth a callback in the parent's strand


class TaskGroup(asyncio.TaskGroup):
    """`async with plait.TaskGroup() as group`: its tasks run in strands of their own, and are all done when it ends.

    It is asyncio's group with other tasks in it, so the semantics are asyncio's: when a task raises, the others and the body
    are cancelled, and the exceptions come out in an ExceptionGroup; KeyboardInterrupt and SystemExit come out bare.
    `create_task` may be called from any strand until the block was left and the last task is done; after that, and while the
    group aborts, it raises RuntimeError. Leaving the block is a checkpoint if tasks still run.
    When the parent is cancelled (by a time-out, say) while a child is stuck in a step, which takes no cancel, the group ends
    without that child after a second: a warning of the logger `plait` names it, and it is left to end by itself.
    """

    # Invariants
    #  G1  `_tasks` holds the children that were not reaped; it changes in create_task and in the parent's strand only, so
    #      that children that finish on many threads don't fight over it.
    #  G2  A child that returned or was cancelled appends itself to `_finished`, where it finishes; `_reap` takes such
    #      children out of both. One that raised is handed to `_on_task_done`, asyncio's own, in the parent's strand.
    #  G3  A child appends first and looks whether it is the last, or one of many, after; if so it posts a reap. A reap
    #      goes on until `_finished` is empty. So when the parent leaves, or waits, a last reap comes after the last child.
    #  G4  A child made in another strand while the group aborts is cancelled by its maker or by `_abort`: the one adds and
    #      looks, the other says and cancels.
    #  G5  A child joins and is waited for, or is refused: its maker asks and adds under `_gate`. The parent's strand, which
    #      alone takes children out, shuts it (`_over`) under the same lock when the last one is out and the block was left;
    #      so a maker in that strand needs no lock. The lock is re-entrant: a finaliser or signal handler in the middle of
    #      `_shut` adds before `_over` is raised, and is seen, or asks after that, and is refused.
    #  G6  A child that was left is in neither, and what it raises later is logged.

    _loop: Strand
    _tasks: set[Any]

    def __init__(self) -> None:
        super().__init__()
        self._finished: deque[Task[Any]] = deque()
        self._gate = RLock()
        self._over = False
        self._cancelling_before = 0

    async def __aenter__(self) -> TaskGroup:
        await super().__aenter__()
        self._cancelling_before = self._parent_task.cancelling()  # type: ignore[attr-defined]
        return self

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> Task[T]:
        """Start coro in a strand of its own, as a member of the group; from any strand. context is copied."""
        if not self._entered:  # type: ignore[attr-defined]
            self._refuse(coro)
        pool = self._loop._pool
        task = pool.new_task(coro, name, context, _getframe(1))
        if _get_running_loop() is self._loop:  # where the gate is shut
            if self._over or self._aborting:
                self._refuse(coro)
            self._tasks.add(task)
        else:
            with self._gate:
                if self._over or self._aborting:
                    self._refuse(coro)
                self._tasks.add(task)
        task._value = self  # (T6)
        pool.schedule(task, False)
        if self._aborting:  # since we asked: who aborts says so first and cancels after (G4)
            task.cancel()
        return task

    def _refuse(self, coro: Coroutine[Any, Any, Any]) -> NoReturn:
        check_coroutine(coro)
        coro.close()
        if not self._entered:  # type: ignore[attr-defined]
            raise RuntimeError(f"TaskGroup {self!r} has not been entered")
        raise RuntimeError(f"TaskGroup {self!r} is {'finished' if self._over else 'shutting down'}")

    def _deliver(self, task: Task[Any]) -> None:
        """A child is done; on whatever thread it finished."""
        if task._phase == RETURNED or task._phase == CANCELLED:
            finished = self._finished
            finished.append(task)
            count = len(finished)
            if count % REAP_AT == 0 or (self._exiting and count >= len(self._tasks)):
                self._have_parent(self._reap)
        else:
            self._have_parent(self._on_task_done, task)

    def _have_parent(self, callback: Callable[..., None], *args: Any) -> None:
        """Call it in the parent's strand. Where that is closed nobody waits any more, for a child that was stuck and has been
        left behind: its end must not fail."""
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _awaiter(self) -> Any:
        return self._parent_task  # type: ignore[attr-defined]

    def _reap(self) -> None:
        """Forget the children that finished; in the parent's strand."""
        finished, tasks = self._finished, self._tasks
        while finished:
            tasks.discard(finished.popleft())
        if self._exiting and not tasks:
            self._shut()
        waiting = self._on_completed_fut  # type: ignore[attr-defined]
        if not tasks and waiting is not None and not waiting.done():
            waiting.set_result(True)

    def _shut(self) -> None:
        """No task can join from now on, unless one did since we looked (G5)."""
        with self._gate:
            self._over = not self._tasks
            if self._tasks:  # a finaliser's, since that look
                self._over = False

    def _on_task_done(self, task: Task[Any]) -> None:  # type: ignore[override]
        if task not in self._tasks:
            context = {"message": f"{task!r} raised after its group had left it", "exception": task.exception(), "task": task}
            self._loop.call_exception_handler(context)
            return
        super()._on_task_done(task)  # type: ignore[arg-type, misc]
        self._reap()

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self._exiting = True  # from here on the last child says so
        self._reap()
        await super().__aexit__(kind, error, traceback)

    def _abort(self) -> None:
        self._aborting = True
        for task in list(self._tasks):
            task._cancel_in_time(self._loop, LEAVE_AFTER, self._leave)

    def _leave(self, task: Task[Any]) -> bool:
        """task is stuck, and doesn't take our cancel: go on without it if somebody wants the parent to end."""
        asked = self._parent_task.cancelling() - self._parent_cancel_requested  # type: ignore[attr-defined]
        if asked <= self._cancelling_before:
            return False
        self._finished.append(task)
        self._reap()
        return True
