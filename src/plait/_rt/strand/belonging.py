"""Which strand asyncio's locks, events and queues belong to: the first that uses them. A second one gets WrongStrand.

asyncio binds them to a loop only where somebody has to wait. Uncontended, a lock that two strands share raises nothing and
guards nothing. So from when a pool starts, before a second strand runs, the methods of asyncio's classes look first (ADR 15);
a program that stays in its main strand runs asyncio's own. On a loop that isn't plait's they do nothing.

A thing's `_plait_owner` is (weak reference to the strand, weak reference to its pool). Of two strands that come first at one
moment one writes it (`dict.setdefault`).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import weakref
from typing import Any

from plait._rt.ground.cpython import _get_running_loop, _LoopBoundMixin
from plait._rt.strand.strand import Strand
from plait._rt.task.task import Task
from plait.errors import WrongStrand

_BINDING = (
    (asyncio.Lock, "acquire"),
    (asyncio.Semaphore, "acquire"),
    (asyncio.Event, "wait"),
    (asyncio.Condition, "wait"),
    (asyncio.Barrier, "wait"),
    (asyncio.Queue, "join"),
    (asyncio.Queue, "put_nowait"),
    (asyncio.Queue, "get_nowait"),
    (asyncio.Condition, "__aenter__"),  # whose lock's methods it took before they were these
    (_LoopBoundMixin, "_get_loop"),
)
_ASKING = (  # a constructor may do these, and be called elsewhere: asyncio.Queue's sets an event
    (asyncio.Event, "set"),
    (asyncio.Event, "clear"),
    (asyncio.Lock, "release"),
    (asyncio.Semaphore, "release"),
    (asyncio.Condition, "notify"),
    (asyncio.Queue, "task_done"),
)
_IN_USE = asyncio.Lock, asyncio.Queue  # what shows that it is in use


@functools.cache
def watch() -> None:
    """From now on asyncio's classes look whose their objects are."""
    _LoopBoundMixin._plait_owner = None
    for binds, methods in ((True, _BINDING), (False, _ASKING)):
        for owner, name in methods:
            setattr(owner, name, _looking(getattr(owner, name), binds))


def _looking(method: Any, binds: bool) -> Any:
    """method, which looks first. (With its own parameters: to pass any on takes the interpreter as long as to look.)"""
    looking: Any
    if inspect.iscoroutinefunction(method):

        async def looking(self: Any) -> Any:
            owner, running = self._plait_owner, _get_running_loop()
            if owner is None or owner[0]() is not running:
                _look(self, running, binds)
            return await method(self)
    elif len(inspect.signature(method).parameters) > 1:

        def looking(self: Any, *args: Any) -> Any:
            owner, running = self._plait_owner, _get_running_loop()
            if owner is None or owner[0]() is not running:
                _look(self, running, binds)
            return method(self, *args)
    elif binds:

        def looking(self: Any) -> Any:
            owner, running = self._plait_owner, _get_running_loop()
            if owner is None or owner[0]() is not running:
                _look(self, running, True)
            return method(self)
    else:

        def looking(self: Any) -> Any:
            owner = self._plait_owner
            if owner is None:  # a queue's event may be asked often, and never waited for
                if self._loop is not None or isinstance(self, _IN_USE):
                    _look(self, _get_running_loop(), False)
            elif owner[0]() is not _get_running_loop():
                _look(self, _get_running_loop(), False)
            return method(self)

    return functools.wraps(method)(looking)


def _look(thing: Any, running: Any, binds: bool) -> None:
    if not isinstance(running, Strand):
        return
    strand = _owner(thing, running)
    if strand is None:
        if not binds:
            return
        mine = weakref.ref(running), weakref.ref(running._pool)
        if thing._plait_owner is not None:  # a run before this one had it
            thing._plait_owner = mine
        strand = thing.__dict__.setdefault("_plait_owner", mine)[0]()
    if strand is not running:
        raise WrongStrand(_complaint(thing, strand, running))


def _owner(thing: Any, running: Strand) -> Any:
    """The strand that it belongs to, if it still does, and a word for it if it is gone."""
    if thing._plait_owner is None:
        if isinstance(thing._loop, Strand):
            return None if thing._loop._closed else thing._loop
        return running._pool.main if _in_use(thing) else None  # since before we looked
    strand, pool = (reference() for reference in thing._plait_owner)
    if strand is not None:
        return None if strand._closed else strand
    return "a strand that has ended" if pool is running._pool else None


def _in_use(thing: Any) -> bool:
    if isinstance(thing, asyncio.Lock):
        return thing.locked()
    return isinstance(thing, asyncio.Queue) and bool(thing._unfinished_tasks or thing.qsize())  # type: ignore[attr-defined]


def _complaint(thing: Any, strand: Any, running: Strand) -> str:
    kind = next(base.__name__ for base in type(thing).__mro__ if base.__module__.startswith("asyncio."))
    if isinstance(thing, asyncio.Event):
        instead = "Use plait.Event, which any strand may set and wait for."
    elif isinstance(thing, asyncio.Queue):
        instead = "Give it to one strand, and let others ask that: `await strand.call(queue.get())`."
    else:
        instead = "Keep what it guards in one strand, and let others call that: `await strand.call(coro)`."
    whose = f"{object.__repr__(thing)} is bound to a different event loop"  # asyncio's words
    return f"{whose}: it belongs to {strand} and was used from {running}. An asyncio.{kind} works within one strand. {instead}"


def strand_of(thing: Any) -> Strand:
    """The strand that thing belongs to: a stream, transport, asyncio future, task, server, and an asyncio lock, event or queue
    that was used; from any strand or thread. TypeError if it belongs to none.

        await plait.strand_of(writer).call(writer.write, data)
    """
    if isinstance(thing, Strand):
        return thing
    if isinstance(thing, Task):
        found = thing._home
    else:
        owner = getattr(thing, "_plait_owner", None)
        found = owner[0]() if owner is not None else getattr(thing, "_loop", None)
        if found is None and hasattr(thing, "get_loop"):
            found = thing.get_loop()
    if not isinstance(found, Strand):
        raise TypeError(f"{thing!r} belongs to no strand")
    return found
