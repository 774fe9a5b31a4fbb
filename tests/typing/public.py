"""The types of plait's public names, as mypy sees them: checked with the sources, never run."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from typing import Any, Literal, assert_type

import plait


async def fetch(number: int) -> int:
    await plait.sleep(0.01)
    return number * number


def square(number: int, *, plus: float = 0.0) -> float:
    return number * number + plus


def on_stall(stall: plait.Stall) -> None:
    assert_type(stall.seconds, float)


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readline())
    await plait.strand_of(writer).call(writer.drain())


def done(task: plait.Task[int]) -> None:
    assert_type(task.result(), int)


async def tasks() -> int:
    task = plait.spawn(fetch(3), name="x")
    assert_type(task, plait.Task[int])
    assert_type(await task, int)
    task.add_done_callback(done)
    as_task: asyncio.Task[int] = task
    as_future: asyncio.Future[int] = task
    assert_type(await as_task + await as_future, int)
    async with plait.TaskGroup() as group:
        assert_type(group, plait.TaskGroup)
        assert_type(group.create_task(fetch(1)), plait.Task[int])
    as_manager: contextlib.AbstractAsyncContextManager[object] = plait.TaskGroup()
    async with as_manager, asyncio.TaskGroup() as local:
        local.create_task(plait.Event().wait())
        local.create_task(plait.Strand().call(fetch(1)))
    assert_type(await asyncio.gather(task, fetch(1)), tuple[int, int])
    assert_type(await asyncio.wait_for(task, 1), int)
    finished, pending = await asyncio.wait([task])
    assert_type(finished | pending, set[plait.Task[int]])
    assert_type(await asyncio.shield(task), int)
    for each in asyncio.as_completed([task]):
        assert_type(await each, int)
    assert_type(await plait.to_thread(square, 3, plus=1.0), float)
    return task.result()


async def strands() -> None:
    async with plait.Strand(name="db", pinned=True) as strand:
        assert_type(strand, plait.Strand)
        assert_type(await strand.call(fetch(1)), int)
        assert_type(await strand.call(square, 1, plus=2.0), float)
        assert_type(strand.spawn(fetch(1)), plait.Task[int])
        assert_type(plait.strand_of(strand), plait.Strand)
        await strand.call(square, "1")  # type: ignore[call-overload]
        strand.spawn(square)  # type: ignore[arg-type]
    as_loop: asyncio.AbstractEventLoop = plait.current_strand()
    assert_type(as_loop.time(), float)


async def waits() -> None:
    nothing: Coroutine[Any, Any, None] = plait.sleep(1)
    await nothing
    assert_type(await plait.sleep(1, "x"), str)
    assert_type(await plait.Event().wait(), Literal[True])
    asyncio.create_task(plait.sleep(1))
    await plait.checkpoint()


async def servers() -> None:
    server = await plait.start_server(handle, "127.0.0.1", 0)
    as_asyncios: asyncio.Server = server
    assert_type(as_asyncios.is_serving(), bool)
    assert_type(server, plait.Server)
    assert_type(server.sockets, tuple[socket.socket, ...])
    async with server:
        await server.serve_forever()
    await server.drain()


def runs() -> None:
    assert_type(plait.run(tasks(), on_stall=on_stall), int)
    with plait.Runner(workers=2) as runner:
        assert_type(runner.run(tasks()), int)
    asyncio.Runner(loop_factory=plait.new_event_loop)
    asyncio.Runner(loop_factory=plait.EventLoop)
    assert_type(plait.new_event_loop(), plait.EventLoop)
