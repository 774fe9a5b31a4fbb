"""epoll, and eventfd: the only file that knows them. A system without them has selectors_poller.py instead."""

from __future__ import annotations

import os
import select
from functools import partial
from typing import Any

HERE = hasattr(select, "epoll") and hasattr(os, "eventfd")


def open_epoll() -> select.epoll:
    """What the pollers stand on: register, modify, unregister, poll, close."""
    return select.epoll()


class Bell:
    """What another thread, or a signal handler, ends a poll with. Its descriptor is open as long as anybody has it (P5)."""

    fd = -1
    _close: Any = os.close  # (also when modules are taken down)

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.ring = partial(os.eventfd_write, self.fd, 1)

    def silence(self) -> None:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass  # a poll before us took it

    def __del__(self) -> None:
        if self.fd >= 0:
            self._close(self.fd)
