"""Start the runtime, and the few verbs that work anywhere in it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, ParamSpec, TypeVar, overload

from plait._rt.ground.code_origin import is_librarys, is_plaits
from plait._rt.ground.cpython import _get_running_loop, _getframe, is_debug_mode
from plait._rt.pool import Pool
from plait._rt.strand.strand import Strand, current_strand
from plait._rt.strand.thread_strand import ThreadStrand
from plait._rt.task.checks import check_callable, check_coroutine
from plait._rt.task.task import Task
from plait._rt.task.waiter import Waiter
from plait.diagnose.report import Reporter
from plait.diagnose.stall import Stall
from plait.ps.server import SERVER
from plait.settings import settings
from plait.stats import Stats

T = TypeVar("T")
P = ParamSpec("P")


def new_event_loop(
    *,
    workers: int | None = None,
    handoff_after: float | None = None,
    max_threads: int | None = None,
    shutdown_grace: float | None = None,
    on_stall: Callable[[Stall], object] | None = None,
) -> EventLoop:
    """A main strand for the thread that runs it, as an asyncio event loop; whoever makes it runs and closes it.

    For what makes its own runs: `asyncio.run(main(), loop_factory=plait.new_event_loop)` (3.12 or later, `asyncio.Runner`
    takes a loop_factory in 3.11 as well), `uvicorn --loop plait:new_event_loop`, test plugins. Several loops live side by
    side, each with a pool of its own. The parameters, and the errors that wrong ones raise, are those of `run`.

    Its monitor, which reports who blocks, starts with its first run (PLAIT_WATCH_MAIN=0: with the first `spawn` or `Strand`);
    the workers start with the first `spawn` or `Strand`. Any thread may call it.
    """
    return EventLoop(
        workers=workers,
        handoff_after=handoff_after,
        max_threads=max_threads,
        shutdown_grace=shutdown_grace,
        on_stall=on_stall,
    )


class EventLoop(ThreadStrand):
    """What `new_event_loop` makes: a main strand, as an asyncio event loop. For settings that want the name of a class, such as
    Scrapy's ASYNCIO_EVENT_LOOP. The parameters, errors and all else: see `new_event_loop`.
    """

    __slots__ = ()

    def __init__(
        self,
        *,
        workers: int | None = None,
        handoff_after: float | None = None,
        max_threads: int | None = None,
        shutdown_grace: float | None = None,
        on_stall: Callable[[Stall], object] | None = None,
    ) -> None:
        options = settings(workers, handoff_after, max_threads, shutdown_grace, on_stall)
        self.set_up(Pool(self, options, Reporter(on_stall), SERVER))
        self.belong_here()
        self._debug = is_debug_mode()  # type: ignore[misc]
        self.make_signal_pipe()


class Runner(asyncio.Runner):  # type: ignore[misc]
    """As `asyncio.Runner`, with plait's loop: a context manager that keeps one runtime, its threads and strands, over several
    calls of `run`.

        with plait.Runner(workers=4) as runner:
            runner.run(first())
            runner.run(second())

    The parameters are those of `run`. loop_factory makes another loop, which takes its settings itself. As in asyncio, `run`,
    `get_loop` and `close` are called from the thread that made it; a RuntimeError says so where they can't be: in a running
    loop, after `close`. What `close` does at the end of the block: see `run`.

    Ctrl-C cancels the main task and then raises KeyboardInterrupt out of `run`, as in asyncio; a second Ctrl-C raises it at
    once, in the user's frame if one is running in the main thread, else where nothing is half done: never inside the scheduler.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        handoff_after: float | None = None,
        max_threads: int | None = None,
        shutdown_grace: float | None = None,
        on_stall: Callable[[Stall], object] | None = None,
        debug: bool | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "workers": workers, "handoff_after": handoff_after, "max_threads": max_threads, "shutdown_grace": shutdown_grace,
            "on_stall": on_stall,
        }  # fmt: skip
        settings(**given)  # what is wrong is said here, not by the first run
        unused = [name for name, value in given.items() if value is not None]
        if loop_factory is None:
            loop_factory = functools.partial(new_event_loop, **given)
        elif unused:
            raise TypeError(f"loop_factory makes the loop, so {', '.join(unused)} would do nothing here: give it to that")
        else:
            self._ours = False
        super().__init__(debug=debug, loop_factory=loop_factory)

    _ours = True  # is the loop made by plait's own factory?

    def _lazy_init(self) -> None:
        """As asyncio's without a loop factory: while the loop is there it is this thread's current one."""
        super()._lazy_init()  # type: ignore[misc]
        if self._ours and not self._set_event_loop:  # type: ignore[has-type]
            self._set_event_loop = True  # so that `close` takes it back
            asyncio.set_event_loop(self._loop)  # type: ignore[attr-defined]

    def run(self, coro: Coroutine[Any, Any, T], *, context: Context | None = None) -> T:
        """Run coro as the main task, and return its result."""
        if inspect.iscoroutinefunction(coro):
            check_coroutine(coro)
        return super().run(coro, context=context)

    def _on_sigint(self, signum: int, frame: Any, main_task: Task[Any]) -> None:
        self._interrupt_count += 1  # type: ignore[attr-defined]
        loop: Any = self.get_loop()
        if self._interrupt_count == 1 and not main_task.done():  # type: ignore[attr-defined]
            # In the handler we may be in the middle of anything: leave a message, cancel when it is read.
            loop.call_soon_threadsafe(main_task.cancel)
            return
        if isinstance(loop, ThreadStrand) and not _in_user_frame(frame):
            loop.raise_soon(KeyboardInterrupt())
            return
        raise KeyboardInterrupt


