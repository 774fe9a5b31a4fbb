"""The reader of a connection's stream does what asyncio's does, with less copying."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from unit_helpers import everywhere, in_plait, tls_contexts

from plait._rt.asyncio_face.streams import StreamReader

LIMIT = 64
Read = Callable[[asyncio.StreamReader], Any]


class Pausable:
    """What a reader asks of its transport."""

    paused = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def reader_of(kind: type[asyncio.StreamReader], transport: Any = None) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(LIMIT, asyncio.get_running_loop())
    reader.set_transport(transport or Pausable())
    reader.__class__ = kind
    return reader


async def history(kind: type[asyncio.StreamReader], seed: int) -> list[Any]:
    """What readers get who read, are cancelled, and are fed in ways that only the seed knows."""
    chance = random.Random(seed)
    reader, seen, task, fed = reader_of(kind), [], None, 0
    kinds: list[Read] = [
        lambda reader: reader.read(chance.choice((1, 20, 1000))),
        lambda reader: reader.read(chance.choice((1, 20, 1000))),
        lambda reader: reader.readexactly(chance.choice((1, 20, 100))),
        lambda reader: reader.readline(),
        lambda reader: reader.read(0),
    ]

    async def look(task: asyncio.Task[Any] | None) -> asyncio.Task[Any] | None:
        if task is None or not task.done():
            return task
        (result,) = await asyncio.gather(task, return_exceptions=True)
        seen.append(result if isinstance(result, bytes) else repr(result))
        return None

    for _ in range(60):
        action = chance.choice(("feed", "feed", "read", "read", "cancel", "step", "step", "look"))
        if action == "feed":
            size = chance.choice((0, 1, 10, 50, 200))
            data = bytes((fed + each) % 256 for each in range(size))
            fed += size
            reader.feed_data(chance.choice((bytes, bytearray))(data))
        elif action == "read" and task is None:
            task = asyncio.create_task(chance.choice(kinds)(reader))
        elif action == "cancel" and task is not None:
            task.cancel()
        elif action == "step":
            await asyncio.sleep(0)
        seen.append(reader.at_eof())
        task = await look(task)
    if chance.random() < 0.2:
        reader.set_exception(OSError("lost"))
    else:
        reader.feed_eof()
    seen.append(reader.at_eof())
    if task is not None:
        await asyncio.wait([task])
        await look(task)
    with contextlib.suppress(OSError):
        seen.append(await reader.read())
    seen.append(reader.at_eof())
    return seen


@pytest.mark.parametrize("seed", range(40))
@in_plait
async def test_as_asyncios(seed: int) -> None:
    for each in range(seed * 25, seed * 25 + 25):
        assert await history(StreamReader, each) == await history(asyncio.StreamReader, each), f"seed {each}"


@in_plait
async def test_what_comes_to_a_read_that_waits_is_passed_on_as_it_is() -> None:
    reader = reader_of(StreamReader)
    reading = asyncio.create_task(reader.read(1000))
    await asyncio.sleep(0)
    data = bytes(range(200))
    reader.feed_data(data)
    assert await reading is data


@pytest.mark.parametrize("kind", [StreamReader, asyncio.StreamReader])
@in_plait
async def test_who_reads_first_has_it(kind: type[asyncio.StreamReader]) -> None:
    """Another reads before the one for whom it came gets to it."""
    reader = reader_of(kind)
    waiting = asyncio.create_task(reader.read(1000))
    await asyncio.sleep(0)
    reader.feed_data(b"one")
    assert await reader.read(1000) == b"one"
    assert await waiting == b""


@in_plait
async def test_a_transport_is_paused_for_what_nobody_waits_for() -> None:
    transport = Pausable()
    reader = reader_of(StreamReader, transport)
    reading = asyncio.create_task(reader.read(1000))
    await asyncio.sleep(0)
    reader.feed_data(bytes(3 * LIMIT))
    assert not transport.paused
    reader.feed_data(b"more")
    assert transport.paused
    assert len(await reading) == 3 * LIMIT + 4
    assert not transport.paused


@everywhere
async def test_connections_have_such_readers() -> None:
    """Of both sides, with TLS and without."""
    of_server, of_client = tls_contexts()
    for tls in (False, True):
        readers: list[asyncio.StreamReader] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, readers: Any = readers) -> None:
            readers.append(reader)
            writer.write(await reader.read(100))
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=of_server if tls else None) as server:
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(),
                ssl=of_client if tls else None,
                server_hostname="localhost" if tls else None,
            )
            writer.write(b"there and back")
            assert await reader.read() == b"there and back"
            writer.close()
            await writer.wait_closed()
        assert [type(each) for each in (*readers, reader)] == [StreamReader, StreamReader]


@in_plait
async def test_readers_of_others_stay_what_they_are() -> None:
    class Own(asyncio.StreamReader):
        pass

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"something")
        writer.close()

    loop = asyncio.get_running_loop()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader = Own(loop=loop)
        transport, _ = await loop.create_connection(
            lambda: asyncio.StreamReaderProtocol(reader, loop=loop), *server.sockets[0].getsockname()
        )
        assert await reader.read() == b"something"
        transport.close()
    assert type(reader) is Own


@everywhere
async def test_nothing_is_lost_where_reads_are_cancelled() -> None:
    """Much data, read by time-outs and in pieces of any size."""
    body = random.Random(1).randbytes(2_000_000)

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chance, sent = random.Random(2), 0
        while sent < len(body):
            size = chance.choice((1, 100, 10_000, 300_000))
            writer.write(body[sent : sent + size])
            sent += size
            await (writer.drain() if chance.random() < 0.5 else asyncio.sleep(0))
        writer.close()

    chance, got = random.Random(3), bytearray()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        while not reader.at_eof():
            reading = asyncio.create_task(reader.read(chance.choice((10, 5_000, 1_000_000))))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.5:
                reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                got += await reading
        writer.close()
        await writer.wait_closed()
    assert bytes(got) == body
