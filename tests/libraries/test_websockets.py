"""websockets, server and client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from library_helpers import ROUNDS, TASKS, abandoned, inside, library, many, rounds, run, strand_of, uses

websockets = library("websockets")
server = library("websockets.asyncio.server", "websockets")
client = library("websockets.asyncio.client", "websockets")


async def shout(socket: Any) -> None:
    async for message in socket:
        await socket.send(message.upper())


async def serve() -> tuple[Any, str]:
    """A server in the calling strand, and its address."""
    listening = await server.serve(shout, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()[:2]
    return listening, f"ws://{host}:{port}"


async def stop(listening: Any) -> None:
    listening.close()
    await listening.wait_closed()


@contextlib.asynccontextmanager
async def serving(use: str) -> AsyncIterator[str]:
    """A server, in a strand of its own if that is the use."""
    async with strand_of(use) as there:
        listening, address = await there(serve())
        try:
            yield address
        finally:
            await there(stop(listening))


async def talk(socket: Any, number: int) -> None:
    """One round: small, big (in several frames, compressed), binary, a ping."""
    await socket.send(f"round {number}")
    assert await socket.recv() == f"ROUND {number}"
    big = f"abc{number}" * 20_000
    await socket.send([big[:1000], big[1000:]])
    assert await socket.recv() == big.upper()
    await socket.send(b"\0x%d" % number)
    assert await socket.recv() == b"\0X%d" % number
    await (await socket.ping())


@uses
def test_one_server_and_many_clients(use: str) -> None:
    async def main() -> None:
        async with serving(use) as address:

            async def work(number: int) -> None:
                async with client.connect(address) as socket:
                    await rounds(lambda n: talk(socket, number * ROUNDS + n))

            await many(use, work)

    run(use, main)


@uses
def test_a_server_and_a_client_each(use: str) -> None:
    async def main() -> None:
        async def pair(number: int) -> None:
            listening, address = await serve()
            async with client.connect(address) as socket:
                await rounds(lambda n: talk(socket, number * ROUNDS + n))
            await stop(listening)

        await many(use, pair, TASKS // 2)

    run(use, main)


@uses
def test_a_connection_a_round(use: str) -> None:
    async def main() -> None:
        async with serving(use) as address:

            async def visit(number: int) -> None:
                async with client.connect(address) as socket:
                    await socket.send(f"visit {number}")
                    assert await socket.recv() == f"VISIT {number}"

            await many(use, lambda number: rounds(lambda n: visit(number * ROUNDS + n)))

    run(use, main)


@uses
def test_the_end_in_the_middle(use: str) -> None:
    async def main() -> None:
        _listening, address = await inside(use, serve())

        async def go(number: int) -> None:
            async with client.connect(address) as socket:
                await talk(socket, number)
                await asyncio.sleep(0)

        await abandoned(use, go)

    run(use, main)
