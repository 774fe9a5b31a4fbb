"""The asyncio face of a strand: what makes it an asyncio event loop.

asyncio's own loop of this system (cpython.py) brings the transports, TLS, UDP, pipes, subprocesses and `sock_*`; this class
replaces what those stand on. Its `__init__` is never called: a strand of one task must cost a few dozen bytes, so the
plain attributes are class attributes here and the containers are made when they are first asked for.

Off-strand use: `call_soon_threadsafe`, and also `call_soon`, may be called from anywhere. The latter is a bug of the
caller's in asyncio (an asyncio future, lock or queue shared by two loops); here it is delivered all the same, and
reported once a place; in debug mode a strand with a thread of its own refuses it, as asyncio does. A transport used off its
strand raises WrongStrand (transports.py).
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import sys
import time
import warnings
import weakref
from contextvars import Context
from functools import cached_property
from types import CoroutineType, MethodType
from typing import TYPE_CHECKING, Any

from plait._rt.asyncio_face import asyncgens
from plait._rt.asyncio_face.selector_face import SelectorFace
from plait._rt.asyncio_face.streams import hasten
from plait._rt.asyncio_face.transports import guard
from plait._rt.ground.clock import Clock
from plait._rt.ground.cpython import (
    C_STEP,
    EventLoop,
    _format_handle,
    _get_running_loop,
    _getframe,
    _ThreadSafeHandle,
    child_watcher,
)
from plait._rt.ground.gil_yield import PAUSE
from plait._rt.ground.run_queue import IDLE
from plait._rt.task.checks import check_coroutine
from plait._rt.task.handles import Handle, TimerHandle
from plait._rt.task.local_task import LocalTask
from plait._rt.task.task import Task
from plait._rt.task.task_numbers import name_c_task, next_number
from plait.errors import WrongStrand

if TYPE_CHECKING:
    from plait._rt.io.timers import Timers

logger = logging.getLogger("plait")

_base: Any = asyncio.base_events  # whose `socket` and `logger` are what tests patch
_FACTORY_NAMES = sys.version_info >= (3, 14)  # does a task factory get the task's name?

_WAKEUP = Task._wakeup
_reported: set[Any] = set()

EXACT = 2**53  # an int up to it is a float without loss
CROWDED = 10_000  # so many items wait in a strand's queue that a thread which posts more yields the GIL each time


class AsyncioFace(EventLoop):  # type: ignore[misc]
    """What a strand inherits of asyncio; `Strand` and `ThreadStrand` provide the scheduling below it."""

    __slots__ = ()

    _closed = False
    _stopping = False
    _debug = False
    _thread_id: int | None = None
    _exception_handler = None
    _task_factory: Any = None
    _default_executor: Any = None
    _ssock: Any = None
    _csock: Any = None
    _internal_fds = 0
    _asyncgens_shutdown_called = False
    _executor_shutdown_called = False
    _coroutine_origin_tracking_enabled = False
    _coroutine_origin_tracking_saved_depth: Any = None
    _current_handle = None
    slow_callback_duration = 0.1
    _clock_resolution = time.get_clock_info("monotonic").resolution
    _ready: Any
    _current: Any
    _timers: Timers

    def __init__(self) -> None:
        raise NotImplementedError

    # Containers, made when first asked for. (Not by __getattr__: a class that has it loses the interpreter's fast
    # attribute access, which doubled the price of a switch.)

    _transports: Any = cached_property(lambda _self: weakref.WeakValueDictionary())
    _signal_handlers: Any = cached_property(lambda _self: {})
    _files: Any = cached_property(lambda _self: {})  # descriptor: the file object that is watched by it, if it was given
    _unix_server_sockets: Any = cached_property(lambda _self: {})
    _watcher: Any = cached_property(lambda _self: child_watcher())  # since 3.14; before, asyncio has one for all loops

    @property
    def _selector(self) -> Any:
        return None if self._closed else SelectorFace(self)

    @property
    def _scheduled(self) -> list[asyncio.TimerHandle]:
        """The loop's timers, to be looked through by those who know asyncio's; a copy, in no order."""
        return [timer for timer in self._timers.all() if isinstance(timer, asyncio.TimerHandle) and timer._loop is self]  # type: ignore[attr-defined]

    # What the strand provides

    def _watched(self, fd: int) -> tuple[Any, Any]:
        """The handles, reader and writer, that this strand has on fd; None for none."""
        raise NotImplementedError

    def _watched_fds(self) -> list[int]:
        """The descriptors that it has handles on."""
        raise NotImplementedError

    def _post(self, item: Any) -> None:
        """Queue item to run in this strand, from any thread; never blocks, never raises."""
        raise NotImplementedError

    def _fd_of(self, file: Any) -> int:
        """The descriptor that file is watched by; ValueError if it has none."""
        raise NotImplementedError

    def _select(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """What the poller finds within timeout seconds, as a selector says it."""
        raise NotImplementedError

    def _sent(self) -> None:
        """Something was sent by one of its transports."""

    def _runs_elsewhere(self) -> bool:
        """Is it, or may it be, running on another thread?"""
        raise NotImplementedError

    def _stopped_here(self) -> bool:
        """Is it this thread's, and not running? Then this thread has its turn."""
        return False

    def _schedule_if_idle(self) -> None:
        """Something was queued, and nobody runs the strand."""
        raise NotImplementedError

    def _add_timer(self, timer: Any) -> None:
        """Have timer posted when `timer._when` has come, by the loop's clock: add it, and see that nobody sleeps for longer."""
        raise NotImplementedError

    # Callbacks

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        if _get_running_loop() is not self or self._debug:
            return self._call_soon_slowly(callback, args, context)
        handle: Any = None
        ready = self._ready
        if callback.__class__ is MethodType and callback.__func__ is _WAKEUP:
            ready.append(callback.__self__)  # a future woke one of our tasks: no handle needed
        else:
            if callback.__class__ is C_STEP:
                name_c_task(callback)
            handle = Handle(callback, args, self, context)
            ready.append(handle)
        try:
            if ready[0] is IDLE:  # a finaliser calls, when its worker has just ended the strand's turn (S2)
                self._schedule_if_idle()
        except IndexError:  # and another worker has run it by now
            pass
        return handle

    def _call_soon_slowly(self, callback: Any, args: tuple[Any, ...], context: Context | None) -> Any:
        """In debug mode, from outside the strand, or while nothing runs."""
        self._check_closed()
        if self._debug:
            self._check_thread()
            self._check_callback(callback, "call_soon")
        if _get_running_loop() is not self:
            self._note_off_strand(callback, args)
        if callback.__class__ is MethodType and callback.__func__ is _WAKEUP:
            self._post(callback.__self__)
            return None
        if callback.__class__ is C_STEP:
            name_c_task(callback)
        handle = asyncio.Handle(callback, args, self, context)
        if handle._source_traceback:  # type: ignore[attr-defined]
            del handle._source_traceback[-2:]  # type: ignore[attr-defined]
        self._post(handle)
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        self._check_closed()
        if self._debug:
            self._check_callback(callback, "call_soon_threadsafe")
        handle: asyncio.Handle = _ThreadSafeHandle(callback, args, self, context)
        if handle._source_traceback:  # type: ignore[attr-defined]
            del handle._source_traceback[-1 if _ThreadSafeHandle is asyncio.Handle else -2 :]  # type: ignore[attr-defined]
        self._post(handle)
        if len(self._ready) > CROWDED and _get_running_loop() is None:
            Clock.sleep(PAUSE)  # a thread that posts faster than the strand runs: asyncio's system call for each slows it down
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        if delay is None:
            raise TypeError("delay must not be None")
        return self._call_at(self.time() + delay, callback, args, context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        if when is None:
            raise TypeError("when cannot be None")
        return self._call_at(when, callback, args, context)

    def _call_at(self, when: float, callback: Any, args: tuple[Any, ...], context: Context | None) -> asyncio.TimerHandle:
        """The same with both as they are."""
        raise NotImplementedError

    def _new_timer(self, when: float, callback: Any, args: tuple[Any, ...], context: Context | None) -> asyncio.TimerHandle:
        if self._closed:
            self._check_closed()
        if when.__class__ is not float or when != when:
            when = deadline_of(when)
        timer: asyncio.TimerHandle
        if self._debug:
            self._check_thread()
            self._check_callback(callback, "call_at")
            timer = asyncio.TimerHandle(when, callback, args, self, context)
            del timer._source_traceback[-3:]  # type: ignore[attr-defined]
        else:
            timer = TimerHandle(when, callback, args, self, context)
        return timer

    def _check_timer_is_here(self, callback: Any) -> None:
        """Refuse a timer that is not made on the strand's own thread, but in another strand. (Up to 3.11 it takes a system
        call to ask which loop runs: who knows the thread asks that first.)"""
        running = _get_running_loop()
        if isinstance(running, AsyncioFace) and running is not self:
            raise WrongStrand(
                f"call_later() or call_at() of {self!r}, for {callback!r}, was called in {running!r}: what works with that "
                "loop (a client session, say) belongs to its strand. Use it there, `await strand.call(coro)`, or make one here."
            )

    def _timer_handle_cancelled(self, _handle: asyncio.TimerHandle) -> None:
        self._timers.cancelled += 1

    def _note_off_strand(self, callback: Any, args: tuple[Any, ...]) -> None:
        """Report, once a place, that call_soon came from another running loop."""
        running = _get_running_loop()
        if running is None:
            return
        frame = _getframe(3)
        while frame.f_back is not None and "/asyncio/" in frame.f_code.co_filename:
            frame = frame.f_back
        place = (frame.f_code.co_filename, frame.f_lineno)
        if place in _reported:
            return
        _reported.add(place)
        logger.error(
            "%s:%d in %s: something of %r was used from %r (it led to call_soon of %r%s). An asyncio future, lock, event or "
            "queue belongs to one strand: use plait.Event or a channel between strands, or `await strand.call(coro)`.",
            *place, frame.f_code.co_name, self, running, callback, args,
        )  # fmt: skip

    # Tasks

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None, **options: Any) -> Any:
        if self._closed:
            self._check_closed()
        factory = self._task_factory
        if factory is not None:
            if name is context is None and not options:
                return factory(self, coro)
            return self._by_factory(factory, coro, name, context, options)
        if options:
            if options.pop("eager_start", None):
                c_task: Any = asyncio.Task
                name = f"Task-{next_number()}" if name is None else name
                return c_task(coro, loop=self, name=name, context=context, eager_start=True)
            if options:
                raise TypeError(f"create_task() got an unexpected keyword argument {next(iter(options))!r}")
        if coro.__class__ is not CoroutineType:
            check_coroutine(coro)
        if context is not None and not isinstance(context, Context):
            raise TypeError(f"a contextvars.Context was expected, got {context!r}")
        task: Any = LocalTask(coro, self, name, context, self._debug)  # type: ignore[arg-type]
        self._post(task)
        return task

    def _by_factory(self, factory: Any, coro: Any, name: Any, context: Any, options: dict[str, Any]) -> Any:
        """Up to 3.13 a factory is not asked for the name: the task is told afterwards."""
        if context is not None:
            options["context"] = context
        if name is not None and _FACTORY_NAMES:
            options["name"] = name
        task = factory(self, coro, **options)
        if name is not None and not _FACTORY_NAMES:
            task.set_name(name)
        return task

    # Time and state

    def time(self) -> float:
        return Clock.monotonic()

    def _now(self) -> float:
        """The time by which this strand's timers are due."""
        return self.time()

    def is_closed(self) -> bool:
        return self._closed

    # Transports

    def _make_socket_transport(self, sock: Any, protocol: Any, *args: Any, **options: Any) -> Any:
        hasten(protocol)
        return guard(super()._make_socket_transport(sock, protocol, *args, **options))

    def _make_datagram_transport(self, *args: Any, **options: Any) -> Any:
        return guard(super()._make_datagram_transport(*args, **options))

    def _make_read_pipe_transport(self, *args: Any, **options: Any) -> Any:
        return guard(super()._make_read_pipe_transport(*args, **options))

    def _make_write_pipe_transport(self, *args: Any, **options: Any) -> Any:
        return guard(super()._make_write_pipe_transport(*args, **options))

    def _make_ssl_transport(self, rawsock: Any, protocol: Any, *args: Any, **options: Any) -> Any:
        hasten(protocol)
        return guard(super()._make_ssl_transport(rawsock, protocol, *args, **options))

    async def start_tls(self, *args: Any, **options: Any) -> Any:
        return guard(await super().start_tls(*args, **options))

    # Executor: one elastic pool for all strands

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        self._check_closed()
        if self._debug:
            self._check_callback(func, "run_in_executor")
        if executor is None:
            executor = self._default_executor
        if executor is None:
            if self._executor_shutdown_called:
                raise RuntimeError("Executor shutdown has been called")
            executor = self._blocking_pool()
        return asyncio.wrap_future(executor.submit(func, *args), loop=self)

    def _blocking_pool(self) -> Any:
        raise NotImplementedError

    async def getaddrinfo(self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        lookup = self._getaddrinfo_debug if self._debug else _base.socket.getaddrinfo
        return await self._look_up(lookup, host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        return await self._look_up(_base.socket.getnameinfo, sockaddr, flags)

    async def _look_up(self, function: Any, *args: Any) -> Any:
        if self._default_executor is not None:  # the user's own
            return await self.run_in_executor(None, function, *args)
        return await asyncio.wrap_future(self._blocking_pool().lookups.submit(function, *args), loop=self)

    # Async generators (asyncgens.py)

    @property
    def _asyncgens(self) -> weakref.WeakSet[Any]:
        """What libraries look for in asyncio's loops: the living generators that were first iterated here. A copy."""
        return asyncgens.of_strand(self)

    def _close_asyncgen(self, generator: Any) -> None:
        self.create_task(generator.aclose())

    def _warn_late_asyncgen(self, generator: Any) -> None:
        warnings.warn(
            f"asynchronous generator {generator!r} was scheduled after loop.shutdown_asyncgens() call",
            ResourceWarning,
            source=self,
            stacklevel=3,
        )

    # Debugging

    def set_debug(self, enabled: bool) -> None:
        self._debug = enabled  # type: ignore[misc]
        if self.is_running():
            self.call_soon_threadsafe(self._set_coroutine_origin_tracking, enabled)

    def __repr__(self) -> str:
        name = self.__dict__.get("_name")
        return f"<{type(self).__name__}{' ' + repr(name) if name else ''} at {id(self):#x}>"


def deadline_of(when: Any) -> float:
    """when as a number that floats can be compared with and subtracted from; `handle.when()` gives an int as it was given. What
    is no number, or can't be compared with others, is refused here, where the mistake is: among the timers it would meet those
    of everybody."""
    if type(when) is int and abs(when) <= EXACT:
        return when
    try:
        number = float(when - 0.0)
    except TypeError:
        raise TypeError(f"a time of the loop's clock was expected, seconds as loop.time() gives, got {when!r}") from None
    if number != number:
        raise ValueError("Invalid time: NaN (not a number)")
    return number


def run_callback(strand: AsyncioFace, handle: asyncio.Handle) -> None:
    """Run a handle of strand, logging a slow one in debug mode as asyncio does."""
    if handle._cancelled:  # type: ignore[attr-defined]
        return
    if not strand._debug:
        handle._run()  # type: ignore[attr-defined]
        handle = None  # type: ignore[assignment]  # a traceback may keep this frame
        return
    strand._current_handle = handle  # type: ignore[assignment, misc]
    started = Clock.monotonic()
    try:
        handle._run()  # type: ignore[attr-defined]
    finally:
        strand._current_handle = None  # type: ignore[misc]
    note_slow(strand, handle, Clock.monotonic() - started)
    handle = None  # type: ignore[assignment]  # the same


def note_slow(strand: AsyncioFace, what: Any, seconds: float) -> None:
    """asyncio's debug-mode warning."""
    if seconds >= strand.slow_callback_duration:
        text = _format_handle(what) if isinstance(what, asyncio.Handle) else repr(what)
        _base.logger.warning("Executing %s took %.3f seconds", text, seconds)
