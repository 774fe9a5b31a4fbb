"""The GIL's switch interval, lowered while somebody computes and others wait; the user's value is put back after.

At the usual 5 ms a thread that wakes waits that long for each of the threads that compute: with four of them 100 tasks were
20 to 90 ms late, at 0.3 ms 6 ms. The threads that compute lose some 8 % to the switching, at 0.2 ms 12 %; with one runnable
thread it costs nothing.

The interval is the process's, so the monitors of several runtimes ask here: `_asked` has them; `_users`, the user's value while
it is lowered, changes in `_settle` alone (settle.py).
"""

from __future__ import annotations

import sys

from plait._rt.ground.settle import Settle

LOW = 0.0003

_asked: dict[object, None] = {}
_users: float | None = None


def lower(who: object) -> None:
    """Lower it, for who; once is enough."""
    if who not in _asked:
        _asked[who] = None
        _settle()


def put_back(who: object) -> None:
    """who needs it no longer. If the user set another value meanwhile, that stays."""
    if who in _asked:
        _asked.pop(who, None)
        _settle()


def after_fork() -> None:
    """In the child: who asked stayed with the parent."""
    _asked.clear()
    _settle.after_fork()


def _set() -> None:
    global _users
    if _asked:
        if _users is None:
            _users = sys.getswitchinterval()
            if _users > LOW:
                sys.setswitchinterval(LOW)
    elif _users is not None:
        if abs(sys.getswitchinterval() - LOW) < LOW / 10:
            sys.setswitchinterval(_users)
        _users = None


_settle = Settle(_set)
