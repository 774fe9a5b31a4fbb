"""ThreadStrand: a strand that stays on one thread and polls for itself: the main strand, and pinned ones (pinned.py).

Ownership
    `_ready` is a deque here: any thread appends (and rings if the strand sleeps), the strand's thread takes out.
    `carrier` is the thread that runs the strand's turns. It takes its `item` away before it looks for more, or sleeps.
    `_parked` is set by the strand's thread before it rescans and sleeps, and cleared by it, or by whoever rings.
    Everything else: the strand's thread.
    No lock anywhere: a signal handler may post in the middle of anything.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import warnings
import weakref
from asyncio import Handle
from collections import deque
from selectors import EVENT_READ, EVENT_WRITE, SelectorKey
from typing import TYPE_CHECKING, Any

from plait._rt.asyncio_face import asyncgens
from plait._rt.asyncio_face.inherited import Inherited
from plait._rt.asyncio_face.loop import AsyncioFace, note_slow, run_callback
from plait._rt.asyncio_face.selector_face import SelectorFace, events_of
from plait._rt.ground.build import GIL_BUILD
from plait._rt.ground.clock import Clock
from plait._rt.ground.cpython import EventLoop, _get_running_loop, _getframe, _run_until_complete_cb, _set_running_loop, system
from plait._rt.ground.gil_yield import GIL_YIELD, polled, yield_gil
from plait._rt.ground.here import here
from plait._rt.ground.run_queue import BATCH, items_of
from plait._rt.ground.thread_probe import ThreadProbe
from plait._rt.io import wakeup
from plait._rt.io.poller import READ, WRITE, Poller
from plait._rt.io.timers import Timers
from plait._rt.strand.carrier import ThreadCarrier
from plait._rt.strand.strand import MOST, Strand
from plait._rt.task.current_task import CURRENT_STAYS, clear_current
from plait._rt.task.handles import TimerHandle
from plait._rt.task.local_task import LocalTask
from plait._rt.task.task import Task

if TYPE_CHECKING:
    from contextvars import Context

    from plait._rt.pool import Pool

_FACTORY = Inherited("_task_factory", None)


class ThreadStrand(Strand):
    """A strand bound to one thread."""

    __slots__ = (
        "_closed", "_debug", "_due", "_parked", "_poller", "_selector_face", "_stop_with", "_task_factory", "_thread_id",
        "_timers", "_to_look_for", "_to_poll", "carrier",
    )  # fmt: skip

    def __new__(cls, *_args: Any, **_options: Any) -> ThreadStrand:
        return object.__new__(cls)

    def set_up(self, pool: Pool, name: str | None = None) -> ThreadStrand:
        """Make it whole; `__init__` is no place for it, as `plait.Strand(pinned=True)` would call that again."""
        self._poller = Poller(pool.options.selector)  # type: ignore[misc]  # first: if there is no descriptor left nothing is to be closed
        self._pool = pool
        self._next = self._current = None
        self._ready = deque()  # type: ignore[assignment]
        self._closed = self._parked = self._debug = False  # type: ignore[misc]
        self._task_factory = None if pool.main is self else pool.main._task_factory  # type: ignore[misc]
        self._timers = Timers()  # type: ignore[misc]
        self._thread_id = None
        self._to_look_for = self._to_poll = True  # is there anything that each iteration looks for? In the poller, too?
        self._due = math.inf  # no timer is due before that; who adds one from another thread may be heard by the next look only
        self._selector_face: Any = None  # made when somebody asks for `_selector`
        self.carrier = self._new_carrier(name)
        self._stop_with: BaseException | None = None
        if name is not None:
            self.__dict__["_name"] = name
        return self

    def _new_carrier(self, _name: str | None) -> ThreadCarrier:
        return ThreadCarrier(self)

    @property
    def probe(self) -> ThreadProbe:
        """What others may ask of the strand's thread."""
        return self.carrier.probe

    def belong_here(self) -> None:
        """Until it is run it is the calling thread's."""
        main = here.main()
        if main is None or not main.is_running():
            here.main = weakref.ref(self)

    # Running

    def run_forever(self) -> None:
        self._check_closed()
        self._check_running()
        pool = self._pool
        self._set_coroutine_origin_tracking(self._debug)
        hooks = sys.get_asyncgen_hooks()
        signals_end_polls = self._have_signals_end_polls()
        self._thread_id = threading.get_ident()
        self.probe.begin()  # first: the monitor notes how much the thread has computed until it starts
        here.main = weakref.ref(self)
        try:
            if pool.options.watch_main:
                pool.watch()
            if pool.watched:
                pool.monitor.run_begins(self)
            sys.set_asyncgen_hooks(*asyncgens.hooks)
            _set_running_loop(self)
            self._run_until_stopped()
        except BaseException as raised:
            if self._stop_with is raised:  # it came out of a step before we looked
                self._stop_with = None
            raise
        finally:
            if signals_end_polls and not self._signal_handlers:
                wakeup.leave(self._csock.fileno())
            self.probe.end()
            self._stopping = False  # type: ignore[misc]
            self._thread_id = None
            if self._current is not None or not CURRENT_STAYS:
                clear_current(self)
            self.carrier.item = None
            _set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*hooks)

    def _run_until_stopped(self) -> None:
        """In iterations as asyncio's: what the poller and the timers have comes behind what is ready, and all that is run.
        Without descriptors and timers there is nothing to look for, but now and then."""
        ready = self._ready
        left = 0  # turns until the next look
        while True:
            if left <= 0 or not ready:
                self._look()
                left = BATCH
            elif self._to_look_for:
                self._glance()
            count = min(len(ready), MOST)
            if self._debug:
                self._run_slowly(count)
                left -= count
            else:
                left = self._run_batch(count, left)
            if self._stopping:
                break
        self._raise_if_told()

    def _run_once(self) -> None:
        """One iteration of asyncio's loop, for those who run it by hand."""
        running = _get_running_loop()
        _set_running_loop(self)  # from 3.14 on no other loop's task can be cleared
        try:
            self._look()
            count = len(self._ready)
            if self._debug:
                self._run_slowly(count)
            else:
                self._run_batch(count, count)
        finally:
            self.carrier.item = None
            if self._current is not None or not CURRENT_STAYS:
                clear_current(self)
            _set_running_loop(running)

    def _run_batch(self, count: int, left: int) -> int:
        """Run the count oldest items, as asyncio's loop does in one iteration, and further iterations, of left turns in all,
        while these need nothing but what is ready; returns how many of those turns are left."""
        ready, carrier = self._ready, self.carrier
        popleft = ready.popleft  # type: ignore[attr-defined]
        while True:
            for _ in range(count):
                carrier.item = item = popleft()
                if type(item) is LocalTask or not isinstance(item, Handle):
                    item._run()
                elif not item._cancelled:  # type: ignore[attr-defined]
                    if self._current is not None or not CURRENT_STAYS:
                        clear_current(self)
                    item._run()  # type: ignore[attr-defined]
            item = None  # a traceback may know this frame: nothing is kept by it
            left -= count
            if left <= 0 or self._to_look_for or self._stopping or not ready or self._debug:
                return left
            count = len(ready)
            if count > MOST:  # (`min` would be a call)
                count = MOST

    def _run_slowly(self, count: int) -> None:
        """The same in debug mode: slow callbacks and steps are logged."""
        carrier = self.carrier
        for _ in range(count):
            carrier.item = item = self._ready.popleft()  # type: ignore[attr-defined]
            if isinstance(item, Handle):
                if self._current is not None or not CURRENT_STAYS:
                    clear_current(self)
                run_callback(self, item)
            else:
                started = Clock.monotonic()
                item._run()
                note_slow(self, item, Clock.monotonic() - started)
            carrier.item = item = None  # whatever it holds ends here, and complains here

    def _look(self) -> None:
        """Fetch what the poller and the timers have; sleep if there is nothing to run."""
        ready, timers = self._ready, self._timers
        self.carrier.item = None
        if ready or self._stopping:
            yield_gil(self._pool)
            if self._poller._handles or self._selector_face is not None:
                ready.extend(self._poll(0.0))
        else:
            self._sleep()
        self._to_look_for = self._to_poll = False  # before it is asked: who adds something says so after
        if timers._heap or timers._incoming:
            self._take_due(self.time() + self._clock_resolution)
            self._to_look_for = True
        own = 0 if self._signal_handlers else self._internal_fds  # what ends polls at signals, while none is awaited
        if len(self._poller._handles) > own or self._selector_face is not None:
            self._to_look_for = self._to_poll = True
        if self._stop_with is not None:
            self._raise_if_told()

    def _glance(self) -> None:
        """Between two looks: fetch what there is."""
        self.carrier.item = None
        if self._to_poll:
            self._ready.extend(self._poll(0.0))
        if self._due < math.inf:
            now = self.time() + self._clock_resolution
            if self._due <= now:
                self._take_due(now)
        if self._stop_with is not None:
            self._raise_if_told()

    def _take_due(self, now: float) -> None:
        timers = self._timers
        self._due = math.inf  # first: what is added meanwhile makes it less
        self._ready.extend(timers.due(now))
        if timers._heap or timers._incoming:
            self._due = min(self._due, -math.inf if timers._incoming else timers._heap[0][0])

    def _sleep(self) -> None:
        """Sleep in the poller until something is due, or posted."""
        ready, pool = self._ready, self._pool
        if self._current is not None or not CURRENT_STAYS:
            clear_current(self)
        self._parked = True
        timeout: float | None = 0.0
        began = Clock.monotonic()
        if not ready:  # looked again after the announcement
            now = self.time()
            deadline = self._timers.deadline(now)
            timeout = None if deadline is None else max(0.0, deadline - now)
        ready.extend(self._poll(timeout))
        self._parked = False
        polled(pool, began)
        if pool.watched:
            pool.monitor.wake()

    def _poll(self, timeout: float | None) -> list[Handle]:
        """The handles of what is ready; by the selector's `select` if somebody replaced that (selector_face.py)."""
        face = self._selector_face
        if face is None or (type(face) is SelectorFace and "select" not in face.__dict__):
            found: list[Handle] = self._poller.poll(timeout)
            return found
        ready: list[Handle] = []
        for key, events in face.select(timeout):
            reader, writer = key.data
            if events & EVENT_READ and reader is not None:
                ready.append(reader)
            if events & EVENT_WRITE and writer is not None:
                ready.append(writer)
        return ready

    def _select(self, timeout: float | None) -> list[tuple[SelectorKey, int]]:
        """What is ready within timeout seconds.

        Who replaced `select` may call this several times in one wait. The first call has silenced the bell, and who rang it has
        taken `_parked` down: so each call says anew that the thread sleeps, and looks after that for what was posted before.
        """
        sleeps = timeout != 0.0
        if sleeps:
            self._parked = True
            if self._ready or self._timers._incoming:
                timeout = 0.0
        told = self._poller.events(timeout)
        if sleeps:
            self._parked = False  # a step may call this, too
        found, watched = [], self._poller.watched
        for fd, mask in told:
            events = (EVENT_READ if mask & READ else 0) | (EVENT_WRITE if mask & WRITE else 0)
            pair = watched(fd)
            found.append((SelectorKey(fd, fd, events_of(pair) or EVENT_READ, pair), events))
        return found

    @property
    def _selector(self) -> Any:
        if self._selector_face is None and not self._closed:
            self._selector_face = SelectorFace(self)
            self._go_by_time()
        return self._selector_face

    @_selector.setter
    def _selector(self, selector: Any) -> None:
        self._selector_face = selector
        self._go_by_time()

    def stop(self) -> None:
        self._stopping = True  # type: ignore[misc]

    def raise_soon(self, stop: BaseException) -> None:
        """Raise stop out of run_forever at the next place where nothing is half done; from any thread."""
        self._stop_with = stop
        self._to_look_for = True
        self._ready.append(_NOTHING)
        self._ring()

    def run_until_complete(self, future: Any) -> Any:
        """As asyncio; but what the run before waited for doesn't stop this one, if that was interrupted when it was done."""
        if not self.is_running():
            item: Any
            for item in items_of(self._ready):  # type: ignore[arg-type]
                if isinstance(item, Handle) and item._callback is _run_until_complete_cb:  # type: ignore[attr-defined]
                    item.cancel()
                elif type(item) is LocalTask and item._call is _run_until_complete_cb:
                    item._call = None
        return EventLoop.run_until_complete(self, future)

    def _raise_if_told(self) -> None:
        stop, self._stop_with = self._stop_with, None
        if stop is not None:
            raise stop

    # Scheduling

    def _post(self, item: Any) -> None:
        self._ready.append(item)
        if self._parked:
            self._ring()

    def _ring(self) -> None:
        self._parked = False
        self._wake()

    def _wake(self) -> None:
        if self._closed:
            return
        self._poller.wake()
        worker = here.worker
        processor = None if worker is None else worker.proc
        if processor is not None and processor.queue and GIL_BUILD():
            GIL_YIELD.queue(processor.queue)

    def _write_to_self(self) -> None:  # asyncio's signal handling calls it
        self._ring()

    def _ready_again(self, task: Task[Any]) -> None:
        self._ready.append(task)

    def _look_again(self) -> None:
        pass

    def _add_timer(self, timer: Any) -> None:
        self._timers._incoming.append(timer)  # add(), without the price of a call
        if timer._when < self._due:
            self._due, self._to_look_for = timer._when, True
        if self._parked:  # added from another thread
            self._ring()

    _now = AsyncioFace._now

    def _call_at(self, when: float, callback: Any, args: tuple[Any, ...], context: Context | None) -> asyncio.TimerHandle:
        if self._thread_id != threading.get_ident():
            self._check_timer_is_here(callback)
        timer: asyncio.TimerHandle
        if self._debug or self._closed or when.__class__ is not float or when != when:
            timer = self._new_timer(when, callback, args, context)
        else:
            timer = TimerHandle(when, callback, args, self, context)  # the same, without the price of a call
        self._add_timer(timer)
        return timer

    # What it watches: it looks in each iteration

    _handle_class = Handle

    def _go_by_time(self) -> None:
        self._to_poll = self._to_look_for = True

    def _sent(self) -> None:
        pass

    # Settings

    def set_task_factory(self, factory: Any) -> None:
        """As asyncio; the main strand's holds for the strands of its pool that have none of their own."""
        before = self._task_factory
        EventLoop.set_task_factory(self, factory)
        pool = self._pool
        if pool.main is not self:
            return
        Strand._task_factory = _FACTORY  # type: ignore[assignment]
        for strand in list(pool.pinned):
            if strand._task_factory is before:
                strand._task_factory = factory  # type: ignore[misc]

    # Signals

    def make_signal_pipe(self) -> None:
        """On the thread that gets the signals; now, not when they are first waited for: it takes descriptors."""
        if threading.current_thread() is threading.main_thread():
            try:
                self._make_self_pipe()
            except OSError:
                self.close()
                raise

    def _have_signals_end_polls(self) -> bool:
        """A signal that arrives just before the poll sleeps would not end it, so the C handler writes to our pipe. False on a
        thread that gets no signals, and where the program has it write elsewhere: there a handler may run late, as on asyncio.
        """
        if threading.current_thread() is not threading.main_thread():
            return False
        if self._csock is None:
            self._make_self_pipe()
        return wakeup.take(self._csock.fileno())

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:
        if self._csock is None:
            self._make_self_pipe()
        EventLoop.add_signal_handler(self, sig, callback, *args)
        self._go_by_time()

    def remove_signal_handler(self, sig: int) -> bool:
        removed: bool = EventLoop.remove_signal_handler(self, sig)
        if removed and self.is_running():  # asyncio has taken the pipe away with the last handler
            self._have_signals_end_polls()
        return removed

    # State

    def is_running(self) -> bool:
        return self._thread_id is not None

    def _runs_elsewhere(self) -> bool:
        return self._thread_id is not None and self._thread_id != threading.get_ident()

    def _stopped_here(self) -> bool:
        return self._thread_id is None and here.main() is self

    # The end

    async def shutdown_asyncgens(self) -> None:
        """Cancel what runs in the pool's strands and wait for it, then close the async generators of all strands."""
        from plait._rt.shutdown import cancel_pool, ended

        self._asyncgens_shutdown_called = True  # type: ignore[misc]
        pool = self._pool
        stuck = await cancel_pool(pool) if pool.main is self else set()
        closing: set[Any] = {
            strand._spawn(_aclose(generator), None, None, _getframe())
            for generator, strand in asyncgens.of_pool(pool)
            if not strand._closed and strand not in stuck
        }
        for task in await ended(closing, pool):
            if not task.cancelled() and task.exception() is None and task.result() is not None:
                generator, error = task.result()
                self.call_exception_handler(
                    {
                        "message": f"an error occurred during closing of asynchronous generator {generator!r}",
                        "exception": error,
                        "asyncgen": generator,
                    }
                )

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        self._executor_shutdown_called = True  # type: ignore[misc]
        pool = self._pool
        if self._default_executor is not None:
            await super().shutdown_default_executor(*(() if timeout is None else (timeout,)))
        if pool.main is self and pool._blocking_pool is not None:
            threads = pool._blocking_pool.threads()
            pool._blocking_pool.shutdown(wait=False)
            threads += pool._blocking_pool.threads()  # what was submitted in between
            while any(thread.is_alive() for thread in threads) and (timeout is None or timeout > 0):
                await asyncio.sleep(0.005)
                timeout = None if timeout is None else timeout - 0.005

    def close(self) -> None:
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self._closed:
            return
        if self._pool.main is self:
            stuck = self._pool.close()
            if stuck:
                self._pool.monitor.name_stuck(stuck)
        if not system.sys.is_finalizing():
            for sig in list(self._signal_handlers):
                self.remove_signal_handler(sig)
        elif self._signal_handlers:
            text = f"Closing the loop {self!r} on interpreter shutdown stage, skipping signal handlers removal"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)
            self._signal_handlers.clear()
        if self._csock is not None:
            wakeup.leave(self._csock.fileno())
            if self._ssock.fileno() < 0:  # by its own finaliser, which the collector ran before ours
                self._csock.close()
            else:
                self._close_self_pipe()
        running = _get_running_loop()
        if isinstance(running, ThreadStrand):  # with the last handler asyncio has taken its pipe away, too
            running._have_signals_end_polls()
        self._closed = True  # type: ignore[misc]
        asyncgens.forget(self)
        if here.main() is self:
            here.__dict__.pop("main", None)  # a closed loop is its holder's alone, as in asyncio
        self._ready.clear()
        self._timers = Timers()  # type: ignore[misc]  # a closed loop keeps no callback, nor what it would have been called with
        self._executor_shutdown_called = True  # type: ignore[misc]
        own_executor = self.__dict__.pop("_default_executor", None)
        if own_executor is not None:
            own_executor.shutdown(wait=False)
        self._poller.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            EventLoop.__del__(self)
            if not self.is_running():
                self.close()


class _Nothing:
    def _run(self) -> None:
        pass


_NOTHING = _Nothing()


async def _aclose(generator: Any) -> Any:
    try:
        await generator.aclose()
    except Exception as error:
        return generator, error
    return None
