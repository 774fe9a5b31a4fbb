"""What `await strand.call(coro)` adds to a call of a shared pool: prints a table (tools/libraries.sh PYTHON sharing)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import aiohttp
import asyncpg
import servers
import test_aiohttp
import test_asyncpg

import plait

CALLS = 500
REPEATS = 7
Call = Callable[[], Coroutine[Any, Any, Any]]


async def nothing() -> None:
    """The least that can be called."""


async def median(once: Callable[[], Awaitable[Any]]) -> float:
    """Microseconds a call, one after the other: the median of REPEATS runs."""

    async def timed() -> float:
        started = time.perf_counter()
        for _ in range(CALLS):
            await once()
        return (time.perf_counter() - started) / CALLS * 1e6

    await timed()
    return statistics.median([await timed() for _ in range(REPEATS)])


async def row(what: str, home: plait.Strand, call: Call) -> None:
    """Print what call() costs in its home strand, and by home.call from a strand of the pool and from the main strand."""
    at_home = await home.call(median(call))
    pooled = await plait.spawn(median(lambda: home.call(call())))
    main = await median(lambda: home.call(call()))
    print(f"{what:<28} {at_home:>10,.1f} {pooled:>10,.1f} {main:>10,.1f}")


async def table(port: int) -> None:
    """All of them, with two workers."""
    print(f"{'microseconds a call':<28} {'at home':>10} {'pooled':>10} {'main':>10}")
    home = plait.Strand(name="shared")
    await row("nothing", home, nothing)

    async def make_pool() -> Any:
        return await asyncpg.create_pool(min_size=1, max_size=5, **test_asyncpg.target(port))

    pool = await home.call(make_pool())
    await row("asyncpg pool.fetchval", home, lambda: pool.fetchval("select 1"))
    await home.call(pool.close())

    async def make_session() -> Any:
        return aiohttp.ClientSession()

    async with test_aiohttp.serving("spawned") as address:
        session = await home.call(make_session())

        async def get() -> None:
            async with session.get(f"{address}/square/3") as answer:
                await answer.json()

        await row("aiohttp session.get", home, get)
        await home.call(session.close())


if __name__ == "__main__":
    with servers.postgres() as port:
        plait.run(table(port), workers=2)
