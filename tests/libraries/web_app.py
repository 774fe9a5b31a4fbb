"""A FastAPI application: what test_httpx.py and test_uvicorn.py talk to."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Started, and stopped."""
    app.state.answered = 0
    yield
    app.state.answered = -1


app = FastAPI(lifespan=lifespan)


@app.get("/loop")
async def loop() -> dict[str, str]:
    """Which loop serves it."""
    return {"loop": type(asyncio.get_running_loop()).__module__}


@app.get("/square/{number}")
async def square(number: int) -> dict[str, int]:
    """A suspension, and an answer."""
    await asyncio.sleep(0.001)
    return {"square": number * number}


@app.get("/blocking/{number}")
def blocking(number: int) -> dict[str, int]:
    """FastAPI runs it on a thread of anyio's."""
    time.sleep(0.001)
    return {"square": number * number}


@app.post("/digest")
async def digest(request: Request) -> dict[str, str]:
    """Of the body."""
    try:
        return {"digest": hashlib.sha256(await request.body()).hexdigest()}
    except ClientDisconnect:  # clients are cancelled in the middle of things
        return {}


@app.get("/stream/{count}")
async def stream(count: int) -> StreamingResponse:
    """A streamed answer."""

    async def lines() -> AsyncIterator[str]:
        for number in range(count):
            yield f"line {number}\n"
            await asyncio.sleep(0)

    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/slow")
async def slow(request: Request) -> dict[str, str]:
    """Until the client has gone."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.01)
    return {}
