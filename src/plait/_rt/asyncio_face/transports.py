"""asyncio's transports, guarded: used off their strand they raise WrongStrand instead of corrupting their buffers.

A guarded class is asyncio's own with a check before each method that changes the transport's state; a transport that
asyncio made gets it as its class (`guard`), so nothing of how asyncio makes them is repeated here. What the check costs a
socket's `write` is made up for by sending bytes as they are, where nothing is queued before them.
"""

from __future__ import annotations

import asyncio.sslproto
import functools
from typing import Any

from plait._rt.ground.cpython import (
    PIPES,
    _get_running_loop,
    _getframe,
    _SelectorDatagramTransport,
    _SelectorSocketTransport,
    _SSLProtocolTransport,
)
from plait.errors import WrongStrand

_ENCRYPTED = asyncio.sslproto.SSLProtocolState.WRAPPED  # type: ignore[attr-defined]
_METHODS = ("write", "writelines", "write_eof", "sendto", "close", "abort", "pause_reading", "resume_reading")
_SENDING = ("write", "writelines", "write_eof", "sendto", "close", "abort")  # the other end may be in the same strand


def guard(transport: Any) -> Any:
    """Have transport refuse to be used off its strand; returns it."""
    guarded = _guarded.get(type(transport))
    if guarded is not None:  # start_tls gives None where the connection was lost
        transport.__class__ = guarded
    return transport


def _made_of(base: Any) -> type:
    methods = {name: _checked(name, getattr(base, name)) for name in _METHODS if hasattr(base, name)}
    return type(base.__name__, (base,), methods)


def _checked(name: str, method: Any) -> Any:
    sends = name in _SENDING

    @functools.wraps(method)
    def checked(self: Any, *args: Any, **options: Any) -> Any:
        loop: Any = self._loop
        if _get_running_loop() is not loop and not _may_be_used(loop):
            if _getframe(1).f_code.co_name == "close" and _getframe(2).f_code.co_name == "__del__":
                return loop.call_soon_threadsafe(method, self)  # StreamWriter's: it runs on whichever thread collects
            raise WrongStrand(
                f"transport.{name}() was called off its strand {loop!r}: a transport belongs to the strand that made it. "
                f"Do it there, `await strand.call(...)`, with `strand = plait.strand_of(writer)`."
            )
        if sends and loop is not None:
            loop._sent()
        return method(self, *args, **options)

    return checked


def _may_be_used(loop: Any) -> bool:
    """From outside any loop, where the strand isn't run; and after the connection was lost, with nothing left to corrupt."""
    return loop is None or (_get_running_loop() is None and not loop._runs_elsewhere())


_guarded: dict[type, type] = {
    base: _made_of(base)
    for base in (
        _SelectorSocketTransport,
        _SelectorDatagramTransport,
        *PIPES,
        _SSLProtocolTransport,
    )
}


def _sends_at_once(write: Any) -> Any:
    @functools.wraps(write)
    def sends(self: Any, data: Any) -> None:
        at_once = type(data) is bytes and data and not self._buffer and not self._eof and not self._conn_lost
        if at_once and self._empty_waiter is None and _get_running_loop() is self._loop:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                pass
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as problem:
                self._fatal_error(problem, "Fatal write error on socket transport")
                return
            else:
                if sent == len(data):
                    self._loop._sent()  # type: ignore[union-attr]
                    return
                data = memoryview(data)[sent:]  # not a copy: it may be much
        write(self, data)

    return sends


def _looks_where_something_came(resume_reading: Any) -> Any:
    """asyncio has each resumed transport look for what came meanwhile; mostly nothing did."""

    @functools.wraps(resume_reading)
    def resumes(self: Any) -> None:
        protocol = self._ssl_protocol
        as_usual = protocol._state is _ENCRYPTED and not protocol._ssl_reading_paused and not protocol._write_backlog
        if as_usual and _get_running_loop() is self._loop and not (protocol._incoming.pending or protocol._sslobj.pending()):
            protocol._app_reading_paused = False
            return
        resume_reading(self)

    return resumes


# A read takes `max_size` of memory, whatever comes. glibc gives what is free at its heap's top back to the system where it is
# more than twice the largest block that it ever mapped and unmapped, and so at nearly each read, which then faults in its
# pages again: half of the time to read much. This maps a larger one and unmaps it, once, and touches none of it.
bytes(2 * _SelectorSocketTransport.max_size)

_guarded[_SelectorSocketTransport].write = _sends_at_once(_guarded[_SelectorSocketTransport].write)  # type: ignore[attr-defined]
_guarded[_SSLProtocolTransport].resume_reading = _looks_where_something_came(_guarded[_SSLProtocolTransport].resume_reading)  # type: ignore[attr-defined]
