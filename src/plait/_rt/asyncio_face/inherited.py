"""What the main strand's settings mean for the other strands of its pool: each holds there unless the strand has its own.

The exception handler, the default executor and slow_callback_duration are looked up when they are wanted. So is the task
factory, from the first time that any main strand gets one: until then no `create_task` pays for the question. Where there is a
factory, a spawned coroutine is made a task by it, in its strand; the plait.Task runs that, and passes its cancels on.
Debug mode is taken over when a strand is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Inherited:
    """An attribute of strands that is the main strand's, or default if that has none. (Not a data descriptor: what is set in
    a strand is found first.)"""

    def __init__(self, name: str, default: Any) -> None:
        self._name, self._default = name, default

    def __get__(self, strand: Any, owner: Any = None) -> Any:
        if strand is None:
            return self._default
        main = strand._pool.main
        return self._default if main is strand else getattr(main, self._name)


class MadeByFactory(Coroutine[Any, Any, Any]):
    """A coroutine that has its strand's factory make a task of another one, and waits for it."""

    __slots__ = ("__name__", "__qualname__", "_coro", "_name", "_waits")

    def __init__(self, coro: Any, name: str | None) -> None:
        self._coro, self._name = coro, name
        self._waits: Any = None
        self.__name__, self.__qualname__ = coro.__name__, coro.__qualname__

    def send(self, value: Any) -> Any:
        if self._waits is None:
            self._waits = _wait(asyncio.get_running_loop().create_task(self._coro, name=self._name))
        return self._waits.send(value)

    def throw(self, typ: Any, value: Any = None, traceback: Any = None) -> Any:
        if self._waits is None:
            self._coro.close()
            raise typ if value is None else value
        return self._waits.throw(typ if value is None else value)

    def close(self) -> None:
        (self._coro if self._waits is None else self._waits).close()

    def __await__(self) -> Any:
        raise TypeError(f"{self!r} is run by its task alone")


async def _wait(task: Any) -> Any:
    return await task
