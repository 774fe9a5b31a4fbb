"""What of a thread's stack is the step that it makes, which frame of that is to blame, and what a step is called."""

from __future__ import annotations

import functools
from asyncio import Handle
from collections.abc import Sequence
from typing import Any

from plait._rt.ground.code_origin import is_installed, is_librarys, is_plaits
from plait._rt.task.task import Task
from plait.diagnose.capture import Frame
from plait.diagnose.line import call_at


def call_of(stack: Sequence[Frame], at: Frame, kind: str, detail: str = "") -> str | None:
    """The call that `at`, one of the stack's frames, is in."""
    depth = next((index for index, frame in enumerate(stack) if _same_line(frame, at)), -1)
    if depth < 0:
        return None  # where a coroutine begins: it runs no line there
    return call_at(at, stack[depth - 1] if depth else None, kind, detail)


def _same_line(one: Frame, other: Frame) -> bool:
    return (one.file, one.line, one.function) == (other.file, other.line, other.function)


def code_of(task: Any) -> Any:
    """Its coroutine's, or generator's."""
    coro = getattr(task, "_coro", None)
    return getattr(coro, "cr_code", None) or getattr(coro, "gi_code", None)


def own_frame(task: Any) -> Frame | None:
    """Where the task's coroutine begins: its step has no frame any more, or only libraries'."""
    code = code_of(task)
    return None if code is None or is_plaits(code.co_filename) else Frame(code.co_filename, code.co_firstlineno, code.co_name)


def callback_name(item: Any) -> str:
    """What to call a queue item that is no task's."""
    if isinstance(item, Task):  # it is done (task_of)
        return f"of {item.get_name()}"
    function: Any = unwrapped(item._callback) if isinstance(item, Handle) else item  # type: ignore[attr-defined]
    return getattr(function, "__qualname__", None) or type(function).__name__


def unwrapped(function: Any) -> Any:
    """What the user gave to the executor: `to_thread` wraps it in `Context.run`."""
    while isinstance(function, functools.partial):
        runs = getattr(function.func, "__name__", "") == "run" and function.args
        function = function.args[0] if runs else function.func
    return function


_RUNNERS = ("_run_batch", "_run_slowly", "_drain", "start_task", "_run_once")
"""Functions of plait's that run steps: what is outside of them on a stack (who called `plait.run`) is not at fault."""


def inside(stack: list[Frame]) -> list[Frame]:
    """The frames of the step on a thread's stack (innermost first), without plait's."""
    found = []
    for frame in stack:
        if not is_plaits(frame.file):
            found.append(frame)
        elif frame.function in _RUNNERS:
            break
    return found


def innermost_user_frame(stack: list[Frame]) -> Frame | None:
    """The innermost frame of the user's own code in the step; else of an installed package."""
    outside = [frame for frame in inside(stack) if not is_librarys(frame.file)]
    mine = [frame for frame in outside if not is_installed(frame.file)]
    return next(iter(mine or outside), None)
