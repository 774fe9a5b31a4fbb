"""httpx, as a client of uvicorn and FastAPI (test_uvicorn.py has the server's side)."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

import pytest
from library_helpers import ROUNDS, abandoned, library, many, rounds, run, uses

httpx = library("httpx")
library("fastapi")


async def visit(client: Any, number: int) -> None:
    """One round of everything."""
    assert (await client.get(f"/square/{number}")).json() == {"square": number * number}
    body = bytes([number % 256]) * 50_000
    assert (await client.post("/digest", content=body)).json() == {"digest": hashlib.sha256(body).hexdigest()}
    if number % 5 == 0:
        async with client.stream("GET", "/stream/7") as answer:
            assert [line async for line in answer.aiter_lines()] == [f"line {n}" for n in range(7)]


@uses
def test_a_client_each(use: str, web: str) -> None:
    async def main() -> None:
        async def work(number: int) -> None:
            async with httpx.AsyncClient(base_url=web, timeout=30) as client:
                await rounds(lambda n: visit(client, number * ROUNDS + n))

        await many(use, work)

    run(use, main)


@uses
def test_a_request_that_times_out(use: str, web: str) -> None:
    async def main() -> None:
        async def work(_number: int) -> None:
            async with httpx.AsyncClient(base_url=web, timeout=0.1) as client:
                with contextlib.suppress(httpx.TimeoutException):
                    await client.get("/slow")
                    raise AssertionError("it answered")

        await many(use, work)

    run(use, main)


@uses
@pytest.mark.complains("Task exception was never retrieved")  # of a task that lost its cancel in anyio, which connects
def test_the_end_in_the_middle(use: str, web: str) -> None:
    async def main() -> None:
        async def go(number: int) -> None:
            async with httpx.AsyncClient(base_url=web, timeout=30) as client:
                await visit(client, number)

        await abandoned(use, go, loses_cancels=True)

    run(use, main)


@uses
def test_an_app_called_without_a_server(use: str) -> None:
    """httpx's ASGITransport calls the application in the caller's strand."""
    from web_app import app

    async def main() -> None:
        async def work(number: int) -> None:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(base_url="http://app", transport=transport) as client:
                await rounds(lambda n: visit(client, number * ROUNDS + n))

        await many(use, work)

    run(use, main)
