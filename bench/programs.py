"""The asyncio programs of pyperformance, and two echoes, on asyncio's loop, on uvloop and by `plait.run`: seconds each.

Written after pyperformance's async_tree, asyncio_tcp, asyncio_tcp_ssl and asyncio_websockets, with their sizes
(https://github.com/python/pyperformance, MIT licence). They know nothing of plait and never spawn.
tree        six levels of six tasks each, with `asyncio.gather`, or a TaskGroup (tg); lazy, or with asyncio's eager task
            factory (eager). What the 46,656 leaves do:
            none    nothing
            io      sleep 50 ms
            memo    nine in ten look for one of 90 values in a dict and sleep if it is not there, the others sleep
            mixed   half of them compute 500!, the others are as in memo
tcp, tls    a stream server writes 10 MB at a time to one client, without and with TLS
websockets  the package of that name: 100 messages of 1 MB, sent at once
protocol    echo: 20 connections of `asyncio.Protocol`s, 1,000 messages of 1 KB there and back on each, one after the other
stream      the same by `StreamReader` and `StreamWriter`
"""

import asyncio
import importlib
import math
import random
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from bench import common

HOST = "127.0.0.1"
CERTIFICATE = Path(__file__).resolve().parent.parent / "tests" / "unit" / "localhost.pem"
CHUNK = b"x" * 10 * 1024**2
MESSAGE = b"x" * 1024
CLIENTS = 20

Program = Callable[[float], Coroutine[Any, Any, None]]
Leaf = Callable[[dict[int, bool]], Coroutine[Any, Any, None]]


# The tree


async def none(_seen: dict[int, bool]) -> None:
    pass


async def io(_seen: dict[int, bool]) -> None:
    await asyncio.sleep(0.05)


async def memo(seen: dict[int, bool]) -> None:
    number = random.randint(1, 100)
    if number <= 90:
        if number in seen:
            return
        seen[number] = True
    await asyncio.sleep(0.05)


async def mixed(seen: dict[int, bool]) -> None:
    if random.random() < 0.5:
        math.factorial(500)
    else:
        await memo(seen)


LEAVES: dict[str, Leaf] = {"none": none, "io": io, "memo": memo, "mixed": mixed}


async def tree(leaf: Leaf, grouped: bool, eager: bool, scale: float) -> None:
    seen: dict[int, bool] = {}
    random.seed(0)
    if eager:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]

    async def gathered(level: int) -> None:
        if level == 0:
            await leaf(seen)
        else:
            await asyncio.gather(*[gathered(level - 1) for _ in range(6)])

    async def in_group(level: int) -> None:
        if level == 0:
            await leaf(seen)
        else:
            async with asyncio.TaskGroup() as group:
                for _ in range(6):
                    group.create_task(in_group(level - 1))

    await (in_group if grouped else gathered)(round(6 + math.log(scale, 6)))


# Much data at once


async def tcp(scale: float, count: int = 100, server_tls: Any = None, client_tls: Any = None) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(max(1, int(count * scale))):
            writer.write(CHUNK)
            await writer.drain()
        await close(writer)

    async with await asyncio.start_server(serve, HOST, 0, ssl=server_tls) as server:
        reader, writer = await asyncio.open_connection(HOST, port_of(server), ssl=client_tls)
        while await reader.read(len(CHUNK)):
            pass
        await close(writer)


async def tls(scale: float) -> None:
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.load_cert_chain(CERTIFICATE)
    client_tls = ssl.create_default_context()
    client_tls.check_hostname, client_tls.verify_mode = False, ssl.CERT_NONE
    await tcp(scale, 20, server_tls, client_tls)


async def websockets(scale: float) -> None:
    server: Any = importlib.import_module("websockets.asyncio.server")
    client: Any = importlib.import_module("websockets.asyncio.client")
    message, count, stop = b"x" * 1024**2, int(100 * scale), asyncio.Event()

    async def handle(socket: Any) -> None:
        for _ in range(count):
            await socket.recv()
        stop.set()

    async with server.serve(handle, HOST, 0) as serving:
        async with client.connect(f"ws://{HOST}:{port_of(serving)}") as socket:
            await asyncio.gather(*[socket.send(message) for _ in range(count)])
        await stop.wait()


# Echo


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        self.write(data)


class Client(asyncio.Protocol):
    """Sends the message, waits until it is back, sends it again."""

    def __init__(self, count: int) -> None:
        self.left, self.missing = count, len(MESSAGE)
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(MESSAGE)

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing:
            return
        self.left, self.missing = self.left - 1, len(MESSAGE)
        if self.left:
            self.transport.write(MESSAGE)
        else:
            self.transport.close()

    def connection_lost(self, _problem: BaseException | None) -> None:
        self.done.set_result(None)


async def protocol(scale: float) -> None:
    loop = asyncio.get_running_loop()

    async def talk(port: int) -> None:
        _, client = await loop.create_connection(lambda: Client(int(1000 * scale)), HOST, port)
        await client.done

    async with await loop.create_server(Echo, HOST, 0) as server:
        await each_client(talk, port_of(server))


async def stream(scale: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        await close(writer)

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        for _ in range(int(1000 * scale)):
            writer.write(MESSAGE)
            await writer.drain()
            await reader.readexactly(len(MESSAGE))
        await close(writer)

    async with await asyncio.start_server(serve, HOST, 0) as server:
        await each_client(talk, port_of(server))


async def each_client(talk: Callable[[int], Awaitable[None]], port: int) -> None:
    await asyncio.gather(*[talk(port) for _ in range(CLIENTS)])


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


def port_of(server: Any) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


def trees(eager: bool) -> dict[str, Program]:
    return {
        f"tree {name}{' tg' if grouped else ''}{' eager' if eager else ''}": partial(tree, leaf, grouped, eager)
        for name, leaf in LEAVES.items()
        for grouped in (False, True)
    }


EAGER = trees(True)  # from 3.12 on
WEBSOCKETS: dict[str, Program] = {"websockets": websockets}
OTHERS: dict[str, Program] = {**trees(False), "tcp": tcp, "tls": tls, "protocol": protocol, "stream": stream}
PROGRAMS = {**OTHERS, **WEBSOCKETS, **EAGER}


def main() -> None:
    args = common.program_arguments(__doc__, PROGRAMS, "tcp")
    common.emit(common.run(args.peer, common.timed, PROGRAMS[args.program], args.scale))


if __name__ == "__main__":
    main()
