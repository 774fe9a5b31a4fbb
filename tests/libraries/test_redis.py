"""redis-py's asyncio client, against Redis."""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import Any

from library_helpers import LONG, ROUNDS, abandoned, library, many, rounds, run, uses

import plait

fresh = itertools.count(10_000)
"""Numbers for rounds that may not get to their end."""

redis = library("redis.asyncio", "redis")


def connect(port: int) -> Any:
    return redis.Redis(host="127.0.0.1", port=port, decode_responses=True)


async def work(client: Any, number: int) -> None:
    """One round: plain commands, a transaction, a blocking pop that another task feeds."""
    key = f"key:{number}"
    await client.set(key, number, ex=60)
    assert await client.incr(key) == number + 1
    async with client.pipeline(transaction=True) as pipe:
        assert await pipe.get(key).rpush(f"{key}:list", "a", "b").lrange(f"{key}:list", 0, -1).execute() == [
            str(number + 1), 2, ["a", "b"],
        ]  # fmt: skip
    big = str(number) * 20_000
    await client.hset(f"{key}:hash", mapping={"big": big, "small": "1"})
    assert await client.hgetall(f"{key}:hash") == {"big": big, "small": "1"}
    waiting = asyncio.create_task(client.blpop(f"{key}:queue", timeout=LONG))
    await client.rpush(f"{key}:queue", "item")
    assert tuple(await waiting) == (f"{key}:queue", "item")
    await client.delete(key, f"{key}:list", f"{key}:hash")


@uses
def test_a_client_each(use: str, redis_server: int) -> None:
    async def main() -> None:
        async def client_of(number: int) -> None:
            async with connect(redis_server) as client:
                await rounds(lambda n: work(client, number * ROUNDS + n))

        await many(use, client_of)

    run(use, main)


@uses
def test_publish_and_subscribe(use: str, redis_server: int) -> None:
    async def main() -> None:
        async def pair(number: int) -> None:
            async with connect(redis_server) as client, client.pubsub() as heard:
                await heard.subscribe(f"channel:{number}")

                async def say(n: int) -> None:
                    await client.publish(f"channel:{number}", n)
                    async for message in heard.listen():
                        if message["type"] == "message":
                            assert message["data"] == str(n)
                            break

                await rounds(say)

        await many(use, pair)

    run(use, main)


@uses
def test_the_end_in_the_middle(use: str, redis_server: int) -> None:
    async def main() -> None:
        async def go(_number: int) -> None:
            async with connect(redis_server) as client:
                await work(client, next(fresh))  # what an earlier one that was cancelled left in the server is none of its

        await abandoned(use, go, loses_cancels=sys.version_info < (3, 12))

    run(use, main)


def test_a_client_shared_by_strands(redis_server: int) -> None:
    """One client and its pool, made in one strand, used from others by `strand.call`."""

    async def main() -> None:
        home = plait.Strand(name="redis")

        async def make() -> Any:
            return connect(redis_server)

        client = await home.call(make())
        await many("spawned", lambda number: rounds(lambda n: home.call(work(client, number * ROUNDS + n))))
        await home.call(client.aclose())

    run("spawned", main)
