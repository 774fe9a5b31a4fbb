"""What epoll does, by any class of `selectors`: where there is no epoll, and for tests.

A selector can't be changed by one thread while another waits in it (kqueue can; it isn't worth a second way). So a change
is noted, and whoever polls applies what was noted before it waits; if somebody waits already the bell ends that poll.

Ownership and invariants
    `_selector` belongs to whoever polls, one thread at a time. `_watched` changes under `_lock`, the poller's own re-entrant
    lock. (With two locks the poller would take the second under the first, and a finaliser that runs under the second may
    call the poller, which takes the first.) Such a finaliser makes its change whole in the middle of another: who has called
    a function since it read an entry looks whether it is still there. `_changed` is a list: any thread appends, who polls pops.
    E1  No change is slept through: who changes appends first and looks at `_polling` after; who polls raises it first and
        pops after.
    E2  One-shot: an event that is reported takes the mask away, also one set since it came, which is why a user arms again
        after each event, from what it wants then (SharedPoller: P2). An event that is not wanted any more takes nothing.
    E3  A closed descriptor is forgotten, as epoll does by itself: a selector would take its number for the next file's, or
        be ready for ever. Files are told apart by device and inode, where there are such.
"""

from __future__ import annotations

import errno
import os
import select
import selectors
import socket
import stat
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE
from threading import RLock
from typing import Any

READ, WRITE, ONESHOT = 1, 4, 1 << 30  # as epoll has them

CLASSES: dict[str, Any] = {
    name: getattr(selectors, f"{name.capitalize()}Selector")
    for name in ("poll", "select", "devpoll", "kqueue")
    if hasattr(selectors, f"{name.capitalize()}Selector")
}


class Bell:
    """What another thread, or a signal handler, ends a poll with: a pair of sockets, open as long as anybody has the bell."""

    _ours: Any = None
    _theirs: Any = None

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self.fd = self._ours.fileno()

    def ring(self) -> None:
        try:
            self._theirs.send(b"\0")
        except BlockingIOError:
            pass  # it has been rung often enough

    def silence(self) -> None:
        try:
            while len(self._ours.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def __del__(self) -> None:
        if self._ours is not None:
            self._ours.close()
            self._theirs.close()


class Selector:
    """A selector with epoll's methods. `ring` ends a poll that is under way."""

    def __init__(self, made: selectors.BaseSelector, ring: Callable[[], None], lock: RLock) -> None:
        self._selector, self._ring, self._lock = made, ring, lock
        self._select = made.select
        self._watched: dict[int, tuple[int, Any]] = {}  # fd -> what is wanted of it, and its file
        self._changed: list[int] = []
        self._polling = False

    def register(self, fd: int, mask: int) -> None:
        with self._lock:
            file = _file_of(fd)
            if self._entry_of(fd)[1] == file:
                raise FileExistsError(f"descriptor {fd} is registered")
            self._watched[fd] = mask, file
        self._note(fd)

    def modify(self, fd: int, mask: int) -> None:
        with self._lock:
            if not self._replace(fd, self._entry_of(fd), mask):
                raise FileNotFoundError(f"descriptor {fd} is not registered")
        self._note(fd)

    def unregister(self, fd: int) -> None:
        with self._lock:
            if self._watched.pop(fd, None) is None:
                raise FileNotFoundError(f"descriptor {fd} is not registered")
        self._note(fd)

    def poll(self, timeout: float | None, _most: int) -> list[tuple[int, int]]:
        """The descriptors that are ready, and for what; nothing if the bell rang, or time is up."""
        self._polling = True
        try:
            self._apply()
            found = self._select(timeout)
        except OSError:  # one was closed
            found = []
            if not self._forget_closed():
                raise
        finally:
            self._polling = False
        ready = []
        for key, events in found:
            mask = self._take(key.fd, (READ if events & EVENT_READ else 0) | (WRITE if events & EVENT_WRITE else 0))
            if mask:
                ready.append((key.fd, mask))
        return ready

    def close(self) -> None:
        self._selector.close()
        self._ring = _ring_nothing  # which lets go of the bell

    def _note(self, fd: int) -> None:
        self._changed.append(fd)
        if self._polling:
            self._ring()

    def _apply(self) -> None:
        """Tell the selector what has changed."""
        made = self._selector
        while True:
            try:
                fd = self._changed.pop()
            except IndexError:
                return
            if fd in made.get_map():
                made.unregister(fd)  # a modify would not do: it may be another file by now
            mask = self._entry_of(fd)[0]
            events = (EVENT_READ if mask & READ else 0) | (EVENT_WRITE if mask & WRITE else 0)
            if events:
                try:
                    made.register(fd, events)
                except OSError:  # kqueue refuses a closed one
                    self._forget(fd)

    def _take(self, fd: int, events: int) -> int:
        """What of events fd is watched for by now; none if its file is not the one that was registered."""
        with self._lock:
            entry = self._entry_of(fd)
            mask = entry[0]
            ready = mask & events
            wanted = ONESHOT if ready and mask & ONESHOT else mask
            still = self._replace(fd, entry, wanted)
        if wanted != mask or not still:
            self._changed.append(fd)
        return ready if still else 0

    def _entry_of(self, fd: int) -> tuple[int, Any]:
        """What fd is watched for, and its file. (Not by `get`: docs/design.md, "What CPython decides for us".)"""
        try:
            return self._watched[fd]
        except KeyError:
            return _NOT_WATCHED

    def _replace(self, fd: int, entry: tuple[int, Any], mask: int) -> bool:
        """Want mask of fd from now on; False if it is watched no more, or another file by now, which is forgotten."""
        replaced, same = (mask, entry[1]), _is_file(fd, entry[1])
        if self._entry_of(fd) is not entry:
            return False
        if same:
            self._watched[fd] = replaced
        else:
            self._watched.pop(fd, None)
        return same

    def _forget(self, fd: int) -> None:
        with self._lock:
            self._watched.pop(fd, None)

    def _forget_closed(self) -> bool:
        """Forget the closed ones; False if there is none."""
        closed = [key.fd for key in list(self._selector.get_map().values()) if _is_closed(key.fd)]
        for fd in closed:
            self._forget(fd)
            self._changed.append(fd)
        return bool(closed)


_NOT_WATCHED: tuple[int, Any] = 0, object()


def _ring_nothing() -> None:
    """In place of the bell of a selector that is closed."""


def _file_of(fd: int) -> Any:
    """What tells fd's file from others that have its number later; OSError if it is closed, or of a kind that epoll refuses."""
    if os.name == "nt":  # sockets only, of which nothing is told
        return None
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return status.st_dev, status.st_ino


def _is_file(fd: int, file: Any) -> bool:
    try:
        return bool(_file_of(fd) == file)
    except OSError:
        return False


def _is_closed(fd: int) -> bool:
    try:
        select.select([fd], [], [], 0)
    except OSError:
        return True
    return False


def open_selector(name: str, ring: Callable[[], None], lock: RLock) -> Selector:
    """By the name of its class, or the system's best."""
    made: selectors.BaseSelector = CLASSES[name]() if name else selectors.DefaultSelector()
    return Selector(made, ring, lock)
