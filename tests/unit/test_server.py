"""plait.start_server: asyncio.start_server, a strand for each connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from unit_helpers import LONG, collected, eventually, everywhere, forever, in_plait, other_strand, tls_contexts

import plait


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ordinary asyncio code."""
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def connected(server: plait.Server, **options: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to it."""
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2], **options)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask(server: plait.Server, line: bytes) -> bytes:
    """Send it a line, and return what it answers."""
    async with connected(server) as (reader, writer):
        writer.write(line)
        return await asyncio.wait_for(reader.readline(), LONG)


@everywhere
async def test_echo() -> None:
    async with await plait.start_server(echo, "127.0.0.1", 0) as server:
        async with connected(server) as (reader, writer):
            for number in range(5):
                writer.write(b"%d\n" % number)
                assert await reader.readline() == b"%d\n" % number
            big = b"x" * 60_000 + b"\n"
            writer.write(big)
            assert await reader.readline() == big
            writer.write_eof()
            assert await reader.read() == b""


@everywhere
async def test_each_connection_has_a_strand_of_its_own() -> None:
    strands: list[Any] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        strands.append(plait.current_strand())
        assert asyncio.get_running_loop() is plait.current_strand()
        assert asyncio.current_task() is not None
        await echo(reader, writer)

    async with await plait.start_server(handle, "127.0.0.1", 0) as server:
        async with connected(server) as one, connected(server) as two:
            for reader, writer in (one, two):
                writer.write(b"x\n")
                assert await reader.readline() == b"x\n"
            assert len({*strands, plait.current_strand()}) == 3


@in_plait(workers=1)
async def test_a_handler_that_blocks_blocks_nobody_else() -> None:
    go = threading.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if line == b"block\n":
            assert go.wait(LONG)
        writer.write(line)
        await writer.drain()
        writer.close()

    async with await plait.start_server(handle, "127.0.0.1", 0) as server:
        blocked = [asyncio.create_task(ask(server, b"block\n")) for _ in range(10)]
        await plait.sleep(0.01)
        for _ in range(20):
            assert await ask(server, b"quick\n") == b"quick\n"
        assert not any(task.done() for task in blocked)
        go.set()
        assert await asyncio.gather(*blocked) == [b"block\n"] * 10


@in_plait(workers=1)
async def test_a_blocked_main_strand_stops_no_accepts() -> None:
    def talk() -> bytes:
        with socket.create_connection(address, LONG) as client:
            client.sendall(b"hello\n")
            return client.makefile("rb").readline()

    async with await plait.start_server(echo, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        answers: list[bytes] = []
        clients = [threading.Thread(target=lambda: answers.append(talk())) for _ in range(5)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(LONG)  # the main strand is here, and goes no further until all are served
        assert answers == [b"hello\n"] * 5


@in_plait(workers=2)
async def test_hundreds_of_connections() -> None:
    async with await plait.start_server(echo, "127.0.0.1", 0, backlog=300) as server:

        async def client(number: int) -> None:
            async with connected(server) as (reader, writer):
                for turn in range(3):
                    line = b"%d %d\n" % (number, turn)
                    writer.write(line)
                    assert await reader.readline() == line

        async with plait.TaskGroup() as group:
            for number in range(200):
                group.create_task(client(number))


# asyncio.Server's interface


@everywhere
async def test_close_and_wait_closed() -> None:
    server = await plait.start_server(echo, "127.0.0.1", 0)
    assert server.is_serving()
    assert server.get_loop() is plait.current_strand()
    (listening,) = server.sockets
    address = listening.getsockname()
    assert address[1] > 0
    async with connected(server) as (reader, writer):
        writer.write(b"before\n")
        assert await reader.readline() == b"before\n"
        server.close()
        server.close()
        await asyncio.wait_for(server.wait_closed(), LONG)
        assert not server.is_serving()
        assert server.sockets == ()
        writer.write(b"after\n")  # connections go on
        assert await reader.readline() == b"after\n"
    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection(*address)
    with pytest.raises(RuntimeError, match="closed"):
        await server.start_serving()


@in_plait
async def test_closed_from_another_strand_and_from_a_thread() -> None:
    for close_from in (other_strand, plait.to_thread):
        server = await plait.start_server(echo, "127.0.0.1", 0)
        await close_from(server.close)
        await asyncio.wait_for(server.wait_closed(), LONG)
        assert not server.is_serving()


@everywhere
async def test_serve_forever() -> None:
    server = await plait.start_server(echo, "127.0.0.1", 0, start_serving=False)
    assert not server.is_serving()
    serving = asyncio.create_task(server.serve_forever())
    await eventually(server.is_serving)
    assert await ask(server, b"x\n") == b"x\n"
    with pytest.raises(RuntimeError, match="already"):
        await server.serve_forever()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not server.is_serving()


@in_plait
async def test_close_ends_serve_forever() -> None:
    server = await plait.start_server(echo, "127.0.0.1", 0)
    serving = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0.005)
    server.close()
    done, _ = await asyncio.wait([serving], timeout=LONG)
    assert done
    assert serving.cancelled()


@in_plait
async def test_start_serving_later() -> None:
    server = await plait.start_server(echo, "127.0.0.1", 0, start_serving=False)
    async with server:
        await server.start_serving()
        await server.start_serving()
        assert await ask(server, b"x\n") == b"x\n"


@in_plait
async def test_socket_and_arguments() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    async with await plait.start_server(echo, sock=sock, limit=100) as server:
        assert server.sockets[0].getsockname() == sock.getsockname()
        assert await ask(server, b"x\n") == b"x\n"
        with pytest.raises(OSError, match="in use"):
            await plait.start_server(echo, *sock.getsockname())
    with pytest.raises(ValueError, match="sock"):
        await plait.start_server(echo, "127.0.0.1", 0, sock=sock)
    with pytest.raises(ValueError, match="ssl"):
        await plait.start_server(echo, "127.0.0.1", 0, ssl_handshake_timeout=1.0)
    with pytest.raises(ValueError, match=r"[Nn]either"):
        await plait.start_server(echo)


def test_outside_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"plait\.run"):
        asyncio.run(plait.start_server(echo, "127.0.0.1", 0))


# Handlers


@in_plait
async def test_limit_is_the_readers() -> None:
    problems: list[Exception] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readline()
        except ValueError as error:
            problems.append(error)
        writer.close()

    async with await plait.start_server(handle, "127.0.0.1", 0, limit=100) as server:
        assert await ask(server, b"x" * 1000 + b"\n") == b""
    assert len(problems) == 1


@in_plait
async def test_a_plain_function_may_handle() -> None:
    def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"plain\n")
        writer.close()

    async with await plait.start_server(handle, "127.0.0.1", 0) as server:
        assert await ask(server, b"") == b"plain\n"


@in_plait
async def test_a_raising_handler_is_reported_and_its_connection_closed(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        raise ArithmeticError("in the handler")

    async with await plait.start_server(handle, "127.0.0.1", 0) as server:
        assert await ask(server, b"x\n") == b""
        await eventually(lambda: collected(lambda: None) and "in the handler" in caplog.text)
        server.close()


@in_plait
async def test_a_handler_makes_tasks_and_asks_others() -> None:
    async def there(line: bytes) -> bytes:
        return line.upper()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await asyncio.wait_for(asyncio.create_task(reader.readline()), LONG)
        here, away = await asyncio.gather(there(line), plait.spawn(shared.call(there(line))))
        assert here == away
        writer.write(here)
        await writer.drain()
        writer.close()

    shared = plait.Strand()
    async with await plait.start_server(handle, "127.0.0.1", 0) as server:
        assert await ask(server, b"x\n") == b"X\n"


@in_plait
async def test_streams_belong_to_the_connections_strand() -> None:
    writers: list[asyncio.StreamWriter] = []
    kept = plait.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert writer.get_extra_info("peername")[0] == "127.0.0.1"
        assert writer.get_extra_info("sockname")[1] == port
        writers.append(writer)
        kept.set()
        await echo(reader, writer)

    async with await plait.start_server(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connected(server) as (reader, mine):
            await kept.wait()
            for misuse in (lambda: writers[0].write(b"x"), writers[0].close):
                with pytest.raises(plait.WrongStrand, match=r"strand\.call"):
                    misuse()
            mine.write(b"still fine\n")
            assert await reader.readline() == b"still fine\n"


@in_plait
async def test_clients_that_reset_harm_nobody() -> None:
    async with await plait.start_server(echo, "127.0.0.1", 0) as server:
        for _ in range(10):
            with socket.create_connection(server.sockets[0].getsockname()) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert await ask(server, b"x\n") == b"x\n"


@in_plait
async def test_a_reset_is_no_forgotten_exception(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio's protocol sees to that in its __del__, but on a free-threaded build its future may be finalised before it."""
    told = plait.Event()

    async def handle(reader: asyncio.StreamReader, writer: Any) -> None:
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        await plait.sleep(0)  # the reader is told first
        writer._protocol._closed = asyncio.get_running_loop().create_future()  # the one that was told goes first
        told.set()

    async with await plait.start_server(handle, "127.0.0.1", 0) as server:
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its close is a reset
        await told.wait()
    await plait.sleep(0.01)
    gc.collect()
    assert "never retrieved" not in caplog.text


@in_plait
async def test_a_slow_reader_is_waited_for() -> None:
    """Flow control: drain suspends the handler until the client reads."""
    size = 8 << 20

    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(size >> 16):
            writer.write(b"x" * (1 << 16))
            await writer.drain()
            written.append(1 << 16)
        writer.close()

    written: list[int] = []
    async with await plait.start_server(handle, "127.0.0.1", 0) as server:
        async with connected(server) as (reader, _):
            await plait.sleep(0.02)
            assert sum(written) < size
            total = 0
            while data := await reader.read(1 << 18):
                total += len(data)
            assert total == size


def test_connections_are_cancelled_at_the_end() -> None:
    ended = threading.Event()

    async def handle(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        started.set()
        try:
            await forever()
        finally:
            ended.set()

    started = plait.Event()

    async def main() -> socket.socket:
        server = await plait.start_server(handle, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        await started.wait()
        return client

    client = plait.run(main())
    assert ended.is_set()
    client.close()


# TLS


@everywhere
async def test_tls() -> None:
    theirs, ours = tls_contexts()
    async with await plait.start_server(echo, "127.0.0.1", 0, ssl=theirs, ssl_handshake_timeout=LONG) as server:
        async with connected(server, ssl=ours, server_hostname="localhost") as (reader, writer):
            for size in (1, 1000, 50_000):
                writer.write(b"x" * size + b"\n")
                assert await asyncio.wait_for(reader.readline(), LONG) == b"x" * size + b"\n"


@in_plait
async def test_tls_streams_belong_to_their_strand_too() -> None:
    theirs, ours = tls_contexts()
    async with await plait.start_server(echo, "127.0.0.1", 0, ssl=theirs) as server:
        async with connected(server, ssl=ours, server_hostname="localhost") as (reader, writer):

            def misuse() -> None:
                with pytest.raises(plait.WrongStrand, match=r"strand\.call"):
                    writer.write(b"off strand\n")
                with pytest.raises(plait.WrongStrand, match=r"strand\.call"):
                    writer.close()

            await other_strand(misuse)
            writer.write(b"mine\n")
            assert await asyncio.wait_for(reader.readline(), LONG) == b"mine\n"
