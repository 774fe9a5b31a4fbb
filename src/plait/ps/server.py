"""Server: where a process that runs plait answers `plait ps`, for all of its runtimes.

It is an abstract Unix socket with the process's number in its name, so that there is no file to leave behind, and one thread
that sleeps in `accept`: the loops may all be stuck just when somebody asks, and a sleeping thread costs nothing. Both are there
while a runtime has threads, that is from its start, or from its first `spawn` on where PLAIT_WATCH_MAIN is 0.
Who connects is sent one JSON document, and need not say anything; users other than ours (and root) are refused.

Ownership: `_pools` and `_listener` change under `_lock`, a re-entrant lock: a finaliser may close a runtime in the middle. The
listener's thread takes no lock of ours. A fork's child has no listener until it runs plait itself: it closes the descriptors,
and leaves the socket, which is its parent's too, as it is.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
import threading
import weakref
from typing import Any

from plait._rt.ground.threads import Thread
from plait.ps.snapshot import snapshot

logger = logging.getLogger("plait")

PATIENCE = 5.0  # seconds for a caller to take its answer
JOIN_SECONDS = 2.0
RETRY = 0.5  # seconds from an accept that failed (there was no descriptor left) to the next
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def address_of(pid: int) -> str:
    """The name of a process's socket."""
    return f"\0plait-{pid}"


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end, as the kernel knows them."""
    option: int = getattr(socket, "SO_PEERCRED")  # noqa: B009  # only Linux has it
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return pid, uid


class SnapshotServer:
    """One process's."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._pools: dict[int, weakref.ref[Any]] = {}  # by id; weakly, since one that nobody closes is closed by its finaliser
        self._listener: _Listener | None = None

    def open(self, pool: Any) -> None:
        """Answer for pool too."""
        with self._lock:
            self._pools[id(pool)] = weakref.ref(pool)
            if self._listener is None and sys.platform == "linux":
                self._listener = _Listener.start(self) or self._listener  # (a finaliser may have opened it meanwhile)

    def close(self, pool: Any) -> None:
        """No longer; after the last one the thread is gone, and the descriptor."""
        with self._lock:
            self._pools.pop(id(pool), None)
            if not self._pools and self._listener is not None:
                self._listener.stop()
                self._listener = None

    def is_open(self) -> bool:
        """Does a thread sleep here? Any thread."""
        return self._listener is not None

    def forget(self) -> None:
        """In a fork's child: what is here is the parent's."""
        self._lock = threading.RLock()
        self._pools.clear()
        if self._listener is not None:
            self._listener.drop()
            self._listener = None

    def answer_to(self, uid: int) -> dict[str, Any]:
        """What the user uid gets."""
        if uid not in (0, os.geteuid()):
            return {"refused": "it belongs to another user"}
        return snapshot([pool for reference in list(self._pools.values()) if (pool := reference()) is not None])


class _Listener:
    """The socket, and the thread that sleeps at it."""

    def __init__(self, server: SnapshotServer, listening: socket.socket) -> None:
        self._server, self._listening = server, listening
        self._calling: socket.socket | None = None
        self._stopping = threading.Event()
        self._thread = Thread("plait-ps", self._serve)

    @classmethod
    def start(cls, server: SnapshotServer) -> _Listener | None:
        """None if the system gives no socket, or no thread, or somebody has the name: the program goes on without."""
        listening = None
        try:
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listening.settimeout(None)  # whatever the program's default: a time-out would be a wake-up
            listening.bind(address_of(os.getpid()))
            listening.listen()
            listener = cls(server, listening)
            listener._thread.start()
        except (OSError, RuntimeError) as error:
            logger.debug("`plait ps` will get no answer from this process: %s", error)
            if listening is not None:
                listening.close()
            return None
        return listener

    def stop(self) -> None:
        """End the thread, wherever it waits."""
        self._stopping.set()
        for each in (self._listening, self._calling):
            try:
                if each is not None:
                    each.shutdown(socket.SHUT_RDWR)
            except OSError:  # the caller has gone already
                pass
        if self._thread is not threading.current_thread() and not sys.is_finalizing():  # a finaliser may run on it, and last
            self._thread.join(JOIN_SECONDS)
        self._listening.close()

    def drop(self) -> None:
        """Close this process's descriptors only."""
        for each in (self._listening, self._calling):
            if each is not None:
                each.close()

    def _serve(self) -> None:
        while True:
            try:
                self._calling, _ = self._listening.accept()
            except OSError:
                if self._stopping.wait(RETRY):
                    return
                continue
            with self._calling as calling:
                self._answer(calling)
            self._calling = None

    def _answer(self, calling: socket.socket) -> None:
        calling.settimeout(PATIENCE)
        try:
            _, uid = peer_of(calling)
            calling.sendall(b"\n")  # we are here; the rest takes as long as there are tasks
            calling.sendall(json.dumps(self._server.answer_to(uid)).encode())
        except OSError:  # it went away, or does not read
            pass
        except Exception:
            logger.exception("plait failed to answer `plait ps`")


SERVER = SnapshotServer()
