"""aiohttp, server and client."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

from library_helpers import ROUNDS, TASKS, abandoned, inside, library, many, rounds, run, strand_of, uses

import plait

aiohttp = library("aiohttp")
web = library("aiohttp.web", "aiohttp")


async def square(request: Any) -> Any:
    await asyncio.sleep(0)
    return web.json_response({"square": int(request.match_info["number"]) ** 2})


async def digest(request: Any) -> Any:
    return web.Response(text=hashlib.sha256(await request.read()).hexdigest())


async def shout(request: Any) -> Any:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data.upper())
    return socket


async def slow(_request: Any) -> Any:
    await asyncio.sleep(60)


async def serve() -> tuple[Any, str]:
    """An aiohttp server in the calling strand, and its address."""
    app = web.Application()
    app.add_routes([web.get("/square/{number}", square), web.post("/digest", digest), web.get("/shout", shout)])
    app.add_routes([web.get("/slow", slow)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}"


@contextlib.asynccontextmanager
async def serving(use: str) -> AsyncIterator[str]:
    """A server, in a strand of its own if that is the use."""
    async with strand_of(use) as there:
        runner, address = await there(serve())
        try:
            yield address
        finally:
            await there(runner.cleanup())


async def visit(session: Any, address: str, number: int) -> None:
    """One round of everything."""
    async with session.get(f"{address}/square/{number}") as answer:
        assert await answer.json() == {"square": number * number}
    body = bytes([number % 256]) * 100_000
    async with session.post(f"{address}/digest", data=body) as answer:
        assert await answer.text() == hashlib.sha256(body).hexdigest()
    if number % 5 == 0:
        async with session.ws_connect(f"{address}/shout") as socket:
            for text in ("one", "two"):
                await socket.send_str(text)
                assert await socket.receive_str() == text.upper()


@uses
def test_one_server_and_many_clients(use: str) -> None:
    async def main() -> None:
        async with serving(use) as address:

            async def client(number: int) -> None:
                async with aiohttp.ClientSession() as session:
                    await rounds(lambda n: visit(session, address, number * ROUNDS + n))

            await many(use, client)

    run(use, main)


@uses
def test_a_server_and_a_client_each(use: str) -> None:
    async def main() -> None:
        async def pair(number: int) -> None:
            runner, address = await serve()
            async with aiohttp.ClientSession() as session:
                await rounds(lambda n: visit(session, address, number * ROUNDS + n))
            await runner.cleanup()

        await many(use, pair, TASKS // 2)

    run(use, main)


@uses
def test_a_request_that_times_out(use: str) -> None:
    async def main() -> None:
        async with serving(use) as address:

            async def client(_number: int) -> None:
                async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.05)) as session:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await session.get(f"{address}/slow")
                        raise AssertionError("it answered")

            await many(use, client)

    run(use, main)


@uses
def test_the_end_in_the_middle(use: str) -> None:
    async def main() -> None:
        _runner, address = await inside(use, serve())

        async def go(number: int) -> None:
            async with aiohttp.ClientSession() as session:
                await visit(session, address, number)

        await abandoned(use, go)

    run(use, main)


def test_a_session_shared_by_strands() -> None:
    """A session made in one strand is used from others by `strand.call`."""

    async def main() -> None:
        home = plait.Strand(name="http")

        async def open_session() -> Any:
            return aiohttp.ClientSession()

        async with serving("spawned") as address:
            session = await home.call(open_session())
            await many("spawned", lambda number: rounds(lambda n: home.call(visit(session, address, number * ROUNDS + n))))
            await home.call(session.close())

    run("spawned", main)
