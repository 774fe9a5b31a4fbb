"""Which tasks wait for a task: what `asyncio.print_call_graph` shows (since 3.14).

asyncio notes at each await, in the future, who waits for it, and does so for its own classes only. We find it out when
somebody asks, from the callbacks of the task that is waited for: a step costs nothing more. What asyncio's combinators leave
there knows its task, as a variable of a closure or an attribute.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

_ATTRIBUTES = ("_cur_task", "_parent_task")  # as_completed's iterator, TaskGroup
_VARIABLES = ("cur_task", "parent_task")  # gather, wait, shield; staggered_race


def awaiter_of(call: Any) -> Any:
    """The task on whose behalf call is a done-callback, if it can be told."""
    owner = getattr(call, "__self__", call)
    if hasattr(owner, "get_coro"):
        return owner  # a task's own wake-up
    for name in _ATTRIBUTES:
        task = getattr(owner, name, None)
        if task is not None:
            return task
    if isinstance(call, functools.partial):
        return _woken_by(call.args)
    variables = variables_of(call)
    outer = variables.get("outer")
    if outer is not None and outer.done():
        return None  # gather is over, and left its callback
    return next((variables[name] for name in _VARIABLES if name in variables), None)


def _woken_by(arguments: Iterable[Any]) -> Any:
    """The task that waits for one of these futures: `wait_for` has its callback resolve one."""
    waiting = [callback for future in arguments for callback, _ in getattr(future, "_callbacks", None) or ()]
    return next((task for task in map(awaiter_of, waiting) if task is not None), None)


def variables_of(function: Any) -> dict[str, Any]:
    """What a function has of its surroundings: the cells of its closure, and its defaults."""
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    defaults = function.__defaults__ or ()
    arguments = code.co_varnames[: code.co_argcount]
    found = dict(zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True))
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not set yet
            continue
    return found


def set_of(tasks: Iterable[Any]) -> frozenset[Any] | None:
    """As asyncio has it: None if nobody waits."""
    return frozenset(task for task in tasks if task is not None) or None
