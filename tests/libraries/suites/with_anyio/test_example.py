"""An ordinary anyio suite, and what plait adds to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import plait

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def listener() -> AsyncIterator[Any]:
    """A server, in the module's loop."""

    async def echo(stream: Any) -> None:
        async with stream:
            await stream.send(await stream.receive())

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        yield listener
        group.cancel_scope.cancel()


async def ask(port: int) -> bytes:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"hello")
        return await stream.receive()


async def test_as_it_was(listener: Any) -> None:
    assert await ask(listener.extra(anyio.abc.SocketAttribute.local_port)) == b"hello"
    assert plait.current_strand()


async def test_in_strands(listener: Any) -> None:
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with plait.TaskGroup() as group:
        asking = [group.create_task(ask(port)) for _ in range(20)]
    assert {task.result() for task in asking} == {b"hello"}
