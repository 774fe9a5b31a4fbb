"""Strand: a serial executor that is an asyncio event loop.

At most one thread at a time holds a strand's *turn*, the right to run what is queued in it. There is no lock: a strand
that nobody runs has the mark IDLE at the front of `_ready`, and whoever removes the mark has the turn (`list.remove` is
atomic on both builds, so one remover wins). A mark that went in behind an item is its holder's to take back.

Ownership
    `_ready`    any thread appends; only the turn's holder takes out. (Not always a worker: ps/snapshot.py takes turns to read.)
    `_next`, `_current`, and the tasks of the strand: the turn's holder.
    `_pool`     never changes.

Invariants
    S1  A strand is in exactly one of these states: idle (IDLE is in `_ready`), queued (in one run queue, once), or run
        by one worker. Queued and run strands have no IDLE.
    S2  Nothing is lost: a poster appends first and looks for IDLE after; the holder puts IDLE in first and looks for
        items after. Whichever comes second sees the other, and if both do, `remove` decides.
    S3  `_next`, if set, makes the step of the strand's only ready task, `_next_task`, which is older than all of `_ready`, and
        was set before: others look at both (`Carrier.task`). It is marked as current (current_task.py). A strand of one task
        that only yields lives in it and never touches `_ready`: the workers' fast path.
    S4  After IDLE went in, the former holder doesn't touch the strand again.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from asyncio import Handle
from contextvars import Context, copy_context
from functools import partial
from types import CoroutineType, FrameType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from plait._rt.asyncio_face.inherited import Inherited, MadeByFactory
from plait._rt.asyncio_face.loop import AsyncioFace, deadline_of, run_callback
from plait._rt.ground.clock import Clock
from plait._rt.ground.cpython import _get_running_loop, _getframe, _set_running_loop
from plait._rt.ground.here import here
from plait._rt.ground.run_queue import IDLE, Mark, RunItem
from plait._rt.ground.spawn_site import site_of
from plait._rt.io.poller import READ, WRITE, ReadyHandle
from plait._rt.task.checks import check_coroutine
from plait._rt.task.current_task import CURRENT_STAYS, clear_current
from plait._rt.task.task import Task, task_of
from plait.errors import WrongStrand

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from plait._rt.io.timers import Timers
    from plait._rt.pool import Pool
    from plait._rt.sched.worker import Worker

T = TypeVar("T")
P = ParamSpec("P")


_send: Any = CoroutineType.send  # called unbound: no bound method a step


_IDLE = (IDLE,)
MOST = 1024  # items of a turn: where threads post without a pause each turn would be longer than the last
LOOK_AGAIN = Mark("LOOK_AGAIN")  # keeps a strand off the fast path, which looks at nothing but `_next`


class Strand(AsyncioFace, RunItem):
    """A serial executor in the pool: runs at most one of its tasks and callbacks at a time, on whichever worker is free.

    `plait.Strand()` makes one, `plait.Strand(pinned=True)` one with a thread of its own; each `plait.spawn` makes one
    for its task. It is that task's event loop: `asyncio.get_running_loop()` inside it is the strand.

    `spawn`, `call`, `check`, `call_soon` and `call_soon_threadsafe` may be used from any strand and thread; the rest of
    the event loop's methods from inside the strand, as with any asyncio loop. (Asio's strand, Swift's actor, Kotlin's
    `limitedParallelism(1)`.)
    """

    __slots__ = ("_current", "_next", "_next_task", "_pool", "_ready")

    _handle_class: Any = ReadyHandle
    _default_executor = Inherited("_default_executor", None)
    _exception_handler = Inherited("_exception_handler", None)
    slow_callback_duration = Inherited("slow_callback_duration", AsyncioFace.slow_callback_duration)

    _pool: Pool
    _ready: list[Any]
    _next: Any
    _next_task: Task[Any] | None
    _closing = False
    _coming: list[None]  # who is about to start something here; made by the first

    def __new__(cls, *, name: str | None = None, pinned: bool = False) -> Strand:
        return current_strand()._pool.new_strand(name, pinned)

    def __init__(self, *, name: str | None = None, pinned: bool = False) -> None:
        pass  # __new__ made it whole

    def __del__(self) -> None:
        pass  # nothing to close: BaseEventLoop's would warn

    # Public

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None) -> Task[T]:
        """Start coro as a task of this strand; from any strand or thread. context is copied (the caller's if None).

        The strand runs its tasks one at a time, switching where they await. The runtime holds the task until it is done.
        """
        return self._start(coro, name, context, _getframe(1))

    @overload
    def call(self, coro: Coroutine[Any, Any, T], /) -> Coroutine[Any, Any, T]: ...
    @overload
    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...
    def call(self, what: Any, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Run a coroutine in this strand, or call a function there; wait for it, return its result or raise its exception.

            await strand.call(fetch(1))                            # a coroutine
            rows = await strand.call(connection.execute, "select 1")   # a function, with its arguments

        A checkpoint. The context is copied; a cancel of the caller is forwarded, and waited for until the strand takes it: if
        that is stuck in a step the caller gets its CancelledError after 0.05 s, and what it called is left (as `await task`,
        see Task). TypeError for anything else.
        """
        return self._call(what, args, kwargs, _getframe(1))

    async def _call(self, what: Any, args: tuple[Any, ...], kwargs: dict[str, Any], frame: FrameType) -> Any:
        coro = what if what.__class__ is CoroutineType and not (args or kwargs) else _coroutine_of(what, args, kwargs)
        try:
            task = self._start(coro, None, None, frame)
        except RuntimeError:
            if coro is not what:
                coro.close()
            raise
        frame = None  # type: ignore[assignment]  # it may have this coroutine: no cycle
        return await task

    async def aclose(self) -> None:
        """End the strand: its tasks are cancelled and waited for, its async generators closed, its transports aborted, a pinned
        strand's thread ended and joined. Afterwards it takes no more work; from the call on, none from other strands.

        From any other strand, and as often as you like; `async with plait.Strand() as strand` does it at its end. A checkpoint,
        which blocks no thread. If the caller is cancelled meanwhile the strand ends all the same. RuntimeError in the strand
        itself, which would wait for itself, and for the main strand, which ends with its run.
        """
        if self is self._pool.main:
            raise RuntimeError("the main strand ends with its run: return from main() instead")
        if _get_running_loop() is self:
            raise RuntimeError(f"{self!r} would wait for itself: call aclose() in another strand")
        if self._closed:
            return
        from plait._rt.strand.closing import empty

        self._closing = True  # type: ignore[misc]
        mine: Task[Any] = Task(empty(self), self, ("aclose", site_of(_getframe(1))), copy_context())
        closer = self.__dict__.setdefault("_closer", mine)
        if closer is mine:
            self._pool.tasks[mine] = None
            self._post(mine)
        else:
            mine._coro.close()
        await asyncio.shield(closer)
        await self._end()

    async def _end(self) -> None:
        from plait._rt.strand.closing import ClosedStrand

        if type(self) is Strand:
            self.__class__ = ClosedStrand

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    def check(self) -> None:
        """Raise WrongStrand unless the caller runs in this strand."""
        running = _get_running_loop()
        if running is not self:
            raise WrongStrand(f"this must run in {self!r} but runs in {running!r}: use `await strand.call(coro)`")

    def _start(self, coro: Any, name: str | None, context: Context | None, frame: FrameType) -> Task[Any]:
        """For those who may be in another strand: they say that they come, then look whether it closes; `aclose` says that, and
        then waits for those who come."""
        coming: list[None]
        try:
            coming = self._coming
        except AttributeError:
            coming = self.__dict__.setdefault("_coming", [])
        coming.append(None)
        try:
            if self._closing and not self._closed and _get_running_loop() is not self:
                check_coroutine(coro)
                raise RuntimeError(f"{self!r} is closing")
            return self._spawn(coro, name, context, frame)
        finally:
            coming.pop()

    def _spawn(self, coro: Any, name: str | None, context: Context | None, frame: FrameType) -> Task[Any]:
        if coro.__class__ is not CoroutineType:
            check_coroutine(coro)
        if self._closed:
            self._check_closed()
        site = site_of(frame)
        label = site if name is None else (str(name), site)
        if self._task_factory is not None:
            coro = MadeByFactory(coro, name)
        task: Task[Any] = Task(coro, self, label, copy_context() if context is None else context.copy())
        if self._debug:
            task._source_traceback = traceback.extract_stack(frame)
        self._pool.tasks[task] = None
        self._post(task)
        return task

    # Scheduling

    def _post(self, item: Any) -> None:
        ready = self._ready
        ready.append(item)
        try:
            if ready[0] is not IDLE:
                return
        except IndexError:
            return  # the holder took the item
        self._schedule_if_idle()

    def _schedule_if_idle(self) -> None:
        try:
            self._ready.remove(IDLE)
        except ValueError:
            return  # another poster has the turn
        self._pool.schedule(self)

    def _take_turn(self, worker: Worker) -> None:
        worker.running = self
        _set_running_loop(self)
        try:
            self._drain(worker)
        finally:
            worker.end_turn(self)

    def _drain(self, worker: Worker) -> None:
        """Run what is queued now (the first MOST), on worker; what these runs queue waits for the strand's next turn."""
        ready, step, suspects = self._ready, self._next, self._pool.blocking_sites.suspects
        count = min(len(ready), MOST)
        batch = ready[:count]
        del ready[:count]
        if step is not None:
            self._next = None
            batch.insert(0, self._next_task)
        batch.reverse()
        try:
            while batch:
                worker.item = item = batch.pop()  # what was run is let go before the next runs, as asyncio does
                if isinstance(item, Handle):
                    if self._current is not None or not CURRENT_STAYS:
                        clear_current(self)
                    run_callback(self, item)
                elif suspects and (task := task_of(item)) is not None:
                    worker.before_step(task)
                    item._run()
                    worker.after_step()
                else:
                    item._run()
        except BaseException:  # KeyboardInterrupt or SystemExit: nothing of the rest may be lost
            ready[:0] = batch[::-1]
            raise
        finally:  # a traceback that a task keeps may keep this frame
            item = worker.item = task = None
            batch.clear()
            if self._next is not None and self._current is not self._next_task and CURRENT_STAYS:
                self._next = None  # another item was the current one meanwhile: no fast path (S3)
                ready.insert(0, self._next_task)

    def _end_turn(self) -> bool:
        """Give the turn back; True if there is more to run: the caller keeps it and queues the strand again."""
        ready = self._ready
        if self._next is not None or ready:
            return True
        self._next_task = None  # a cancelled timer may keep us for hours
        ready.extend(_IDLE)  # into an empty list: half the memory of an append
        if len(ready) == 1:
            return False
        try:
            ready.remove(IDLE)
        except ValueError:
            return False  # a poster has it
        return True

    def _run_if_idle(self, action: Callable[[], object]) -> bool:
        """Take the turn, and do action with it, if nobody has it and nothing is queued; from any thread. Did it?"""
        ready = self._ready
        try:
            if ready[0] is not IDLE:
                return False
            ready.remove(IDLE)
        except (IndexError, ValueError):
            return False
        try:
            action()
        finally:
            if self._end_turn():
                self._pool.schedule(self)
        return True

    def _ready_again(self, task: Task[Any]) -> None:
        """task yielded: it goes behind what is queued."""
        if self._next is None and not self._ready and task._coro.__class__ is CoroutineType and not self._suspects(task):
            self._next_task = task  # first (S3)
            self._next = partial(task._context.run, _send, task._coro, None)
        else:
            self._ready.append(task)

    def _suspects(self, task: Task[Any]) -> bool:
        """Is task to be looked at before each of its steps? Then it stays off the fast path."""
        suspects = self._pool.blocking_sites.suspects
        return bool(suspects) and task._coro.cr_code in suspects

    def _look_again(self) -> None:
        self._ready.append(LOOK_AGAIN)

    def _task_done(self, task: Task[Any]) -> None:
        self._pool.tasks.pop(task, None)

    # What the asyncio face stands on

    @property
    def _timers(self) -> Timers:  # type: ignore[override]
        return self._pool.timers

    def _now(self) -> float:
        return Clock.monotonic()  # its timers are the pool's, whatever `time` was patched with here

    def _call_at(self, when: float, callback: Any, args: tuple[Any, ...], context: Context | None) -> Any:
        now = Clock.monotonic()
        ahead = self.time() - now
        if abs(ahead) > 1.0:  # seconds: `time` was patched
            when = deadline_of(when) - ahead
        worker = here.worker
        if worker is None or worker.running is not self:
            self._check_timer_is_here(callback)
        timer = self._new_timer(when, callback, args, context)
        if worker is None or worker.running is not self or when > now:
            self._add_timer(timer)
        else:  # due already: at the end of this turn
            worker.overdue.append(timer)
            self._look_again()
        return timer

    def _add_timer(self, timer: Any) -> None:
        pool = self._pool
        pool.timers.add(timer)
        self._go_by_time()
        if timer._when < pool.parking.sleeps_until:  # (a worker, too, tells: its next step may block)
            pool.poller.wake()

    @property
    def _poller(self) -> Any:
        return self._pool.poller

    def _add_reader(self, fd: Any, callback: Any, *args: Any, context: Context | None = None) -> Handle:
        return self._watch(fd, READ, callback, args, context)

    def _add_writer(self, fd: Any, callback: Any, *args: Any, context: Context | None = None) -> Handle:
        return self._watch(fd, WRITE, callback, args, context)

    def _remove_reader(self, fd: Any) -> bool:
        return self._unwatch(fd, READ)

    def _remove_writer(self, fd: Any) -> bool:
        return self._unwatch(fd, WRITE)

    def _watch(self, file: Any, kind: int, callback: Any, args: Any, context: Context | None) -> Handle:
        self._check_closed()
        fd = fileno(file)
        handle: Handle = self._handle_class(callback, args, self, context)
        replaced = self._poller.add(fd, kind, handle)
        if replaced is not None:
            replaced.cancel()
        if file.__class__ is not int:
            self._files[fd] = file
        elif "_files" in self.__dict__:
            self._files.pop(fd, None)  # what was closed and had this number
        self._go_by_time()
        return handle

    def _unwatch(self, file: Any, kind: int) -> bool:
        if self._closed:
            return False
        fd = self._fd_of(file)
        removed = self._poller.remove(fd, kind, self)
        if removed is None:
            return False
        removed.cancel()
        if "_files" in self.__dict__ and not any(self._watched(fd)):
            self._files.pop(fd, None)
        return True

    def _fd_of(self, file: Any) -> int:
        """Its descriptor; of one that was closed meanwhile the one that it was watched by, as with asyncio's selectors."""
        try:
            return fileno(file)
        except ValueError:
            for fd, watched in self._files.items():
                if watched is file:
                    return fd  # type: ignore[no-any-return]
            raise

    def _watched(self, fd: int) -> tuple[Any, Any]:
        return (None, None) if self._closed else self._poller.watched(fd, self)

    def _watched_fds(self) -> list[int]:
        return [] if self._closed else self._poller.fds(self)

    def _go_by_time(self) -> None:
        """There is a timer or a descriptor now: let this worker look for what is due by time, not by turns alone."""
        worker = here.worker
        if worker is not None and not worker.timed:
            worker.timed = True
            running = worker.running
            if running is not None:
                running._post(LOOK_AGAIN)  # its fast path does not look whether it is to go by time

    def _sent(self) -> None:
        """The strand sent something, perhaps to itself: if it goes on, its worker looks at the poller first."""
        worker = here.worker
        if worker is not None:
            worker.sent = True

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:
        raise RuntimeError(
            f"{self!r} gets no signals, the main thread does: add the handler in the main strand, "
            f"or have it spawn or set a plait.Event here"
        )

    def remove_signal_handler(self, sig: int) -> bool:
        raise RuntimeError(f"{self!r} has no signal handlers: they belong to the main strand")

    def _blocking_pool(self) -> Any:
        return self._pool.blocking_pool

    @property
    def _closed(self) -> bool:  # type: ignore[override]
        return self._pool.closed

    def _check_closed(self) -> None:
        if self._closed:
            self._pool.check_open()  # which knows whether it was a fork that closed it
            raise RuntimeError("Event loop is closed")

    def _runs_elsewhere(self) -> bool:
        return not self._closed

    def is_running(self) -> bool:
        return not self._closed

    def _refuse(self, *_args: Any, **_options: Any) -> Any:
        raise RuntimeError(
            f"plait runs {self!r}: only a main strand is run, stopped and closed by hand; `await strand.aclose()` ends this one"
        )

    run_forever = run_until_complete = stop = close = _refuse


def fileno(fd: Any) -> int:
    """The descriptor of an int or of an object with fileno(), as selectors take it."""
    try:
        number = fd if isinstance(fd, int) else int(fd.fileno())
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"Invalid file object: {fd!r}") from None
    if number < 0:
        raise ValueError(f"Invalid file descriptor: {fd!r}")
    return number


