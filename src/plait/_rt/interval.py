"""The GIL's switch interval, lowered while somebody computes and others wait; the user's value is put back after.

At the usual 5 ms a thread that wakes waits that long for each of the threads that compute: with four of them 100 tasks were
20 to 90 ms late, at 0.3 ms 6 ms. The threads that compute lose some 8 % to the switching, at 0.2 ms 12 %; with one runnable
thread it costs nothing.

The interval is the process's, so the monitors of several runtimes ask here. `_lock` is held for a few assignments.
"""

from __future__ import annotations

import sys
import threading

LOW = 0.0003

_lock = threading.Lock()
_asked: set[object] = set()
_users = 0.0


def lower(who: object) -> None:
    """Lower it, for who; once is enough."""
    global _users
    with _lock:
        if not _asked:
            _users = sys.getswitchinterval()
            if _users > LOW:
                sys.setswitchinterval(LOW)
        _asked.add(who)


def put_back(who: object) -> None:
    """who needs it no longer. If the user set another value meanwhile, that stays."""
    with _lock:
        if who in _asked:
            _asked.remove(who)
            if not _asked and abs(sys.getswitchinterval() - LOW) < LOW / 10:
                sys.setswitchinterval(_users)
