"""What is refused where a coroutine or a function is wanted, and what is said of it."""

from __future__ import annotations

import asyncio
import inspect
from types import CoroutineType
from typing import Any

from plait._rt.task.local_task import LocalTask
from plait._rt.task.task import Task


def check_coroutine(coro: Any) -> None:
    """Refuse anything else, saying what to do."""
    if coro.__class__ is CoroutineType or asyncio.iscoroutine(coro):
        return
    raise TypeError(f"a coroutine was expected, got {coro!r}{_hint(coro)}")


def check_callable(function: Any) -> None:
    """Refuse what can't be called."""
    if not callable(function):
        raise TypeError(f"a function was expected, got {function!r}")


def _hint(what: Any) -> str:
    if inspect.iscoroutinefunction(what):
        name = getattr(what, "__name__", "f")
        return f" (call it: {name}(...), not {name})"
    if isinstance(what, Task) and not isinstance(what, LocalTask):
        return ": await it, in any strand"
    if asyncio.isfuture(what):
        return ": a future belongs to its strand, and is awaited there"
    if inspect.isasyncgen(what) or inspect.isasyncgenfunction(what):
        return ": an async generator is run by `async for`, in a coroutine"
    if inspect.isawaitable(what):
        return ", an awaitable: pass a coroutine that awaits it, made by an async function"
    return ": `await strand.call(f, ...)` takes functions" if callable(what) else ""