def _coroutine_of(what: Any, args: Any, kwargs: Any) -> Any:
    """The coroutine to run for `Strand.call`."""
    if what.__class__ is CoroutineType or not callable(what) or asyncio.iscoroutine(what) or inspect.iscoroutinefunction(what):
        check_coroutine(what)
        if args or kwargs:
            raise TypeError(f"{what!r} takes no arguments: it is a coroutine, made with its own")
        return what
    return _called(what, args, kwargs)


async def _called(function: Any, args: Any, kwargs: Any) -> Any:
    result = function(*args, **kwargs)
    if asyncio.iscoroutine(result):
        result.close()
        raise TypeError(f"{function!r} returned a coroutine, {result!r}: have `strand.call` run that, not the function")
    return result


def current_strand() -> Strand:
    """The strand that the caller runs in; RuntimeError outside plait."""
    running = _get_running_loop()
    if isinstance(running, Strand):
        return running
    if running is None:
        raise RuntimeError(
            "no strand is running here: this must be called from inside plait.run() (or plait's event loop); "
            "a plain thread gives work to a strand that it knows, by asyncio.run_coroutine_threadsafe(coro, strand)"
        )
    raise RuntimeError(
        f"the running loop {running!r} is not plait's: run the program by plait.run(main()), or have what runs it make plait's "
        f"loop: asyncio.Runner(loop_factory=plait.new_event_loop), `uvicorn --loop plait:new_event_loop`"
    )
