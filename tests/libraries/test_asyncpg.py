"""asyncpg, against PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from library_helpers import LONG, ROUNDS, abandoned, library, many, rounds, run, uses

import plait

asyncpg = library("asyncpg")


def target(port: int) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, "user": "postgres", "database": "postgres", "timeout": LONG}


async def work(connection: Any, number: int) -> None:
    """One round: a prepared query, many rows, a transaction that is rolled back, a timeout that cancels on the server."""
    assert await connection.fetchval("select $1::int * $1::int", number) == number * number
    rows = await connection.fetch("select n, repeat('x', 100) as text from generate_series(1, 200) n")
    assert sum(row["n"] for row in rows) == 20100
    table = f"t{number}"
    with contextlib.suppress(ZeroDivisionError):
        async with connection.transaction():
            await connection.execute(f"create temp table {table} (n int, text text)")
            await connection.copy_records_to_table(table, records=[(n, str(n)) for n in range(50)])
            assert [row["n"] async for row in connection.cursor(f"select n from {table} order by n")] == list(range(50))
            raise ZeroDivisionError
    assert await connection.fetchval("select to_regclass($1)", table) is None
    if number % 5 == 0:
        with pytest.raises(TimeoutError):  # (a cancel that reaches the server before the query does is lost: 1 s then)
            await connection.fetchval("select pg_sleep(1)", timeout=0.02)
        assert await connection.fetchval("select 1") == 1


@uses
def test_a_connection_each(use: str, postgres: int) -> None:
    async def main() -> None:
        async def connect(number: int) -> None:
            connection = await asyncpg.connect(**target(postgres))
            try:
                await rounds(lambda n: work(connection, number * ROUNDS + n))
            finally:
                await connection.close()

        await many(use, connect)

    run(use, main)


@uses
def test_a_pool_each(use: str, postgres: int) -> None:
    async def main() -> None:
        async def pooled(number: int) -> None:
            async with asyncpg.create_pool(min_size=1, max_size=3, **target(postgres)) as pool:

                async def once(n: int) -> None:
                    async def borrow(m: int) -> None:
                        async with pool.acquire() as connection:
                            assert await connection.fetchval("select $1::int", m) == m

                    await asyncio.gather(*(borrow(n * 10 + m) for m in range(5)))

                await rounds(once)

        await many(use, pooled)

    run(use, main)


@uses
def test_listen_and_notify(use: str, postgres: int) -> None:
    async def main() -> None:
        async def pair(number: int) -> None:
            connection = await asyncpg.connect(**target(postgres))
            heard: asyncio.Queue[str] = asyncio.Queue()
            await connection.add_listener(f"c{number}", lambda *args: heard.put_nowait(args[3]))

            async def once(n: int) -> None:
                await connection.execute(f"notify c{number}, '{n}'")
                assert await heard.get() == str(n)

            await rounds(once)
            await connection.close()

        await many(use, pair)

    run(use, main)


@uses
@pytest.mark.complains("unexpected connection_lost() call")  # of asyncpg's, on asyncio's loop as well
def test_the_end_in_the_middle(use: str, postgres: int) -> None:
    async def main() -> None:
        async def go(number: int) -> None:
            connection = await asyncpg.connect(**target(postgres))
            try:
                await work(connection, number * 5 + 1)
            finally:
                connection.terminate()

        await abandoned(use, go)

    run(use, main)


def test_a_pool_shared_by_strands(postgres: int) -> None:
    """A pool made in one strand is used from others by `strand.call`."""

    async def main() -> None:
        home = plait.Strand(name="database")

        async def make() -> Any:
            return await asyncpg.create_pool(min_size=1, max_size=5, **target(postgres))

        pool = await home.call(make())

        async def query(number: int) -> None:
            async with pool.acquire() as connection:
                await work(connection, number)

        await many("spawned", lambda number: rounds(lambda n: home.call(query(number * ROUNDS + n))))
        await home.call(pool.close())

    run("spawned", main)
