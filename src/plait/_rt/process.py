"""What happens to the pools of a process when it forks, and when it ends with one that nobody has closed."""

from __future__ import annotations

import atexit
import functools
import threading
import weakref
from typing import TYPE_CHECKING

from plait._rt.ground import forks, switch_interval
from plait._rt.ground.here import here
from plait._rt.task import rarely, wait_queue

if TYPE_CHECKING:
    from plait._rt.pool import Pool

_with_threads: weakref.WeakSet[Pool] = weakref.WeakSet()


def note(pool: Pool) -> None:
    """It is about to have threads, which a fork's child won't have."""
    _with_threads.add(pool)
    _watch_process()


def _after_fork() -> None:
    """In the child: the threads of the pools are the parent's, and so may be the holders of locks."""
    here.worker = None
    rarely.renew_lock()
    wait_queue.renew_lock()
    switch_interval.after_fork()
    for pool in list(_with_threads):
        pool._starting = threading.RLock()
        pool._blocking_pool = None  # the next call makes one with threads of ours
        pool.main.probe.after_fork()
        if pool.started:
            pool.orphaned = pool.closed = pool.stopping = True
        else:  # it had a monitor, no more
            pool.forget_monitor()
        if pool.ps_server is not None:
            pool.ps_server.forget()


def _at_exit() -> None:
    for pool in list(_with_threads):
        if not pool.started and pool.watched:
            pool.unwatch()


@functools.cache
def _watch_process() -> None:
    atexit.register(_at_exit)
    forks.in_child(_after_fork)