def _in_user_frame(frame: Any) -> bool:
    """Was the main thread in the user's code, or in what that called, and not in plait's or what plait called?"""
    while frame is not None:
        file = frame.f_code.co_filename
        if is_plaits(file):
            return False
        if not is_librarys(file):
            return True
        frame = frame.f_back
    return True


def run(
    main: Coroutine[Any, Any, T],
    *,
    workers: int | None = None,
    handoff_after: float | None = None,
    max_threads: int | None = None,
    shutdown_grace: float | None = None,
    on_stall: Callable[[Stall], object] | None = None,
    debug: bool | None = None,
) -> T:
    """Run main in the main strand, on this thread, and return its result; as `asyncio.run`, with a runtime below it.

    workers: how many strands may run at once; the usable cores on a free-threaded build, 1 on a GIL build (PLAIT_WORKERS).
    handoff_after: seconds that a step may compute before its processor goes to another worker, 0.008 (PLAIT_HANDOFF_AFTER);
        a step that blocks loses it after a few milliseconds.
    max_threads: cap on the pool's threads, 256 (PLAIT_MAX_THREADS). At the cap steps that block make others wait; it says so.
    shutdown_grace: seconds that the end of the run waits for a step that does not end, 5.0 (PLAIT_SHUTDOWN_GRACE).
    on_stall: a plain function, called with a `plait.Stall` while a step lasts longer than 0.1 s, and when it has ended; on a
        thread of its own, so it must be thread-safe. Without it, and with it, the logger `plait.stalls` has the report
        (docs/reports.md).
    debug: asyncio's debug mode.

    Raises what main raises; ValueError and TypeError for a wrong setting, one in the environment too; RuntimeError inside a
    running loop, and where the system gives no thread. Ctrl-C: see `Runner`.

    At the end the tasks of all strands are cancelled and waited for, async generators closed, threads joined. A thread that
    is stuck is named in a `StuckThreads` warning and left behind: it ends with its step, or with the process.
    """
    if _get_running_loop() is not None:
        raise RuntimeError("plait.run() cannot be called from a running event loop")
    with Runner(
        workers=workers, handoff_after=handoff_after, max_threads=max_threads, shutdown_grace=shutdown_grace, on_stall=on_stall,
        debug=debug,
    ) as runner:  # fmt: skip
        return runner.run(main)


def spawn(coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None) -> Task[T]:
    """Start coro in a strand of its own, in parallel with the caller; must be called from inside a strand.

    Raises TypeError for what is no coroutine, RuntimeError outside plait, after the end of the run, and where the system gives
    no thread for the first worker. context (the caller's if None) is copied: two strands can't be in one context at a time. The
    runtime holds the task until it is done. An exception that nobody retrieves is logged with the place of this call. (Go's
    `go` statement.)
    """
    pool = current_strand()._pool
    task = pool.new_task(coro, name, context, _getframe(1))
    pool.schedule(task, False)
    return task


async def to_thread(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function on a thread of the runtime's elastic pool, in a copy of the caller's context.

    As `asyncio.to_thread`. A checkpoint; on cancel the function goes on, and its result is dropped.
    """
    check_callable(func)
    strand = current_strand()
    call = functools.partial(copy_context().run, func, *args, **kwargs)
    return await asyncio.wrap_future(strand._blocking_pool().submit(call), loop=strand)  # type: ignore[no-any-return]


def stats() -> Stats:
    """A snapshot of the counters of the runtime that the caller runs in; RuntimeError outside plait. It takes longer the more
    tasks there are (some 10 us for a thousand), and blocks nobody."""
    return current_strand()._pool.stats()


@types.coroutine
def checkpoint() -> Generator[None, None, None]:
    """`await plait.checkpoint()`: let others run, and be cancelled if that was asked for. The task stays ready.

    (A generator each time: one object for all would be one that all threads count references on.)
    """
    yield


class _Sleep(Waiter):
    """The wait of `sleep`: its own timer."""

    __slots__ = ("_cancelled", "_delay", "_loop", "_result", "_when")
    what = "plait.sleep"

    def __init__(self, delay: float, result: Any) -> None:
        super().__init__()
        self._delay, self._result = delay, result
        self._cancelled = False

    def _enrol(self) -> None:
        self._loop = strand = current_strand()
        self._when = strand._now() + self._delay
        strand._add_timer(self)

    def _withdraw(self) -> None:
        self._cancelled, self._result = True, None
        self._loop._timers.cancelled += 1

    def _collect(self) -> Any:
        return self._result


@overload
def sleep(delay: float) -> Coroutine[Any, Any, None]: ...
@overload
def sleep(delay: float, result: T) -> Coroutine[Any, Any, T]: ...
def sleep(delay: float, result: Any = None) -> Any:
    """`await plait.sleep(seconds)`: suspend for delay seconds and return result; as `asyncio.sleep`, lighter.

    Zero or less: one checkpoint. NaN is refused.
    """
    try:
        if delay <= 0:
            return _yield_once(result)
        if math.isnan(delay):
            raise ValueError("Invalid delay: NaN (not a number)")
        return _Sleep(float(delay), result)
    except TypeError:
        raise TypeError(f"plait.sleep takes a number of seconds, got {delay!r}") from None


async def _yield_once(result: Any) -> Any:
    await checkpoint()
    return result


__all__ = [
    "EventLoop",
    "Runner",
    "Strand",
    "checkpoint",
    "current_strand",
    "new_event_loop",
    "run",
    "sleep",
    "spawn",
    "stats",
    "to_thread",
]
