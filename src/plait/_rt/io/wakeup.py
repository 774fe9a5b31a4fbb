"""Wakeup: the descriptor that the C handler of signals writes to. The process has one; the main thread alone sets it.

U1  A descriptor that the program has set stays (Twisted hears of child processes by its own): ours is set where there is none.
    Only `add_signal_handler` takes it, as in asyncio.
U2  It is never left at a descriptor of ours that is being closed, whose number may be another file's next.
U3  Nor in a fork's child: there it is the parent's, too, which would take the child's signals for its own.
"""

from __future__ import annotations

import signal

from plait._rt.ground import forks

_ours = -1


def take(fd: int) -> bool:
    """Have signals written to fd, unless the program has them written somewhere (U1); are they now?"""
    global _ours
    before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    if before not in (-1, fd):
        try:
            signal.set_wakeup_fd(before)
            return False
        except (OSError, ValueError):  # that was closed
            pass
    _ours = fd
    forks.in_child(_after_fork)
    return True


def leave(fd: int) -> None:
    """Have them written to fd no more (U2). On a thread that gets no signals it is nobody's."""
    try:
        current = signal.set_wakeup_fd(-1)
        if current not in (-1, fd):
            signal.set_wakeup_fd(current)
    except (OSError, ValueError):
        pass


def _after_fork() -> None:
    if _ours >= 0:
        leave(_ours)
