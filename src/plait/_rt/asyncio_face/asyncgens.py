"""Async generators: each is finalised in the strand that first iterated it, whichever thread collects it.

The interpreter's hooks are per thread, so they are set once per worker and look the strand up here.

`_homes` maps the id of a generator to (weak reference, strand). Each change is one atomic dict operation. A generator's
weak references die before its finaliser runs, so an entry is not dropped when its reference is found dead once: it is
swept when two sweeps in a row found it dead, and the finaliser of a living one takes it out at once. The entries of a
runtime that has ended are taken out by its end: they would keep it.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any

from plait._rt.ground.cpython import _get_running_loop

if TYPE_CHECKING:
    from plait._rt.pool import Pool
    from plait._rt.strand.strand import Strand

SWEEP_AT = 64  # strands that exhausted generators may keep meanwhile (a pinned one has a thread)

_homes: dict[int, tuple[Any, Strand]] = {}
_found_dead: set[int] = set()
_sweep_at = SWEEP_AT


def _first_iterated(generator: AsyncGenerator[Any, Any]) -> None:
    global _sweep_at
    strand: Any = _get_running_loop()
    if getattr(strand, "_pool", None) is None:  # a finaliser iterates it by hand, or another loop runs in a step of ours
        return
    _homes[id(generator)] = (weakref.ref(generator), strand)
    if strand._closed:  # in a step that is stuck through the end, which has taken out what there was (or sees this one)
        _homes.pop(id(generator), None)
    _found_dead.discard(id(generator))
    if strand._asyncgens_shutdown_called:
        strand._warn_late_asyncgen(generator)
    if len(_homes) >= _sweep_at:
        _sweep()
        _sweep_at = max(SWEEP_AT, len(_homes) * 2)


def _finalise(generator: AsyncGenerator[Any, Any]) -> None:
    """Runs on the thread that collects the generator: hand it to its strand."""
    _, strand = _homes.pop(id(generator), (None, None))
    if strand is not None and not strand._closed:
        strand.call_soon_threadsafe(strand._close_asyncgen, generator)


hooks = (_first_iterated, _finalise)


def of_pool(pool: Pool) -> list[tuple[AsyncGenerator[Any, Any], Strand]]:
    """The living generators that were first iterated in pool's strands, and where."""
    return [(generator, strand) for generator, strand in _living() if strand._pool is pool]


def of_strand(strand: Any) -> weakref.WeakSet[AsyncGenerator[Any, Any]]:
    """The living generators that were first iterated in strand: what asyncio's loops have as `_asyncgens`. A copy."""
    return weakref.WeakSet(generator for generator, home in _living() if home is strand)


def forget(ended: Strand) -> None:
    """Take out those of a closed strand with a thread of its own, and of the pool of which it was the main one."""
    for key in list(_homes):
        home = _homes.get(key)
        if home is not None and (home[1] is ended or home[1]._pool.main is ended):
            _homes.pop(key, None)
            _found_dead.discard(key)


def _living() -> Iterator[tuple[AsyncGenerator[Any, Any], Strand]]:
    for reference, strand in list(_homes.values()):
        generator = reference()
        if generator is not None:
            yield generator, strand


def _sweep() -> None:
    for key in list(_homes):  # (its items would be new objects, for which the collector may run, and finalisers with it)
        home = _homes.get(key)
        if home is not None and home[0]() is None:
            if key in _found_dead:
                _found_dead.discard(key)
                _homes.pop(key, None)
            else:
                _found_dead.add(key)
