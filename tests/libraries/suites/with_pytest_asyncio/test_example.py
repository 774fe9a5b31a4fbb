"""An ordinary asyncio suite, and what plait adds to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import plait


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    """A server, in the test's loop."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def ask(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello\n")
    answer = await reader.readline()
    writer.close()
    return answer


@pytest.mark.asyncio
async def test_as_it_was(port: int) -> None:
    assert await ask(port) == b"hello\n"
    assert asyncio.get_running_loop() is plait.current_strand()


@pytest.mark.asyncio
async def test_in_strands(port: int) -> None:
    async with plait.TaskGroup() as group:
        asking = [group.create_task(ask(port)) for _ in range(20)]
    assert {task.result() for task in asking} == {b"hello\n"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def made_once() -> plait.Strand:
    """Of the module's loop."""
    return plait.current_strand()


@pytest.mark.asyncio(loop_scope="module")
async def test_one_loop_for_a_module(made_once: plait.Strand) -> None:
    assert plait.current_strand() is made_once
    assert await plait.spawn(asyncio.sleep(0, 7)) == 7
