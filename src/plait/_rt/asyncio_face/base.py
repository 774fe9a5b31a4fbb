"""Base: asyncio's event loop of this system, which a strand inherits from, and what belongs to it.

The only file that knows `asyncio.unix_events`. Windows has none: there the base is asyncio's selector loop, which has TCP, UDP
and TLS, and no pipes, subprocesses, Unix sockets and signal handlers.
"""

from __future__ import annotations

import asyncio
from typing import Any

system: Any  # the module; its `sys` is what tests patch
try:
    import asyncio.unix_events as system
except ImportError:
    import asyncio.windows_events as system  # type: ignore[no-redef]

# asyncio's private class, which the stubs know in part: typed as what it is to us, a base.
EventLoop: Any = getattr(system, "_UnixSelectorEventLoop", None) or asyncio.SelectorEventLoop
PIPES: tuple[type, ...] = tuple(
    getattr(system, name) for name in ("_UnixReadPipeTransport", "_UnixWritePipeTransport") if hasattr(system, name)
)


def child_watcher() -> Any:
    """What waits for the subprocesses of a loop, as asyncio's `__init__` chooses it (since 3.14)."""
    return system._PidfdChildWatcher() if system.can_use_pidfd() else system._ThreadedChildWatcher()
