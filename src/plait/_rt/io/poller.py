"""Pollers: where file descriptors are waited for. epoll behind a few methods, the same for both kinds:

    add(fd, kind, handle)      call handle when fd is ready for kind (READ or WRITE); returns the handle it replaces
    remove(fd, kind, strand)   forget it; returns the handle that was registered, or None
    poll(timeout)              wait at most timeout seconds (None: for ever); returns the handles to run
    wake()                     end a poll that is under way, from any thread or signal handler
    close()

epoll is `epoll.py`; elsewhere, or where PLAIT_SELECTOR names another, `selectors_poller.py` has its methods.
`Poller` belongs to one thread and is level-triggered. `SharedPoller` serves the pool's strands.

SharedPoller: ownership and invariants
    P1  `_entries` and what is in them change under `_lock`, a re-entrant lock: a finaliser run by the garbage collector
        in the middle of one change makes its own change whole. Nothing is run or posted under it, no other lock is taken.
    P2  To a strand it is level-triggered. epoll's entries are one-shot, for otherwise an idle worker would spin on an
        event that waits for its strand: an event disarms the descriptor, and a handle that has run arms it again.
        `entry.armed` is the mask the kernel has; a posted handle (`_posted`) is not armed for until it ran.
    P3  A closed descriptor's number comes back. epoll forgets a closed file by itself, so modify may find nothing
        (register then) and register may find something (modify then). Each entry carries the number of the poll that
        was under way when it was made: an event of a poll that began earlier may be an older file's, so it is not
        delivered but asked for anew.
    P4  One descriptor may serve two strands: an entry holds a handle per strand and kind.
    P5  A closed poller may still be woken: by a thread that had it in hand, a signal handler, a stuck worker whose step ends.
        Its bell's descriptor is not closed by `close`, for its number would be another file's before the bell is rung: who
        rings has the bell in hand, `close` lets go of it, and the last one to let go closes it. The atomic step is the
        reference count. A handle that has run after `close` finds no entry, and touches nothing.
"""

from __future__ import annotations

from asyncio import Handle
from threading import RLock
from typing import Any

from plait._rt.io import epoll, selectors_poller
from plait._rt.io.selectors_poller import ONESHOT
from plait._rt.io.selectors_poller import READ as READ
from plait._rt.io.selectors_poller import WRITE as WRITE

_READABLE = ~WRITE  # an error or a hang-up is news for both sides
_WRITABLE = ~READ
_BATCH = 512


_LONGEST = 24 * 3600.0  # seconds; epoll takes no more than 24 days, and nobody minds a look a day


def _capped(timeout: float | None) -> float | None:
    return timeout if timeout is None or timeout < _LONGEST else _LONGEST


class ReadyHandle(Handle):
    """A reader's or writer's callback in a pooled strand; when it has run its descriptor is armed again."""

    __slots__ = ("_entry", "_kind", "_poller", "_posted")

    _entry: _Entry
    _kind: int
    _poller: SharedPoller
    _posted: bool

    def _run(self) -> None:
        try:
            super()._run()  # type: ignore[misc]
        finally:
            self._posted = False
            self._poller.arm_again(self._entry)


def selector_names() -> list[str]:
    """What PLAIT_SELECTOR may be on this system, the default first."""
    return ["epoll"] * epoll.HERE + [*selectors_poller.CLASSES]


class _Wakeable:
    """An epoll that another thread can wake; or a selector (by its name) with epoll's methods."""

    def __init__(self, selector: str = "") -> None:
        self._bell: Any = None
        self._epoll: Any
        self._lock = RLock()
        with_epoll = epoll.HERE and selector in ("", "epoll")
        bell: Any = epoll.Bell() if with_epoll else selectors_poller.Bell()
        try:
            self._epoll = epoll.open_epoll() if with_epoll else selectors_poller.open_selector(selector, bell.ring, self._lock)
        except BaseException:  # there is no descriptor left, and the traceback would keep the bell's
            bell = None
            raise
        self._bell, self._bell_fd = bell, bell.fd
        self._epoll.register(bell.fd, READ)

    def wake(self) -> None:
        bell = self._bell  # in hand while it rings (P5)
        if bell is not None:
            bell.ring()

    def close(self) -> None:
        self._epoll.close()
        self._bell = None


