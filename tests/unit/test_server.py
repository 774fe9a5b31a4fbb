"""plait.start_server: asyncio.start_server, a strand for each connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import socket
import struct
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from unit_helpers import (
    LONG,
    collected,
    eventually,
    everywhere,
    forever,
    hear,
    in_plait,
    open_fds,
    other_strand,
    tls_contexts,
)

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


def test_it_has_all_of_asyncios() -> None:
    assert issubclass(plait.Server, asyncio.Server)
    of_3_13 = {"close_clients", "abort_clients", "close", "wait_closed", "serve_forever", "start_serving", "sockets"}
    for name in of_3_13 | {name for name in vars(asyncio.Server) if not name.startswith("_")}:
        assert name in vars(plait.Server)


@everywhere
async def test_wait_closed_waits_for_the_close_and_for_the_connections() -> None:
    server = await plait.start_server(echo, "127.0.0.1", 0)
    assert server.is_serving()
    assert server.get_loop() is plait.current_strand()
    (listening,) = server.sockets
    address = listening.getsockname()
    assert address[1] > 0
    waits = [asyncio.create_task(server.wait_closed()), plait.spawn(server.wait_closed())]
    async with connected(server) as (reader, writer):
        writer.write(b"before\n")
        assert await reader.readline() == b"before\n"
        server.close()
        server.close()
        await plait.sleep(0.01)
        assert not any(wait.done() for wait in waits)
        assert not server.is_serving()
        assert server.sockets == ()
        writer.write(b"after\n")  # connections go on
        assert await reader.readline() == b"after\n"
    await asyncio.wait_for(asyncio.gather(*waits), LONG)
    await server.wait_closed()
    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection(*address)
    for refused in (server.start_serving, server.serve_forever):
        with pytest.raises(RuntimeError, match="closed"):
            await refused()


@in_plait
async def test_wait_closed_of_an_open_server_without_connections_waits() -> None:
    server = await plait.start_server(echo, "127.0.0.1", 0)
    wait = asyncio.create_task(server.wait_closed())
    await plait.sleep(0.005)
    assert not wait.done()
    server.close()
    await asyncio.wait_for(wait, LONG)


@everywhere
async def test_its_port_is_free_when_it_is_closed() -> None:
    """asyncio's `close` closes the sockets before it returns."""
    server = await plait.start_server(echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    async with connected(server) as (reader, writer):
        writer.write(b"x\n")
        assert await reader.readline() == b"x\n"
        await plait.sleep(0.01)  # the accept strand is idle again
        server.close()
        for _ in range(200 if os.environ.get("PLAIT_SELECTOR") else 0):  # a poll that is under way has the socket until it ends
            with contextlib.suppress(OSError):
                socket.create_server(address).close()
                break
            await plait.sleep(0.005)
        async with await plait.start_server(echo, *address) as again:
            assert await ask(again, b"y\n") == b"y\n"


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("what", ["close_clients", "abort_clients"])
def test_clients_are_told_to_go(what: str, tls: bool) -> None:
    theirs, ours = tls_contexts() if tls else (None, None)
    more: dict[str, Any] = {"ssl": ours, "server_hostname": "localhost"} if tls else {}

    async def main() -> None:
        for tell_from in (other_strand, plait.to_thread):
            server = await plait.start_server(echo, "127.0.0.1", 0, ssl=theirs)
            async with connected(server, **more) as one, connected(server, **more) as two:
                for reader, writer in (one, two):
                    writer.write(b"x\n")
                    assert await reader.readline() == b"x\n"
                server.close()
                await tell_from(getattr(server, what))
                for reader, _ in (one, two):
                    with contextlib.suppress(OSError):
                        assert await asyncio.wait_for(reader.read(), LONG) == b""
                await asyncio.wait_for(server.wait_closed(), LONG)

    plait.run(main(), workers=2)


@in_plait
async def test_a_client_in_its_handshake_is_told_to_go() -> None:
    theirs, _ = tls_contexts()
    server = await plait.start_server(echo, "127.0.0.1", 0, ssl=theirs)
    async with connected(server) as (reader, writer):  # it never says hello
        await eventually(lambda: server._clients)
        server.close()
        server.close_clients()
        assert await asyncio.wait_for(reader.read(), LONG) == b""
        await asyncio.wait_for(server.wait_closed(), LONG)


@in_plait
async def test_a_connection_that_became_tls_is_told_to_go() -> None:
    theirs, ours = tls_contexts()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(theirs)
        await echo(reader, writer)

    server = await plait.start_server(handle, "127.0.0.1", 0)
    async with connected(server) as (reader, writer):
        await writer.start_tls(ours, server_hostname="localhost")
        writer.write(b"x\n")
        assert await asyncio.wait_for(reader.readline(), LONG) == b"x\n"
        server.close()
        server.close_clients()
        assert await asyncio.wait_for(reader.read(), LONG) == b""
    await asyncio.wait_for(server.wait_closed(), LONG)


@everywhere
async def test_drain_waits_for_handlers_that_go_on_without_their_connection() -> None:
    closed, go, ended = plait.Event(), plait.Event(), threading.Event()

    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()
        closed.set()
        await go.wait()
        ended.set()

    server = await plait.start_server(handle, "127.0.0.1", 0)
    assert await ask(server, b"") == b""
    await closed.wait()
    drained = asyncio.create_task(server.drain())
    await asyncio.wait_for(server.wait_closed(), LONG)
    assert not server.is_serving()
    assert not drained.done()
    go.set()
    await asyncio.wait_for(drained, LONG)
    assert ended.is_set()
    await server.drain()


@in_plait
async def test_a_connection_that_was_left_without_a_word_is_not_waited_for() -> None:
    """Its transport complains, as asyncio's."""

    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # so that nothing refers to it any more
        paused.set()

    paused = plait.Event()
    server = await plait.start_server(handle, "127.0.0.1", 0)
    with pytest.warns(ResourceWarning, match="unclosed"):
        async with connected(server):
            await paused.wait()
            await eventually(lambda: collected(lambda: server._clients or None))
    server.close()
    await asyncio.wait_for(server.drain(), LONG)


@in_plait
async def test_closed_twice_and_after_the_run() -> None:
    server = await plait.start_server(echo, "127.0.0.1", 0)
    servers.append(server)


servers: list[plait.Server] = []


def test_a_server_of_a_finished_run_is_closed_all_the_same() -> None:
    test_closed_twice_and_after_the_run()
    server = servers.pop()
    listening = server._listening[0]
    assert listening.fileno() >= 0
    server.close()
    server.close_clients()
    server.close()
    assert listening.fileno() < 0
    assert server.sockets == ()


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


@everywhere
@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_the_end_of_serve_forever_is_the_end_of_the_connections(how: str) -> None:
    server = await plait.start_server(echo, "127.0.0.1", 0)
    serving = asyncio.create_task(server.serve_forever())
    async with connected(server) as (reader, writer):
        writer.write(b"x\n")
        assert await reader.readline() == b"x\n"
        server.close() if how == "close" else serving.cancel()
        assert await asyncio.wait_for(reader.read(), LONG) == b""
        done, _ = await asyncio.wait([serving], timeout=LONG)
    assert done
    assert serving.cancelled()


@in_plait(shutdown_grace=0.2)
async def test_the_end_of_serve_forever_waits_for_no_stuck_handler() -> None:
    stuck, go = threading.Event(), threading.Event()

    async def handle(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        stuck.set()
        go.wait(LONG)

    server = await plait.start_server(handle, "127.0.0.1", 0)
    serving = asyncio.create_task(server.serve_forever())
    async with connected(server):
        await hear(stuck)
        serving.cancel()
        done, _ = await asyncio.wait([serving], timeout=LONG / 2)
        assert done
        go.set()
    await asyncio.wait_for(server.drain(), LONG)


@in_plait
async def test_start_serving_later() -> None:
    server = await plait.start_server(echo, "127.0.0.1", 0, start_serving=False)
    async with server:
        with pytest.raises(ConnectionRefusedError):  # it doesn't listen yet, as asyncio's
            await ask(server, b"x\n")
        await server.start_serving()
        await server.start_serving()
        assert await ask(server, b"x\n") == b"x\n"


@in_plait
async def test_keep_alive_is_set_for_connections() -> None:
    kept: list[int] = []

    def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.append(writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        writer.close()

    for keep_alive in (None, True):
        async with await plait.start_server(handle, "127.0.0.1", 0, keep_alive=keep_alive) as server:
            assert await ask(server, b"") == b""
    assert [bool(each) for each in kept] == [False, True]


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
async def test_a_failing_handler_is_reported_as_asyncio_does(caplog: pytest.LogCaptureFixture) -> None:
    def plain(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        raise ArithmeticError("plain")

    async def later(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        raise ArithmeticError("later")

    for handler in (plain, later):
        caplog.clear()
        async with await plait.start_server(handler, "127.0.0.1", 0) as server:
            assert await ask(server, b"") == b""
        (record,) = caplog.records
        assert record.name == "asyncio"
        assert record.getMessage().startswith("Unhandled exception in client_connected_cb\ntransport: <")
        assert record.exc_info is not None
        assert str(record.exc_info[1]) == handler.__name__


@in_plait
async def test_a_cancelled_handler_closes_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await forever()

    async with await plait.start_server(handle, "127.0.0.1", 0) as server:
        assert await ask(server, b"") == b""
    assert caplog.records == []


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


@pytest.mark.parametrize("how", ["close", "close_clients", "abort_clients", "serve_forever"])
def test_it_closes_while_clients_come_and_go(how: str) -> None:
    """Whatever they do meanwhile, it ends, and holds nothing of them."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                writer.write(line)
                if line == b"done\n":
                    writer.close()
                    await plait.sleep(0.001)  # and goes on for a while

    def client(number: int) -> None:
        rng = random.Random(number)
        held = []
        while not stop.is_set():
            try:
                sock = socket.create_connection(address, 0.1)
            except OSError:
                continue
            held.append(sock)
            if rng.random() < 0.3:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its close is a reset
            with contextlib.suppress(OSError):
                sock.sendall(rng.choice([b"", b"half", b"x\n", b"done\n"]))
            if rng.random() < 0.7 or len(held) > 20:
                held.pop(rng.randrange(len(held))).close()
        for sock in held:  # which hang until then
            sock.close()

    async def main(server: plait.Server) -> None:
        serving = asyncio.create_task(server.serve_forever())
        threads = [threading.Thread(target=client, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        await plait.sleep(0.05)
        if how == "serve_forever":
            serving.cancel()
            await asyncio.wait([serving], timeout=LONG)
        elif how == "close":
            server.close()
        else:
            server.close()
            for _ in range(3):
                getattr(server, how)()
                await plait.sleep(0)
        stop.set()
        await asyncio.wait_for(server.drain(), LONG)
        await asyncio.wait([serving])
        assert not server._clients
        assert not server._lingering
        for thread in threads:
            await plait.to_thread(thread.join, LONG)

    async def serve() -> None:
        nonlocal address
        for _ in range(3):
            stop.clear()
            server = await plait.start_server(handle, "127.0.0.1", 0, backlog=20)
            address = server.sockets[0].getsockname()
            await main(server)

    address: Any = None
    stop = threading.Event()
    before = open_fds()
    plait.run(serve(), workers=2)
    gc.collect()
    assert open_fds() == before


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
