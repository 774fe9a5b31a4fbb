"""uvicorn with `--loop plait:new_event_loop`, serving FastAPI; and uvicorn.Server inside a program of plait's."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import servers
from library_helpers import ROUNDS, inside, library, many, rounds, run, uses

import plait

uvicorn = library("uvicorn")
library("fastapi")
httpx = library("httpx")


async def visit(client: Any, number: int) -> None:
    """One round: an async endpoint, a blocking one, a streamed answer."""
    assert (await client.get(f"/square/{number}")).json() == {"square": number * number}
    assert (await client.get(f"/blocking/{number}")).json() == {"square": number * number}
    if number % 5 == 0:
        assert (await client.get("/stream/3")).text == "line 0\nline 1\nline 2\n"


async def clients(use: str, address: str) -> None:
    """Hundreds of rounds."""

    async def work(number: int) -> None:
        async with httpx.AsyncClient(base_url=address, timeout=30) as client:
            await rounds(lambda n: visit(client, number * ROUNDS + n))

    await many(use, work)


def test_the_command_serves_with_plaits_loop(web: str) -> None:
    assert httpx.get(f"{web}/loop").json() == {"loop": "plait.runtime"}
    run("run", lambda: clients("run", web))


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "two workers"])
def test_the_command_ends_in_the_middle(tmp_path: Path, options: tuple[str, ...]) -> None:
    """A signal, while clients ask and one answer never comes."""
    server, port = servers.uvicorn(tmp_path, "--timeout-graceful-shutdown", "1", *options)
    address = f"http://127.0.0.1:{port}"

    async def main() -> None:
        asked = 0

        async def ask(number: int) -> None:
            nonlocal asked
            with contextlib.suppress(httpx.TransportError):
                async with httpx.AsyncClient(base_url=address, timeout=30) as client:
                    while True:
                        assert (await client.get(f"/square/{number}")).json() == {"square": number * number}
                        asked += 1

        async def wait() -> None:
            with contextlib.suppress(httpx.TransportError):
                async with httpx.AsyncClient(base_url=address, timeout=30) as client:
                    await client.get("/slow")

        asking = [asyncio.create_task(ask(number)) for number in range(10)] + [asyncio.create_task(wait())]
        while asked < 100:
            await asyncio.sleep(0.005)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*asking)

    run("run", main)
    assert server.end(10) in (0, -signal.SIGTERM), server.output()


class Served(uvicorn.Server):  # type: ignore[misc, name-defined]
    """A server that says when it is up, and leaves the signals to us."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def serving(use: str) -> AsyncIterator[str]:
    """uvicorn.Server in this loop, or in a strand of its own."""
    server = Served(uvicorn.Config("web_app:app", port=0, log_level="warning"))
    server.up = plait.Event()
    task = asyncio.ensure_future(inside(use, server.serve()))
    await server.up.wait()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


@uses
def test_a_server_in_the_program(use: str) -> None:
    async def main() -> None:
        async with serving(use) as address:
            await clients(use, address)

    run(use, main)
