"""asyncio's stream reader, which passes on what came as it is to a `read` that waits for it.

asyncio copies it into the reader's buffer and out of that again, half of what reading much costs above the socket. A reader
that asyncio made gets this class (`hasten`), as transports get theirs (transports.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

_Plain: Any = asyncio.StreamReader


class StreamReader(_Plain):  # type: ignore[misc]
    """What differs: what comes while a `read` waits, with nothing buffered, and is not too much for it, is its `_piece` until
    it goes on. If more comes before that, or the read is cancelled, that is put where asyncio has it: in the buffer.
    """

    _awaited = 0  # how much a read waits for, while nothing came yet
    _piece: bytes | None = None

    def feed_data(self, data: Any) -> None:
        awaited, self._awaited = self._awaited, 0
        if type(data) is bytes and 0 < len(data) <= awaited and not self._eof:
            self._piece = data
            self._wakeup_waiter()
        else:
            self._buffer_piece()
            _Plain.feed_data(self, data)

    def at_eof(self) -> bool:
        return self._piece is None and bool(_Plain.at_eof(self))

    async def read(self, n: int = -1) -> bytes:
        if n <= 0 or self._exception is not None:
            everything: bytes = await _Plain.read(self, n)
            return everything
        if not self._buffer and self._piece is None and not self._eof:
            self._awaited = n
            try:
                await self._wait_for_data("read")
            except BaseException:
                self._buffer_piece()
                raise
            finally:
                self._awaited = 0
            piece, self._piece = self._piece, None
            if piece is not None:
                return piece
        self._buffer_piece()
        data = bytes(memoryview(self._buffer)[:n])
        del self._buffer[:n]
        self._maybe_resume_transport()
        return data

    def _buffer_piece(self) -> None:
        piece, self._piece = self._piece, None
        if piece is not None:
            self._buffer[:0] = piece


def hasten(protocol: Any) -> None:
    """Give the reader of a connection that begins this class, if it is asyncio's own."""
    reader = getattr(protocol, "_stream_reader", None)
    if type(reader) is _Plain and isinstance(protocol, asyncio.StreamReaderProtocol):
        reader.__class__ = StreamReader
