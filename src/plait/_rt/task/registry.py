"""Which tasks there are in asyncio's eyes, of all loops.

Who makes a local task puts it into asyncio's registry of tasks that aren't its own (`scheduled_tasks` of cpython.py), which
holds it weakly. Any thread may ask.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

from plait._rt.ground.cpython import scheduled_tasks


def registered_tasks() -> list[Any]:
    """What asyncio lists as tasks, of all loops: local tasks, and up to 3.13 C Tasks as well."""
    while True:
        try:
            return list(scheduled_tasks)
        except RuntimeError:  # changed while it was copied, as asyncio.all_tasks() knows too
            continue


def unlisted_tasks() -> list[Any]:
    """From 3.14 on asyncio's own tasks, of all loops: it lists them for one loop at a time. They are looked for among all
    objects that the garbage collector knows, which takes some 40 ms a million."""
    if sys.version_info < (3, 14):
        return []
    c_task = asyncio.Task
    found: list[Any] = [each for each in gc.get_objects() if issubclass(type(each), c_task)]
    return [task for task in found if task.get_coro() is not None]  # made whole, and with a step to make