class Poller(_Wakeable):
    """Level-triggered, for the one thread that owns it; only `wake` may be called from others."""

    def __init__(self, selector: str = "") -> None:
        super().__init__(selector)
        self._handles: dict[int, list[Any]] = {}  # fd -> [reader, writer]

    def __len__(self) -> int:
        return len(self._handles)

    def close(self) -> None:
        """Nothing is kept for what nobody waits for any more."""
        super().close()
        self._handles.clear()

    def add(self, fd: int, kind: int, handle: Handle) -> Handle | None:
        pair = self._handles.get(fd)
        side = kind == WRITE
        replaced: Handle | None = None
        if pair is not None:
            replaced = pair[side]
            try:
                self._epoll.modify(fd, READ | WRITE if pair[not side] is not None else kind)
            except FileNotFoundError:  # its file was closed without a remove: its handles went with it (P3)
                pair = None
            else:
                pair[side] = handle
        if pair is None:
            _arm(self._epoll, fd, kind, False)
            self._handles[fd] = [None, handle] if side else [handle, None]
        return replaced

    def remove(self, fd: int, kind: int, _strand: Any = None) -> Handle | None:
        pair = self._handles.get(fd)
        if pair is None:
            return None
        side = kind == WRITE
        removed: Handle | None = pair[side]
        pair[side] = None
        if pair[not side] is None:
            del self._handles[fd]
            _forget(self._epoll, fd)
        elif removed is not None:
            _arm(self._epoll, fd, WRITE if kind == READ else READ, True)
        return removed

    def watched(self, fd: int, _strand: Any = None) -> tuple[Any, Any]:
        """The handles, reader and writer, that fd has; None for none."""
        reader, writer = self._handles.get(fd, (None, None))
        return reader, writer

    def fds(self, _strand: Any = None) -> list[int]:
        """The descriptors that are watched."""
        return list(self._handles)

    def events(self, timeout: float | None) -> list[tuple[int, int]]:
        """As poll, but the descriptors, and what they are ready for (READ, WRITE). The bell's is one of them.

        asyncio's selector tells of its own pipe as well: who selects twice sees that the first has been woken.
        """
        found = []
        for fd, mask in self._epoll.poll(_capped(timeout), _BATCH):
            if fd in self._handles:
                found.append((fd, (READ if mask & _READABLE else 0) | (WRITE if mask & _WRITABLE else 0)))
            elif fd == self._bell_fd:
                self._bell.silence()
                found.append((fd, READ))
        return found

    def poll(self, timeout: float | None) -> list[Handle]:
        ready = []
        for fd, mask in self._epoll.poll(_capped(timeout), _BATCH):
            pair = self._handles.get(fd)
            if pair is None:
                if fd == self._bell_fd:
                    self._bell.silence()
                continue
            if mask & _READABLE and pair[0] is not None:
                ready.append(pair[0])
            if mask & _WRITABLE and pair[1] is not None:
                ready.append(pair[1])
        return ready


class _Entry:
    """One descriptor of the shared poller."""

    __slots__ = ("armed", "born", "fd", "handles")

    def __init__(self, fd: int, born: int, handle: ReadyHandle) -> None:
        self.fd, self.born, self.armed = fd, born, 0
        self.handles = [handle]


