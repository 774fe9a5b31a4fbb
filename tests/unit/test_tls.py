"""TLS streams that stop reading and go on."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from unit_helpers import eventually, everywhere, in_plait, tls_contexts

import plait

BODY = bytes(range(251)) * 400
RECORD = 16 * 1024  # the most of a TLS record


@contextlib.asynccontextmanager
async def serving(
    send: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[dict[str, Any]]:
    """A TLS server that does send() for each client, and how to connect to it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    of_server, of_client = tls_contexts()
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=of_server) as server:
        yield {
            "host": "127.0.0.1",
            "port": server.sockets[0].getsockname()[1],
            "ssl": of_client,
            "server_hostname": "localhost",
        }


async def send_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(BODY)
    await reader.read()  # nothing follows it that would wake who forgot to look


class Sips(asyncio.BufferedProtocol):
    """Takes a few bytes at a time, and stops reading in between: most of a record is decrypted already, and waits."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.ended = asyncio.get_running_loop().create_future()
        self._space = memoryview(bytearray(1000))

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._space

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self._space[:nbytes]
        if len(self.got) == len(BODY):
            self._transport.close()
            return
        self._transport.pause_reading()
        asyncio.get_running_loop().call_later(0, self._transport.resume_reading)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)


@everywhere
async def test_what_is_decrypted_already_is_read_after_a_pause() -> None:
    async with serving(send_body) as address:
        _, protocol = await asyncio.get_running_loop().create_connection(Sips, **address)
        assert await protocol.ended is None
        assert protocol.got == BODY


@everywhere
async def test_a_reader_slower_than_the_sender() -> None:
    async with serving(send_body) as address:
        reader, writer = await asyncio.open_connection(**address, limit=1000)
        got = b""
        while len(got) < len(BODY):
            got += await reader.read(700)  # it stops at twice the limit, and goes on below it
            if len(got) % 2:
                await asyncio.sleep(0)
        assert got == BODY
        writer.close()
        await writer.wait_closed()


@in_plait()
async def test_one_that_goes_on_does_not_look_where_nothing_came(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol_class: Any = asyncio.sslproto.SSLProtocol
    looks = []
    resume_reading = protocol_class._resume_reading
    monkeypatch.setattr(protocol_class, "_resume_reading", lambda self: [looks.append(self), resume_reading(self)])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1):
            writer.write(b"x" * RECORD)

    async with serving(answer) as address:
        reader, writer = await asyncio.open_connection(**address, limit=1000)
        for _ in range(5):
            writer.write(b"?")
            assert await reader.readexactly(RECORD)
        assert not looks
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"?")
        protocol: Any = writer.transport._ssl_protocol  # type: ignore[attr-defined]
        await eventually(lambda: protocol._incoming.pending)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await reader.readexactly(RECORD)
        assert len(looks) == 1
        writer.close()
        await writer.wait_closed()


@in_plait()
async def test_off_its_strand_it_refuses() -> None:
    async def wait(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(wait) as address:
        _, writer = await asyncio.open_connection(**address)

        async def elsewhere() -> None:
            with pytest.raises(plait.WrongStrand, match="resume_reading"):
                writer.transport.resume_reading()  # type: ignore[attr-defined]

        await plait.spawn(elsewhere())
        writer.close()
        await writer.wait_closed()
