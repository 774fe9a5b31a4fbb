"""Servers whose connections each have a strand of their own."""

from __future__ import annotations

import asyncio
import logging
import socket
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any

from plait._rt.ground.cpython import _get_running_loop, _getframe
from plait._rt.ground.spawn_site import Site, site_of
from plait._rt.shutdown import Stuck
from plait._rt.strand.strand import Strand, current_strand
from plait._rt.task.checks import check_callable
from plait.sync import Event

logger = logging.getLogger("plait")

ACCEPT_BATCH = 64
LOOK_SECONDS = 0.25  # between two looks whether connections are stuck
ACCEPT_RETRY = 1.0  # seconds to wait when the process is out of descriptors

Handler = Callable[[StreamReader, StreamWriter], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class _Settings:
    """What all connections of a server have in common."""

    handler: Handler
    limit: int
    ssl: SSLContext | None
    ssl_options: dict[str, Any]
    backlog: int
    site: Site  # where the server was started, for the stall report


class Server(asyncio.Server):
    """What `start_server` returns: asyncio.Server's interface, as it is since 3.13, on every version; and `drain`.

    Thread safety: every method, from any strand or thread, except that what is awaited needs a strand.
    """

    # Invariants
    #  V1  `_clients` has the strand of each connection from the accept until its socket is closed. The accept strand puts it
    #      in; the connection's takes it out. Its value is None, or what a connection that isn't set up yet is to do then.
    #  V2  `_lingering` has the strands whose handler goes on after that, with its task. A strand is put in before it is taken
    #      out of `_clients`, so that who finds that empty finds all of these.
    #  V3  `_stop` runs once, in the turn of the accept strand; nothing is accepted after it. It says that the server is
    #      closed, then looks whether connections are left. Who takes one out does that first, and then looks whether the
    #      server is closed. Whichever comes second sees the other's.
    #  V4  `_tell_clients` sets `_told` first and looks who is in `_clients` after; the accept strand puts a connection in first
    #      and looks at `_told` after. So a connection that is accepted while the server closes is told, too.

    def __init__(self, strand: Strand, sockets: list[socket.socket], settings: _Settings, home: Strand) -> None:
        self._strand, self._listening, self._settings, self._home = strand, sockets, settings, home
        self._serving = self._closing = self._awaited = False
        self._clients: dict[Any, str | None] = {}
        self._told: str | None = None  # what the connections were told last
        self._lingering: dict[Any, Any] = {}
        self._closed, self._gone, self._drained = Event(), Event(), Event()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets (wrapped as asyncio's), none once it is closed."""
        return () if self._closing else tuple(TransportSocket(sock) for sock in self._listening)  # type: ignore[misc]

    def get_loop(self) -> Strand:
        """The strand that started it."""
        return self._home

    def is_serving(self) -> bool:
        """Does it accept?"""
        return self._serving and not self._closing

    async def start_serving(self) -> None:
        """Begin to accept, unless it does already; RuntimeError if it is closed."""
        if self._closing:
            raise RuntimeError(f"server {self!r} is closed")
        if not self._serving:
            await self._strand.call(self._start)

    def _start(self) -> None:
        if self._serving or self._closing:
            return
        for sock in self._listening:
            sock.listen(self._settings.backlog)
        for sock in self._listening:
            self._strand._add_reader(sock, self._accept, sock)
        self._serving = True

    async def serve_forever(self) -> None:
        """Accept until cancelled, or until `close`; then close the connections too, wait for them, and raise CancelledError.

        It doesn't wait for connections whose strand is stuck in a step for longer than the end of a run would.
        """
        if self._awaited:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        if self._closing:
            raise RuntimeError(f"server {self!r} is closed")
        self._awaited = True
        try:
            await self.start_serving()
            await self._closed.wait()
            raise asyncio.CancelledError
        except asyncio.CancelledError:
            try:
                self.close()
                self.close_clients()
                await self._clients_gone_or_stuck()
            finally:
                raise
        finally:
            self._awaited = False

    async def _clients_gone_or_stuck(self) -> None:
        stuck = Stuck(self._strand._pool)
        while not (self._gone.is_set() or (self._clients and self._clients.keys() <= stuck.strands())):
            try:
                await asyncio.wait_for(self._gone.wait(), LOOK_SECONDS)
            except TimeoutError:
                pass

    def close(self) -> None:
        """Stop listening; connections go on. Idempotent. If it is just accepting one, the sockets are closed after that."""
        if not self._closing:
            self._closing = True
            if self._strand._closed:
                self._stop()  # the run is over, and nobody else there
            elif not self._strand._run_if_idle(self._stop):
                self._strand.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        for sock in self._listening:
            self._strand._remove_reader(sock)
            sock.close()
        self._closed.set()
        self._look()

    def close_clients(self) -> None:
        """Close the connections, as `writer.close()` does in each of their strands: what was written is sent."""
        self._tell_clients("close")

    def abort_clients(self) -> None:
        """Close the connections without sending what was written."""
        self._tell_clients("abort")

    def _tell_clients(self, what: str) -> None:
        running: Any = _get_running_loop()
        self._told = what  # (V4)
        for strand in list(self._clients):
            if strand is running:
                self._tell(strand, what)
            elif not strand._closed:
                strand.call_soon_threadsafe(self._tell, strand, what)

    def _tell(self, strand: Strand, what: str) -> None:
        """In the connection's strand."""
        for raw in list(strand._transports.values()):
            connection = raw._server
            if isinstance(connection, _Connection) and connection.server is self:
                getattr(connection._transport or raw, what)()  # type: ignore[attr-defined]
                return
        if strand in self._clients:
            self._clients[strand] = what  # (V1)

    async def wait_closed(self) -> None:
        """Wait until it is closed and all connections are gone, as asyncio's does since 3.12.1."""
        await self._gone.wait()

    async def drain(self) -> None:
        """Close it and wait until all connections are gone and their handlers have ended.

        It tells nobody to go: a time-out and `close_clients` or `abort_clients` do. A handler may go on after its connection
        is gone; `wait_closed` doesn't wait for that. Not to be called in a handler, which would wait for itself.
        """
        self.close()
        await self._drained.wait()

    def _look(self) -> None:
        if self._closed.is_set() and not self._clients:
            self._gone.set()
            if not self._lingering:
                self._drained.set()

    async def __aenter__(self) -> Server:  # type: ignore[override]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.close()
        await self.wait_closed()

    def __repr__(self) -> str:
        return f"<plait.Server sockets={self.sockets!r}>"

    # Connections

    def _accept(self, listening: socket.socket) -> None:
        """The reader callback of a listening socket: each connection goes to a strand of its own."""
        for _ in range(ACCEPT_BATCH):
            try:
                connection, peer = listening.accept()
            except ConnectionAbortedError:
                continue
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                logger.exception("accept failed on %r; trying again in %.0f s", listening, ACCEPT_RETRY)
                self._strand._remove_reader(listening)
                self._strand.call_later(ACCEPT_RETRY, self._resume, listening)
                return
            connection.setblocking(False)
            strand = self._strand._pool.new_strand(None, False)
            strand.__dict__["_site"] = self._settings.site
            self._clients[strand] = None
            if self._closing:  # and what is accepted just now is the last (V4)
                self._clients[strand] = self._told
            strand.call_soon_threadsafe(self._connected, strand, connection, peer)

    def _resume(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self._strand._add_reader(listening, self._accept, listening)

    def _connected(self, strand: Strand, sock: socket.socket, peer: Any) -> None:
        """In the connection's strand."""
        settings = self._settings
        options: dict[str, Any] = {"extra": {"peername": peer}}
        try:
            options["server"] = connection = _Connection(self, strand)
            if settings.ssl is None:
                strand._make_socket_transport(sock, connection, **options)
            else:
                options |= settings.ssl_options
                strand._make_ssl_transport(sock, connection, settings.ssl, server_side=True, **options)
        except BaseException:
            sock.close()
            self._lost(strand, None)
            raise
        what = self._clients[strand]
        if what is not None:
            self._tell(strand, what)

    def _lost(self, strand: Strand, handling: Any) -> None:
        """The connection of strand is gone, but handling, its task, goes on if there is one."""
        if handling is not None:
            self._lingering[strand] = handling
        if self._clients.pop(strand, self) is not self:
            self._look()

    def _handled(self, strand: Strand) -> None:
        if self._lingering.pop(strand, None) is not None:
            self._look()


class _Connection(StreamReaderProtocol):
    """asyncio's protocol of a stream, for one connection of server; and what its transport takes for its server, which is told
    when the socket was closed.

    That nobody asked for its exception asyncio forgives in `__del__`. Where several threads make objects, a free-threaded build
    may finalise the future before the protocol that it is in a cycle with, and it complains: once for each client that went
    away, say. So `connection_lost` does.
    """

    _handling: Any = None  # the handler's task, until it is done

    def __init__(self, server: Server, strand: Strand) -> None:
        self.server = server
        settings = server._settings
        super().__init__(StreamReader(limit=settings.limit, loop=strand), settings.handler, loop=strand)  # type: ignore[arg-type]

    def connection_made(self: Any, transport: Any) -> None:
        """As asyncio's of 3.13, with one callback less to keep."""
        reader, self._strong_reader = self._strong_reader, None
        self._transport = transport
        self._over_ssl = transport.get_extra_info("sslcontext") is not None
        reader.set_transport(transport)
        try:
            result = self._client_connected_cb(reader, StreamWriter(transport, self, reader, self._loop))
        except Exception as error:
            self._failed(error)
            return
        if asyncio.iscoroutine(result):
            self._handling = task = self._loop.create_task(result)
            task.add_done_callback(self._handled, context=task.get_context())

    def _handled(self: Any, task: asyncio.Task[Any]) -> None:
        self._handling = None
        if task.cancelled():
            if self._transport is not None:
                self._transport.close()
        elif (error := task.exception()) is not None:
            self._failed(error)
        self.server._handled(self._loop)

    def _failed(self: Any, error: BaseException) -> None:
        message = "Unhandled exception in client_connected_cb"
        self._loop.call_exception_handler({"message": message, "exception": error, "transport": self._transport})
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if exc is not None and not self._closed.cancelled():  # type: ignore[attr-defined]
            self._closed.exception()  # type: ignore[attr-defined]

    # What asyncio's transports ask of a server; up to 3.12 they don't say who they are

    def _attach(self, _transport: Any = None) -> None:
        pass

    def _detach(self: Any, _transport: Any = None) -> None:
        self.server._lost(self._loop, self._handling)

    def __del__(self: Any) -> None:  # up to 3.12 a transport that nobody closed doesn't tell its server
        super().__del__()
        self._detach()


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
    ssl: SSLContext | None = None,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    keep_alive: bool | None = None,
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
    check_callable(client_connected_cb)
    if isinstance(ssl, bool):
        raise TypeError("ssl argument must be an SSLContext or None")
    if limit <= 0:
        raise ValueError("Limit cannot be <= 0")
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
    for listening in sockets if keep_alive else ():
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    settings = _Settings(client_connected_cb, limit, ssl, options, backlog, site_of(_getframe(1)))
    server = Server(strand, sockets, settings, home)
    try:
        if start_serving:
            await server.start_serving()
    except OSError:
        if sock is None:
            server.close()
            await server._closed.wait()
        raise
    return server
