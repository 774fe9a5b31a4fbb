"""CPython's private names, asyncio's among them: the one file that takes them from their modules (a test says so).

A name of CPython's keeps it here, so that a search finds it in both; what is made of several, or has no name there, has one of
ours. Where nothing else is said a name is there from 3.11 to 3.15, on GIL and free-threaded builds, and the runtime can't do
without: were it missing, `import plait` would fail in the line that takes it.

This is about names of modules. What asyncio's objects have as private attributes is read, set and overridden by those whose
noun the object is: the event loop's interface by loop.py and thread_strand.py, transports by transports.py, streams by
streams.py, a future's callbacks by task.py and call_graph.py, a task group's state by taskgroup.py, a queue's by
belonging.py, the sockets of a server by net.py, `Runner._on_sigint` by runtime.py and defaults.py.

They are taken when plait is imported, but for those that are functions of this file: what a test or a library puts in
their place later is not seen here. Hot paths import the name itself.
"""

from __future__ import annotations

import asyncio
import asyncio.base_futures
import asyncio.base_tasks
import asyncio.format_helpers
import asyncio.selector_events
import asyncio.sslproto
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

_asyncio: Any = asyncio  # the stubs know some of its private names, in some versions

# The interpreter

_getframe = sys._getframe
"""The caller's frame: where a task is spawned, where a call came from."""

_current_frames = sys._current_frames
"""The frame of each thread, for the stack of one; on a free-threaded build it stops all others (capture.py)."""

_is_gil_enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
"""Is there a GIL just now? Since 3.13; all builds before have one."""


def compiles() -> bool:
    """Does the interpreter compile what runs often? `sys._jit` is there since 3.14; before, it never does."""
    jit: Any = getattr(sys, "_jit", None)
    return jit is not None and bool(jit.is_enabled())


def main_runner() -> Any:
    """What the interpreter itself calls for `python -m` and for folders: runpy's, which only `plait run` imports."""
    import runpy

    return runpy._run_module_as_main  # type: ignore[attr-defined]


class _NotWaitedFor(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        return True


def not_waited_for(thread: threading.Thread) -> None:
    """Have `thread.start()` not wait for the thread's beginning, which is most of what starting one takes (0.2 of 0.25 ms).

    It waits for the event `_started`. Should that have another name one day, start waits as usual.
    """
    thread._started = _NotWaitedFor()  # type: ignore[attr-defined]


# The running loop and the current task

_get_running_loop = asyncio.events._get_running_loop
"""The loop that the calling thread runs, or None."""

_set_running_loop = asyncio.events._set_running_loop
"""Says which it is. On 3.11 it allocates."""

if sys.version_info >= (3, 14):
    _swap_current_task: Any = _asyncio.tasks._swap_current_task
    """Makes a task the thread's current one."""
else:
    _current_tasks: dict[Any, Any] = _asyncio.tasks._current_tasks
    """From loop to current task, of the whole process."""

# Tasks and futures

scheduled_tasks: Any
"""asyncio's registry, a WeakSet, of the tasks that aren't its own (up to 3.13 of its own, too). It has another name up to 3.11,
and none from 3.14 on, but the C module refers to it, as the garbage collector tells."""
if sys.version_info >= (3, 14):
    scheduled_tasks = next(each for each in gc.get_referents(sys.modules["_asyncio"]) if isinstance(each, WeakSet))
elif sys.version_info >= (3, 12):
    scheduled_tasks = _asyncio.tasks._scheduled_tasks
else:
    scheduled_tasks = _asyncio.tasks._all_tasks

forget_scheduled: Any = scheduled_tasks._remove
"""The callback of the registry's weak references, for those that are put there without a call."""

C_STEP: type = next(each for each in object.__subclasses__() if each.__name__ == "TaskStepMethWrapper")
"""What a C Task gives to `call_soon` as its step; only the class hierarchy knows it."""

_get_loop: Any = _asyncio.futures._get_loop
"""A future's loop, of any class that passes for one."""

_release_waiter: Any = _asyncio.tasks._release_waiter
"""The callback by which `wait_for` is told that what it cancelled (up to 3.11 also: what it waits for) has ended."""

_cancel_and_wait: Any = _asyncio.tasks._cancel_and_wait
"""By which `wait_for` cancels what it waited for too long, and waits for its end."""

_GatheringFuture: Any = _asyncio.tasks._GatheringFuture
"""What `gather` gives: its `cancel` passes the cancel on."""

_LoopBoundMixin: Any = _asyncio.mixins._LoopBoundMixin
"""What asyncio's locks, events and queues are bound to a loop by."""

_task_get_stack: Any = _asyncio.base_tasks._task_get_stack
_task_print_stack: Any = _asyncio.base_tasks._task_print_stack
_format_coroutine: Any = _asyncio.coroutines._format_coroutine
_format_callbacks: Any = _asyncio.base_futures._format_callbacks
_format_callback_source: Any = _asyncio.format_helpers._format_callback_source
_format_handle: Any = _asyncio.base_events._format_handle
"""These six say of tasks, callbacks and handles what asyncio says."""

# Event loops and transports

system: Any
"""The module with the event loop of this system; its `sys` is what tests patch."""
try:
    import asyncio.unix_events as system
except ImportError:
    import asyncio.windows_events as system  # type: ignore[no-redef]

EventLoop: Any = getattr(system, "_UnixSelectorEventLoop", None) or asyncio.SelectorEventLoop
"""asyncio's event loop of this system, which a strand inherits from. Windows has no such class: there it is asyncio's selector
loop, which has TCP, UDP and TLS, and no pipes, subprocesses, Unix sockets and signal handlers."""

PIPES: tuple[type, ...] = tuple(
    getattr(system, name) for name in ("_UnixReadPipeTransport", "_UnixWritePipeTransport") if hasattr(system, name)
)
"""The transports of pipes; none on Windows."""

_SelectorSocketTransport: Any = _asyncio.selector_events._SelectorSocketTransport
_SelectorDatagramTransport: Any = _asyncio.selector_events._SelectorDatagramTransport
_SSLProtocolTransport: Any = _asyncio.sslproto._SSLProtocolTransport
"""The transports of TCP and Unix sockets, of UDP, and of TLS."""

_ThreadSafeHandle: Any = getattr(asyncio.events, "_ThreadSafeHandle", asyncio.Handle)
"""A handle that another thread may cancel while it runs: `cancel` waits until it has run. Since 3.14; before, any handle."""

_run_until_complete_cb: Any = _asyncio.base_events._run_until_complete_cb
"""What stops a loop when the future of `run_until_complete` is done."""


def child_watcher() -> Any:
    """What waits for the subprocesses of a loop, as asyncio's `__init__` chooses it. Since 3.14; not called before."""
    return system._PidfdChildWatcher() if system.can_use_pidfd() else system._ThreadedChildWatcher()


def is_debug_mode() -> bool:
    """Does asyncio's debug mode begin with the loop? (Asked each time: who replaces it is heard.)"""
    return bool(_asyncio.coroutines._is_debug_mode())
