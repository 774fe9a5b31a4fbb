"""Servers whose connections each have a strand of their own."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import Awaitable, Callable
from typing import Any

from plait._rt.site import Site, site_of
from plait._rt.strand import Strand, current_strand
from plait.sync import Event

logger = logging.getLogger("plait")

ACCEPT_BATCH = 64
ACCEPT_RETRY = 1.0  # seconds to wait when the process is out of descriptors

Handler = Callable[[StreamReader, StreamWriter], Awaitable[None] | None]


class Server:
    """What `start_server` returns; the interface is asyncio.Server's, usable from any strand.

    Listening sockets are owned by the accept strand: `close` posts to it. Connections go on after `close`.
    """

    def __init__(self, strand: Strand, sockets: list[socket.socket], accept: _Acceptor, home: Any) -> None:
        self._strand, self._listening, self._accept, self._home = strand, sockets, accept, home
        self._serving = self._closing = False
        self._closed = Event()
        self._forever: asyncio.Task[Any] | Any = None

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets (wrapped as asyncio's), none once it is closed."""
        if self._closing:
            return ()
        return tuple(asyncio.trsock.TransportSocket(sock) for sock in self._listening)  # type: ignore[attr-defined]

    def get_loop(self) -> Any:
        """The strand that started it."""
        return self._home

    def is_serving(self) -> bool:
        """Does it accept?"""
        return self._serving and not self._closing

    async def start_serving(self) -> None:
        """Begin to accept, unless it does already."""
        if self._closing:
            raise RuntimeError(f"server {self!r} is closed")
        if not self._serving:
            self._serving = True
            await self._strand.call(self._start())

    async def _start(self) -> None:
        for sock in self._listening:
            self._strand._add_reader(sock, self._accept, sock)

    async def serve_forever(self) -> None:
        """Accept until cancelled, or until `close`; then CancelledError is raised, as with asyncio.Server."""
        if self._forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        await self.start_serving()
        self._forever = asyncio.current_task()
        try:
            await self._closed.wait()
            raise asyncio.CancelledError
        finally:
            self._forever = None
            self.close()
            await self.wait_closed()

    def close(self) -> None:
        """Stop listening; from any strand. Idempotent."""
        if not self._closing:
            self._closing = True
            self._strand.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        for sock in self._listening:
            self._strand._remove_reader(sock)
            sock.close()
        self._closed.set()

    async def wait_closed(self) -> None:
        """Wait until the listening sockets are closed."""
        if self._closing:
            await self._closed.wait()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.close()
        await self.wait_closed()

    def __repr__(self) -> str:
        return f"<plait.Server sockets={self.sockets!r}>"


class _Protocol(StreamReaderProtocol):
    """asyncio's, whose exception nobody has to ask for.

    asyncio says that in `__del__`. Where several threads make objects, a free-threaded build may finalise the future before the
    protocol that it is in a cycle with, and it complains: once for each client that went away, say.
    """

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if exc is not None and not self._closed.cancelled():  # type: ignore[attr-defined]
            self._closed.exception()  # type: ignore[attr-defined]


class _Acceptor:
    """The reader callback of a listening socket: each connection goes to a strand of its own."""

    def __init__(self, strand: Strand, handler: Handler, limit: int, ssl: Any, ssl_options: dict[str, Any], site: Site) -> None:
        self._strand, self._handler, self._limit, self._site = strand, handler, limit, site
        self._ssl, self._ssl_options = ssl, ssl_options

    def __call__(self, listening: socket.socket) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                logger.exception("accept failed on %r; trying again in %.0f s", listening, ACCEPT_RETRY)
                self._strand._remove_reader(listening)
                self._strand.call_later(ACCEPT_RETRY, self._resume, listening)
                return
            connection.setblocking(False)
            strand = self._strand._pool.new_strand(None, False)
            strand.__dict__["_site"] = self._site  # for the stall report
            strand.call_soon_threadsafe(self._connected, strand, connection, peer)

    def _resume(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self._strand._add_reader(listening, self, listening)

    def _connected(self, strand: Strand, connection: socket.socket, peer: Any) -> None:
        """In the connection's strand."""
        reader = StreamReader(limit=self._limit, loop=strand)
        protocol = _Protocol(reader, self._handler, loop=strand)  # type: ignore[arg-type]
        extra = {"peername": peer}
        if self._ssl is None:
            strand._make_socket_transport(connection, protocol, extra=extra)
        else:
            strand._make_ssl_transport(connection, protocol, self._ssl, server_side=True, extra=extra, **self._ssl_options)


async def start_server(
    client_connected_cb: Handler,
    host: Any = None,
    port: int | str | None = None,
    *,
    limit: int = 2**16,
    family: int = socket.AF_UNSPEC,
    flags: int = socket.AI_PASSIVE,
    sock: socket.socket | None = None,
    backlog: int = 100,
    ssl: Any = None,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    start_serving: bool = True,
) -> Server:
    """As `asyncio.start_server`, but each connection has its own strand: handlers run in parallel, and one that blocks
    blocks nobody else. Connections are accepted in a strand of their own, so a blocked main strand stops no accepts.

    client_connected_cb(reader, writer) is called in the connection's strand; if it is a coroutine function its coroutine runs
    as a task there. reader and writer belong to that strand: used elsewhere they raise WrongStrand.
    """
    home = current_strand()
    options = {}
    if ssl is not None:
        options = {"ssl_handshake_timeout": ssl_handshake_timeout, "ssl_shutdown_timeout": ssl_shutdown_timeout}
    elif ssl_handshake_timeout is not None or ssl_shutdown_timeout is not None:
        raise ValueError("ssl_handshake_timeout and ssl_shutdown_timeout are only meaningful with ssl")
    strand = home._pool.new_strand("accept", False)
    # asyncio resolves, binds and checks the arguments; nothing is accepted through it.
    bound = await home.create_server(
        asyncio.Protocol, host, port, family=family, flags=flags, sock=sock, backlog=backlog,
        reuse_address=reuse_address, reuse_port=reuse_port, start_serving=False,
    )  # fmt: skip
    sockets = [listening._sock for listening in bound.sockets]
    bound._sockets = None  # ours now
    try:
        for listening in sockets:
            listening.listen(backlog)
    except OSError:
        if sock is None:
            for listening in sockets:
                listening.close()
        raise
    acceptor = _Acceptor(strand, client_connected_cb, limit, ssl, options, site_of(sys._getframe(1)))
    server = Server(strand, sockets, acceptor, home)
    if start_serving:
        await server.start_serving()
    return server
