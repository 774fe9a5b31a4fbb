"""The lock for rare changes of tasks: the first cancel of one and its counts (T4, cancel.py), the first callback of one
(done_callbacks.py), the first look at the error of one that was cancelled (result.py).

There is one for all tasks, which rarely meet at it. It is re-entrant, since a finaliser may run in the middle of such a change.
No user code, wake-up or log call is made under it.
"""

from __future__ import annotations

import threading

lock = threading.RLock()


def renew_lock() -> None:
    """After a fork: another thread of the parent's may have held it."""
    global lock
    lock = threading.RLock()
