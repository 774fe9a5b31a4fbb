"""Nanoseconds per switch: 1,000 tasks take turns, each awaiting a bare yield N times.

plait: 1,000 spawned strands of one task each, `await plait.checkpoint()`, one worker, monitor on (its default).
asyncio, uvloop: 1,000 tasks, `await asyncio.sleep(0)`. bare: the same 1,000 coroutines as plait's, driven round-robin
by `coro.send(None)` and a deque, which is the least that any Python scheduler does.

The clock runs from the first task's first turn to the last task's last, with every task started before: no spawn
counts. Where a peer has tasks, an untimed round first asks in every step whether the running loop, the current task
and a context variable are the task's own; the answer is `correct`.

`--known`: before that, other tasks block at one place until plait knows it (its learned points), and goes on without them.

The ladder (`--peer bare+...`) adds one line of a naive asyncio step at a time, so that its cost can be stated:
bound     keep `coro.send` bound in the queue instead of looking it up
context   an object per task, and its step under `context.run`
loop      ... and `_set_running_loop` to a loop of the task's own
mark      ... and `_enter_task` / `_leave_task`
"""

import asyncio
import asyncio.events
import asyncio.tasks
import contextvars
import importlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from bench import common

LADDER = ("bare", "bare+bound", "bare+context", "bare+loop", "bare+mark")
KNOWN = "plait, a place known"
Checkpoint = Callable[[], Awaitable[object]]
Coro = Coroutine[Any, Any, None]


class _Yield:
    """Stands in for `plait.checkpoint()` where plait cannot be imported."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        yield


def checkpoint_of(peer: str) -> Checkpoint:
    if peer in ("asyncio", "uvloop"):
        return lambda: asyncio.sleep(0)
    try:
        checkpoint: Checkpoint = importlib.import_module("plait").checkpoint
    except (ImportError, AttributeError):
        return _Yield
    return checkpoint


class Clock:
    """Runs from the first `turn` to the last `done`."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []

    def elapsed_ns(self) -> int:
        return max(self.ended) - min(self.begun)


async def turns(checkpoint: Checkpoint, n: int, clock: Clock, gate: Any = None) -> None:
    if gate is not None:
        await gate.wait()
    clock.begun.append(time.perf_counter_ns())
    for _ in range(n):
        await checkpoint()
    clock.ended.append(time.perf_counter_ns())


def drive_bare(coros: list[Coro]) -> None:
    ready = deque(coros)
    popleft, append = ready.popleft, ready.append
    while ready:
        try:
            while True:
                coro = popleft()
                coro.send(None)
                append(coro)
        except (StopIteration, IndexError):
            pass


def drive_bound(coros: list[Coro]) -> None:
    ready = deque(coro.send for coro in coros)
    popleft, append = ready.popleft, ready.append
    while ready:
        try:
            while True:
                send = popleft()
                send(None)
                append(send)
        except (StopIteration, IndexError):
            pass


class _Task:
    __slots__ = ("loop", "run", "send")

    def __init__(self, coro: Coro) -> None:
        self.send = coro.send
        self.run = contextvars.copy_context().run
        self.loop: Any = object()


def drive_context(coros: list[Coro]) -> None:
    ready = deque(_Task(coro) for coro in coros)
    popleft, append = ready.popleft, ready.append
    while ready:
        try:
            while True:
                task = popleft()
                task.run(task.send, None)
                append(task)
        except (StopIteration, IndexError):
            pass


def drive_loop(coros: list[Coro]) -> None:
    ready = deque(_Task(coro) for coro in coros)
    popleft, append = ready.popleft, ready.append
    set_running_loop = asyncio.events._set_running_loop
    while ready:
        try:
            while True:
                task = popleft()
                set_running_loop(task.loop)
                task.run(task.send, None)
                append(task)
        except (StopIteration, IndexError):
            pass
    set_running_loop(None)


def drive_mark(coros: list[Coro]) -> None:
    ready = deque(_Task(coro) for coro in coros)
    popleft, append = ready.popleft, ready.append
    set_running_loop = asyncio.events._set_running_loop
    enter, leave = asyncio.tasks._enter_task, asyncio.tasks._leave_task
    while ready:
        task: Any = None
        try:
            while True:
                task = popleft()
                loop = task.loop
                set_running_loop(loop)
                enter(loop, task)
                task.run(task.send, None)
                leave(loop, task)
                append(task)
        except StopIteration:
            leave(task.loop, task)
        except IndexError:
            pass
    set_running_loop(None)


DRIVERS: dict[str, Callable[[list[Coro]], None]] = dict(
    zip(LADDER, (drive_bare, drive_bound, drive_context, drive_loop, drive_mark), strict=True)
)


def measure_bare(peer: str, tasks: int, n: int) -> int:
    clock, checkpoint = Clock(), checkpoint_of(peer)
    DRIVERS[peer]([turns(checkpoint, n, clock) for _ in range(tasks)])
    return clock.elapsed_ns()


_mine: contextvars.ContextVar[int] = contextvars.ContextVar("_mine")


async def _marks_hold(checkpoint: Checkpoint, key: int) -> tuple[bool, object]:
    """Whether loop, task and context stay this task's own for a few steps, and which task that was."""
    _mine.set(key)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    right = True
    for _ in range(3):
        await checkpoint()
        right = right and asyncio.get_running_loop() is loop and asyncio.current_task() is task and _mine.get() == key
    return right, task


async def _block(checkpoint: Checkpoint) -> None:
    for _ in range(3):
        await checkpoint()
        time.sleep(0.005)


async def make_known(checkpoint: Checkpoint) -> None:
    """Have some tasks block where others wait for their thread, until the place is known."""
    plait: Any = importlib.import_module("plait")
    sites = plait.current_strand()._pool.blocking_sites
    for _ in range(20):
        async with plait.TaskGroup() as group:
            for _ in range(4):
                group.create_task(_block(checkpoint))
        if any(sites.is_known(point) for point in sites._scores):
            return
    raise RuntimeError("plait learned nothing of a place that blocks")


async def measure(peer: str, tasks: int, n: int, known: bool) -> dict[str, Any]:
    spawn, checkpoint, clock = common.spawner(peer), checkpoint_of(peer), Clock()
    if known:
        await make_known(checkpoint)
    checked = [spawn(_marks_hold(checkpoint, key)) for key in range(tasks)]
    correct = [await task == (True, task) for task in checked]
    gate = importlib.import_module(peer if peer == "plait" else "asyncio").Event()
    handles = [spawn(turns(checkpoint, n, clock, gate)) for _ in range(tasks)]
    for _ in range(3):
        await asyncio.sleep(0.02)  # every task is at the gate then
    cpu = time.process_time()
    gate.set()
    for handle in handles:
        await handle
    cpu = time.process_time() - cpu
    return {"correct": all(correct), "elapsed": clock.elapsed_ns(), "cpu_s": cpu}


def main() -> None:
    parser = common.parser(__doc__, (*common.LOOPS, *LADDER))
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--n", type=int, default=1000, help="switches of each task")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--known", action="store_true", help="plait knows a place that blocks")
    args = parser.parse_args()
    if args.peer in LADDER:
        found: dict[str, Any] = {"elapsed": measure_bare(args.peer, args.tasks, args.n)}
    else:
        found = common.run(args.peer, measure, args.peer, args.tasks, args.n, args.known, workers=args.workers)
    common.emit({**found, "ns": found["elapsed"] / (args.tasks * args.n)})


if __name__ == "__main__":
    main()
