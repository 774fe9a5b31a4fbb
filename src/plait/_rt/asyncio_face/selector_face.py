"""SelectorFace: a strand's poller, as those see it who know asyncio's `loop._selector`.

asyncio's transports ask it when they print themselves; virtual clocks and others read it, and put a `select` of their own in
place of its. A strand with a thread of its own calls that from then on (ThreadStrand._poll); in the pool's strands nobody asks.
Its strand's thread only.
"""

from __future__ import annotations

import selectors
from selectors import EVENT_READ, EVENT_WRITE, SelectorKey
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait._rt.asyncio_face.loop import AsyncioFace


class SelectorFace(selectors.BaseSelector):
    """As asyncio has it: a key's data are the handles of its reader and its writer, None for none."""

    def __init__(self, strand: AsyncioFace) -> None:
        self._strand = strand

    def get_key(self, fileobj: Any) -> SelectorKey:
        """What fileobj is watched for; KeyError if it isn't."""
        fd = self._strand._fd_of(fileobj)
        pair = self._strand._watched(fd)
        events = events_of(pair)
        if not events:
            raise KeyError(f"{fileobj!r} is not registered")
        return SelectorKey(fileobj, fd, events, pair)

    def get_map(self) -> Mapping[Any, SelectorKey]:
        """The keys by descriptor, as they are now."""
        return {fd: self.get_key(fd) for fd in self._strand._watched_fds()}

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """Watch fileobj; data are two handles as asyncio's."""
        if events_of(self._strand._watched(self._strand._fd_of(fileobj))):
            raise KeyError(f"{fileobj!r} is already registered")
        return self.modify(fileobj, events, data)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """Watch it for these events from now on."""
        strand, (reader, writer) = self._strand, data
        for kind, handle, add, remove in (
            (EVENT_READ, reader, strand._add_reader, strand._remove_reader),
            (EVENT_WRITE, writer, strand._add_writer, strand._remove_writer),
        ):
            if events & kind:
                add(fileobj, handle._callback, *handle._args, context=handle._context)
            else:
                remove(fileobj)
        return self.get_key(fileobj)

    def unregister(self, fileobj: Any) -> SelectorKey:
        """Watch it no more."""
        key = self.get_key(fileobj)
        self._strand._remove_reader(fileobj)
        self._strand._remove_writer(fileobj)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Wait for timeout seconds (None: for ever) at most; the keys of what is ready, and for what."""
        return self._strand._select(timeout)


def events_of(pair: tuple[Any, Any]) -> int:
    """What the handles of a reader and a writer wait for."""
    reader, writer = pair
    return (EVENT_READ if reader is not None else 0) | (EVENT_WRITE if writer is not None else 0)
