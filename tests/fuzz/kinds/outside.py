"""What comes from outside: threads, sockets. It has come before the loop looks, so each run sees it in the same iteration."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

from fuzz.kinds import inner, leaf
from fuzz.play import Boom, Play, show
from fuzz.program import Node


async def _thread(play: Play, function: Any) -> Any:
    asked = threading.Event()  # not done before it is asked for: the result would be there at once

    def call() -> Any:
        asked.wait()
        return function()

    result = play.loop.run_in_executor(play.thread, call)
    asked.set()
    play.thread.submit(int).result()  # by now the loop has been told
    return await result


@leaf(weight=1)
async def executor(play: Play) -> Any:
    return await _thread(play, lambda: "from a thread")


@leaf(weight=1)
async def executor_raises(play: Play) -> Any:
    def raises() -> None:
        raise Boom("in a thread")

    return await _thread(play, raises)


@inner(lambda dice: (dice.node(),), weight=1)
async def from_thread(play: Play, node: Node) -> Any:
    """run_coroutine_threadsafe, on a thread that doesn't wait for it."""
    future = play.thread.submit(asyncio.run_coroutine_threadsafe, play.node(node), play.loop).result()
    return await asyncio.wrap_future(future)


@leaf(lambda dice: (dice.randrange(1, 4),), weight=2, anywhere=False)
async def pair(play: Play, steps: int) -> Any:
    """Two steps after it was written, the peer in the same loop has it."""
    ours, theirs = socket.socketpair()
    async with _Streams(ours) as (reader, writer), _Streams(theirs) as (peer_reader, peer_writer):
        writer.write(b"data\n")
        for _ in range(steps):
            await asyncio.sleep(0)
        has = bytes(peer_reader._buffer)  # type: ignore[attr-defined]
        line = await peer_reader.readline()
        peer_writer.write(line)
        return has, await reader.readline()


class _Streams:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def __aenter__(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self._writer = await asyncio.open_connection(sock=self._sock)
        return reader, self._writer

    async def __aexit__(self, *_error: object) -> None:
        self._writer.close()


class _Pair:
    """Two sockets, which nobody waits for any more when they are closed."""

    def __init__(self, play: Play) -> None:
        self._loop = play.loop

    def __enter__(self) -> tuple[socket.socket, socket.socket]:
        self._sockets = socket.socketpair()
        for each in self._sockets:
            each.setblocking(False)
        return self._sockets

    def __exit__(self, *_error: object) -> None:
        for each in self._sockets:
            self._loop.remove_reader(each)
            self._loop.remove_writer(each)
            each.close()


@leaf(weight=2, anywhere=False)
async def sock_calls(play: Play) -> bytes:
    """The loop's own socket calls: a reader that waits before its data comes."""
    with _Pair(play) as (ours, theirs):
        receiving = play.make(play.loop.sock_recv(theirs, 10))
        await asyncio.sleep(0)
        await play.loop.sock_sendall(ours, b"raw")
        return await play.join(receiving)


@leaf(lambda dice: (dice.randrange(1, 4),), weight=1, anywhere=False)
async def add_reader(play: Play, steps: int) -> None:
    """Called in each iteration until it is taken away."""
    with _Pair(play) as (ours, theirs):
        ours.send(b"x")
        play.loop.add_reader(theirs, play.log, "readable")
        for _ in range(steps):
            await asyncio.sleep(0)
        play.loop.remove_reader(theirs)
        await asyncio.sleep(0)


@leaf(lambda dice: (dice.choice([1, 100_000, 1_000_000]),), weight=1, anywhere=False)
async def flow(play: Play, size: int) -> int:
    """More than the sockets hold: paused and resumed at both ends."""
    ours, theirs = socket.socketpair()
    async with _Streams(ours) as (_, writer), _Streams(theirs) as (reader, _peer):

        async def send() -> None:
            writer.write(b"x" * size)
            await writer.drain()
            writer.close()

        sending = play.make(send())
        try:
            return len(await reader.read())
        finally:
            sending.cancel()


@leaf(weight=1, anywhere=False)
async def server(play: Play) -> bytes:
    """A connection to a server in the same loop."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        writer.write(b"served\n")
        line = await reader.readline()
        writer.close()
        return line


@leaf(weight=1, anywhere=False)
async def add_writer(play: Play) -> None:
    """Writable at once, readable when something comes, in one descriptor."""
    with _Pair(play) as (ours, theirs):
        play.loop.add_reader(ours, play.log, "readable")
        play.loop.add_writer(ours, lambda: (play.log("writable"), play.loop.remove_writer(ours)))
        await asyncio.sleep(0)
        theirs.send(b"x")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        play.loop.remove_writer(ours)


_TO_A_READER = ("feed", "line", "until", "exactly", "some", "step", "step")


@leaf(lambda dice: ([dice.choice(_TO_A_READER) for _ in range(8)], dice.randrange(1, 40)), weight=2, anywhere=False)
async def reader(play: Play, what: list[str], size: int) -> None:
    """A stream reader with little room, all its ways to read, and an end that comes early."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        reader, writer = await asyncio.open_connection(sock=theirs, limit=24)
        try:
            for number, each in enumerate(what):
                if each == "feed":
                    ours.send(b"0123456789\nabc"[: size + number] * (1 + number % 3))
                elif each == "step":
                    await asyncio.sleep(0)
                else:
                    if number % 4 == 3:
                        ours.shutdown(socket.SHUT_WR)
                    await _read(play, reader, each, size)
        finally:
            writer.close()


async def _read(play: Play, reader: asyncio.StreamReader, how: str, size: int) -> None:
    reading = {
        "line": reader.readline,
        "until": lambda: reader.readuntil(b"b"),
        "exactly": lambda: reader.readexactly(size),
        "some": lambda: reader.read(size),
    }[how]()
    try:
        play.log(f"{how}: {await asyncio.wait_for(reading, 0 if size % 5 == 0 else None)!r}, {reader.at_eof()}")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, TimeoutError) as error:
        play.log(f"{how}: {show(error)}")