class SharedPoller(_Wakeable):
    """For the strands of a pool: any of its threads may call any method; one thread at a time polls."""

    def __init__(self, selector: str = "") -> None:
        super().__init__(selector)
        self._entries: dict[int, _Entry] = {}
        self._round = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, fd: int, kind: int, handle: ReadyHandle) -> Handle | None:
        handle._poller, handle._kind, handle._posted = self, kind, False
        with self._lock:
            entry = self._entry_of(fd)
            replaced = None
            if entry is not None:
                replaced = self._take(entry, kind, handle._loop)  # type: ignore[attr-defined]
                entry.handles.append(handle)
                try:
                    self._arm(entry, always=True)
                except OSError:  # its file was closed without a remove: its handles went with it (P3)
                    del self._entries[fd]
                    entry = None
            if entry is None:
                entry = _Entry(fd, self._round, handle)
                _arm(self._epoll, fd, kind | ONESHOT, False)
                entry.armed = kind
                self._entries[fd] = entry
            handle._entry = entry
            return replaced

    def remove(self, fd: int, kind: int, strand: Any) -> Handle | None:
        with self._lock:
            entry = self._entry_of(fd)
            if entry is None:
                return None
            removed = self._take(entry, kind, strand)
            if removed is not None:
                self._arm_or_forget(entry)
            return removed

    def watched(self, fd: int, strand: Any) -> tuple[Any, Any]:
        """The handles, reader and writer, that strand has on fd; None for none."""
        with self._lock:
            entry = self._entry_of(fd)
            handles = {} if entry is None else {handle._kind: handle for handle in entry.handles if handle._loop is strand}  # type: ignore[attr-defined]
        return handles.get(READ), handles.get(WRITE)

    def fds(self, strand: Any) -> list[int]:
        """The descriptors that strand watches."""
        with self._lock:
            return [fd for fd, entry in self._entries.items() if any(handle._loop is strand for handle in entry.handles)]  # type: ignore[attr-defined]

    def arm_again(self, entry: _Entry) -> None:
        """A handle of entry has run."""
        with self._lock:
            self._arm_or_forget(entry)

    def close(self) -> None:
        with self._lock:
            dropped, self._entries = self._entries, {}
            super().close()
        dropped.clear()  # not under the lock: finalisers may run

    def poll(self, timeout: float | None) -> list[ReadyHandle]:
        self._round = this = self._round + 1
        ready: list[ReadyHandle] = []
        events = self._epoll.poll(_capped(timeout), _BATCH)
        if not events:
            return ready
        with self._lock:
            for fd, mask in events:
                entry = self._entry_of(fd)
                if entry is None:
                    if fd == self._bell_fd:
                        self._bell.silence()
                    continue
                entry.armed = 0
                if entry.born < this:
                    side = (READ if mask & _READABLE else 0) | (WRITE if mask & _WRITABLE else 0)
                    for handle in entry.handles:
                        if handle._kind & side and not handle._posted:
                            handle._posted = True
                            ready.append(handle)
                self._arm_or_forget(entry)
        return ready

    def _entry_of(self, fd: int) -> _Entry | None:
        """fd's, if there is one. (Not by `get`: docs/design.md, "What CPython decides for us".)"""
        try:
            return self._entries[fd]
        except KeyError:
            return None

    def _take(self, entry: _Entry, kind: int, strand: Any) -> ReadyHandle | None:
        for handle in entry.handles:
            if handle._kind == kind and handle._loop is strand:  # type: ignore[attr-defined]
                entry.handles.remove(handle)
                return handle
        return None

    def _arm(self, entry: _Entry, always: bool = False) -> None:
        mask = 0
        for handle in entry.handles:
            if not handle._posted:
                mask |= handle._kind
        if mask != entry.armed or always:
            self._epoll.modify(entry.fd, mask | ONESHOT)
            entry.armed = mask

    def _arm_or_forget(self, entry: _Entry) -> None:
        if self._entry_of(entry.fd) is not entry:
            return  # a finaliser was here in between (P1)
        if not entry.handles:
            if self._entries.pop(entry.fd, None) is not None:
                _forget(self._epoll, entry.fd)
            return
        try:
            self._arm(entry)
        except OSError:  # the file was closed under its callbacks: there is nothing to wait for any more
            self._entries.pop(entry.fd, None)


def _arm(epoll: Any, fd: int, mask: int, known: bool) -> None:
    """Have epoll watch fd for mask, whatever it knew of that number (P3)."""
    first, second = (epoll.modify, epoll.register) if known else (epoll.register, epoll.modify)
    try:
        first(fd, mask)
    except (FileNotFoundError, FileExistsError):
        second(fd, mask)


def _forget(epoll: Any, fd: int) -> None:
    try:
        epoll.unregister(fd)
    except (OSError, ValueError):
        pass  # closed before it was removed: the kernel forgot it then
