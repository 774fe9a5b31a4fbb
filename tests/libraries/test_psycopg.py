"""psycopg 3 and its pool, against PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from library_helpers import LONG, ROUNDS, abandoned, library, many, rounds, run, uses

import plait

psycopg = library("psycopg")
psycopg_pool = library("psycopg_pool", "psycopg-pool")


def target(port: int) -> str:
    return f"host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout={LONG:.0f}"


async def connect(port: int) -> Any:
    return await psycopg.AsyncConnection.connect(target(port))


async def work(connection: Any, number: int) -> None:
    """One round: a query, many rows, a transaction that is rolled back, COPY both ways, a pipeline."""
    answer = await connection.execute("select %s::int * %s::int", (number, number))
    assert await answer.fetchone() == (number * number,)
    async with connection.cursor() as cursor:
        await cursor.execute("select n, repeat('x', 100) from generate_series(1, 200) n")
        assert sum([row[0] async for row in cursor]) == 20100
        with contextlib.suppress(ZeroDivisionError):
            async with connection.transaction():
                await cursor.execute("create temp table numbers (n int)")
                async with cursor.copy("copy numbers from stdin") as copy:
                    for n in range(50):
                        await copy.write_row((n,))
                async with cursor.copy("copy numbers to stdout") as copy:
                    assert [row[0] async for row in copy.rows()] == [str(n) for n in range(50)]
                raise ZeroDivisionError
        await cursor.execute("select to_regclass('numbers')")
        assert await cursor.fetchone() == (None,)
        async with connection.pipeline():
            await cursor.execute("select 1")
            await cursor.execute("select %s::int", (number,))
            assert await cursor.fetchone() == (number,)
    await connection.commit()


async def cancelled(port: int, connection: Any) -> None:
    """Cancel a task that waits for the server; the connection goes on.

    (A cancel that reaches the server before the query does is lost there, and psycopg gives the connection up.)
    """
    sleeping = asyncio.create_task(connection.execute("select pg_sleep(60)"))
    query = "select wait_event from pg_stat_activity where pid = %s"
    async with await connect(port) as other:
        await other.set_autocommit(True)
        while await (await other.execute(query, (connection.info.backend_pid,))).fetchone() != ("PgSleep",):
            await asyncio.sleep(0.005)
    sleeping.cancel()
    await asyncio.wait([sleeping])
    assert sleeping.cancelled()
    await connection.rollback()
    assert await (await connection.execute("select 1")).fetchone() == (1,)


@uses
def test_a_connection_each(use: str, postgres: int) -> None:
    async def main() -> None:
        async def task(number: int) -> None:
            async with await connect(postgres) as connection:
                await rounds(lambda n: work(connection, number * ROUNDS + n))
                await cancelled(postgres, connection)

        await many(use, task)

    run(use, main)


@uses
def test_a_pool_each(use: str, postgres: int) -> None:
    async def main() -> None:
        async def pooled(_number: int) -> None:
            async with psycopg_pool.AsyncConnectionPool(target(postgres), min_size=1, max_size=2, open=False) as pool:

                async def once(n: int) -> None:
                    async def borrow(m: int) -> None:
                        async with pool.connection() as connection:
                            answer = await connection.execute("select %s::int", (m,))
                            assert await answer.fetchone() == (m,)

                    await asyncio.gather(*(borrow(n * 10 + m) for m in range(5)))

                await rounds(once)

        await many(use, pooled)

    run(use, main)


@uses
def test_notifications(use: str, postgres: int) -> None:
    async def main() -> None:
        async def pair(number: int) -> None:
            async with await connect(postgres) as connection:
                await connection.set_autocommit(True)
                await connection.execute(f"listen p{number}")

                async def once(n: int) -> None:
                    await connection.execute(f"notify p{number}, '{n}'")
                    async for notify in connection.notifies(stop_after=1, timeout=LONG):
                        assert notify.payload == str(n)

                await rounds(once)

        await many(use, pair)

    run(use, main)


@uses
def test_the_end_in_the_middle(use: str, postgres: int) -> None:
    async def main() -> None:
        async def go(number: int) -> None:
            async with await connect(postgres) as connection:
                await work(connection, number)

        await abandoned(use, go)

    run(use, main)


def test_a_pool_shared_by_strands(postgres: int) -> None:
    """A pool made in one strand is used from others by `strand.call`."""

    async def main() -> None:
        home = plait.Strand(name="database")

        async def make() -> Any:
            pool = psycopg_pool.AsyncConnectionPool(target(postgres), min_size=1, max_size=5, open=False)
            await pool.open(wait=True)
            return pool

        pool = await home.call(make())

        async def query(number: int) -> None:
            async with pool.connection() as connection:
                await work(connection, number)

        await many("spawned", lambda number: rounds(lambda n: home.call(query(number * ROUNDS + n))))
        await home.call(pool.close())

    run("spawned", main)