class _Told(asyncio.Protocol):
    """Says what it is told."""

    def __init__(self, play: Play, name: str) -> None:
        self._play, self._name = play, name

    def data_received(self, data: bytes) -> None:
        self._play.log(f"{self._name} received {len(data)}")

    def eof_received(self) -> None:
        self._play.log(f"{self._name} received the end")

    def pause_writing(self) -> None:
        self._play.log(f"{self._name} is to pause")

    def resume_writing(self) -> None:
        self._play.log(f"{self._name} is to go on")

    def connection_lost(self, error: Exception | None) -> None:
        self._play.log(f"{self._name} lost: {show(error)}")


_TO_A_TRANSPORT = ("write", "write", "write much", "pause", "resume", "eof", "abort", "close", "step", "step", "step")


@leaf(lambda dice: ([(dice.choice(_TO_A_TRANSPORT), dice.randrange(2)) for _ in range(8)],), weight=3, anywhere=False)
async def transports(play: Play, what: list[tuple[str, int]]) -> None:
    """Two transports that are used in any order, and what their protocols are told."""
    made = []
    for name, sock in zip(("left", "right"), socket.socketpair(), strict=True):
        transport, _ = await play.loop.create_connection(lambda name=name: _Told(play, name), sock=sock)  # type: ignore[misc]
        made.append(transport)
    try:
        for each, which in what:
            if each == "step":
                await asyncio.sleep(0)
            else:
                _use(play, made[which], each)
    finally:
        for transport in made:
            transport.close()


def _use(play: Play, transport: Any, how: str) -> None:
    if how == "write":
        transport.write(b"a few")
    elif how == "write much":
        if not transport.is_closing():  # from 3.12 on asyncio would watch the descriptor while it is closed
            transport.writelines([b"x" * 300_000, b"y" * 300_000])
        play.log(f"{transport.get_write_buffer_size() > 0}")
    elif how == "pause":
        transport.pause_reading()
    elif how == "resume":
        transport.resume_reading()
    elif how == "eof":
        try:
            transport.write_eof()
        except OSError as error:
            play.log(show(error))
    else:
        getattr(transport, how)()
