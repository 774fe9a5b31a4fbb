"""Numbers for default task names, "Task-N": drawn when a task is made, so that they are unique and in the order of creation.

Where there is a GIL, and from 3.14 on, `itertools.count` is atomic. On free-threaded builds before that each thread draws
from a block of its own: one counter for all would be fought over. There the numbers are in order for what one thread makes.

asyncio's own tasks count for themselves. Those that are made in a strand get a number of ours with their first step, which is
given to `call_soon`; not eager ones, which have made it by then.
"""

from __future__ import annotations

import itertools
import re
import sys
import threading
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import Any

from plait._rt.ground.build import GIL_BUILD

BLOCK = 256

_is_default = re.compile(r"Task-\d+").fullmatch
_lock = threading.RLock()  # re-entrant: a finaliser may make a task
_firsts = itertools.count(1, BLOCK)
_blocks: dict[int, Iterator[int]] = {}  # by thread; a thread touches its own alone. (A third of what `threading.local` takes.)


def _from_block() -> int:
    try:
        return next(_blocks[get_ident()])
    except (KeyError, StopIteration):
        with _lock:
            first = next(_firsts)
        numbers = _blocks[get_ident()] = iter(range(first, first + BLOCK))
        return next(numbers)


_atomic = sys.version_info >= (3, 14) or GIL_BUILD()
next_number: Callable[[], int] = itertools.count(1).__next__ if _atomic else _from_block


def name_c_task(step: Any) -> None:
    """step is to be made of a task of asyncio's own: if it is the first, and the name is a default one, it gets one of ours."""
    task = step.__self__
    if not getattr(task.get_coro(), "cr_suspended", True) and _is_default(task.get_name()):
        task.set_name(f"Task-{next_number()}")
