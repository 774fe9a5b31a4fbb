"""One run of a program: the tasks, locks, queues and names that its nodes share, and what they log.

A program doesn't go by what differs from run to run (left_out.txt): a group keeps its tasks in the order in which they came, no
task waits for itself in a ring, and what stops the loop does so once.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import cached_property
from types import CoroutineType
from typing import Any

from fuzz.kinds import kind_of
from fuzz.program import Node, Program
from fuzz.trace import Trace

variable: ContextVar[int] = ContextVar("variable", default=0)
_parent: ContextVar[Any] = ContextVar("parent", default=None)

STOPS = (KeyboardInterrupt, SystemExit)
_MOST_STOPS = 3


class Boom(Exception):
    """What nodes raise."""


class Base(BaseException):
    """What few expect."""


class PythonTask(asyncio.tasks._PyTask):  # type: ignore[name-defined, misc]
    """Somebody's own task class."""


class NewerTask(asyncio.Task):  # type: ignore[type-arg]
    """Another."""


class PythonFuture(asyncio.futures._PyFuture):  # type: ignore[name-defined, misc]
    """Somebody's own future class."""


class Ordered(dict[Any, None]):
    """A set in the order of arrival."""

    def add(self, item: Any) -> None:
        """As a set's."""
        self[item] = None

    def discard(self, item: Any) -> None:
        """As a set's."""
        self.pop(item, None)


class Group(asyncio.TaskGroup):
    """One that cancels its tasks in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks = Ordered()  # type: ignore[assignment]


FACTORIES: dict[str, Any] = {
    "python": lambda loop, coro, **options: PythonTask(coro, loop=loop, **options),
    "newer": lambda loop, coro, **options: NewerTask(coro, loop=loop, **options),
}
if sys.version_info >= (3, 12):
    FACTORIES["eager"] = asyncio.eager_task_factory


class Play:
    """What the nodes of a program act on."""

    def __init__(self, program: Program, trace: Trace) -> None:
        self.factory = program.factory
        self._counts_time = program.counts_time
        self._timers = 0
        self.loop = asyncio.get_running_loop()
        self.names: dict[str, Any] = {}
        self.alive: list[Any] = []
        self.generators: list[Any] = []
        self.events = [asyncio.Event() for _ in range(3)]
        self.futures = [self.loop.create_future(), PythonFuture(loop=self.loop)]
        self.queues = [asyncio.Queue(2), asyncio.PriorityQueue(1)]
        self.lock = asyncio.Lock()
        self.semaphore = asyncio.Semaphore(2)
        self.condition = asyncio.Condition()
        self.barrier = asyncio.Barrier(2)
        self._trace = trace
        self._count = 0
        self._stops = 0
        self._interrupted = False
        self._stopped: dict[BaseException, Any] = {}  # which task raised it
        self._waits: dict[Any, list[Any]] = {}  # for whom a task may be waiting

    @cached_property
    def thread(self) -> ThreadPoolExecutor:
        """One thread, so that what was submitted last is done last."""
        return ThreadPoolExecutor(1)

    def end(self) -> None:
        """No node is run any more."""
        if "thread" in self.__dict__:
            self.thread.shutdown()

    def seconds(self, iterations: int) -> float:
        """So many iterations, by a clock that counts them, else no end. No two are the same: no order is left to chance."""
        self._timers += 1
        return iterations + 0.5 + self._timers * 1e-4 if self._counts_time else 3600.0

    # What they log

    def log(self, *what: object) -> None:
        """Say what happened."""
        self._trace.log(" ".join(map(str, what)))

    async def node(self, node: Node) -> Any:
        """Do what node says, and log how it ended."""
        me = self.me()
        if me not in self._waits:  # eager, or a coroutine that gather or wait_for made a task of
            self._waits.setdefault(_parent.get(), []).append(me)
            self._waits[me] = []
            self.alive.append(me)
        _parent.set(me)
        try:
            result = await kind_of(node.kind).act(self, *node.args)
        except GeneratorExit:
            raise
        except STOPS as error:
            self.log(f"{name_of(me)} {node.kind} raised {show(error)}")
            self._check_stop(error)
            raise
        except BaseException as error:
            self.log(f"{name_of(me)} {node.kind} raised {show(error)}, cancelling {me.cancelling()}")
            raise
        if self.me() is not me:
            self.log("another task than before")
        self.log(f"{name_of(me)} {node.kind} = {result!r}")
        return result

    async def _stop_once(self, coro: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coro
        except STOPS as error:
            self._check_stop(error)
            raise

    def _check_stop(self, error: BaseException) -> None:
        """What stopped the loop in one task must not do so in one that awaits it."""
        if self._stopped.setdefault(error, self.me()) is not self.me():
            raise Boom("what is awaited stopped the loop") from None

    # Tasks

    def me(self) -> Any:
        """The task that runs."""
        return asyncio.current_task()

    def new_name(self) -> str:
        """Names in the order in which tasks are made."""
        self._count += 1
        return f"t{self._count}"

    def spawn(self, node: Node, name: str | None = None, make: Callable[..., Any] | None = None, **options: Any) -> Any:
        """A task that does node: the loop's, or one that make makes."""
        return self.make(self.node(node), name, make, **options)

    def make(self, coro: Coroutine[Any, Any, Any], name: str | None = None, make: Any = None, **options: Any) -> Any:
        """A task of coro."""
        name, coro = name or self.new_name(), self._stop_once(coro) if isinstance(coro, CoroutineType) else coro
        if make is None:
            return self.keep(self.loop.create_task(coro, name=name))
        return self.keep(make(coro, loop=self.loop, name=name, **options))

    def keep(self, task: Any) -> Any:
        """Remember task, so that its end is told."""
        if task not in self._waits:  # else it has begun, being eager
            self.alive.append(task)
            self._waits[task] = []
        self._waits.setdefault(self.me(), []).append(task)
        return task

    def cancel(self, name: str, message: str) -> bool | None:
        """Cancel the task of this name, if there is one."""
        task = self.names.get(name)
        return None if task is None else task.cancel(message)

    async def join(self, awaited: Any) -> Any:
        """Wait for a task, if that doesn't wait for this one."""
        return await self.all([awaited], awaited) if awaited is not None else None

    async def all(self, tasks: list[Any], awaited: Any) -> Any:
        """Wait for something that stands for tasks."""
        me = self.me()
        if any(self._reaches(each, me) for each in tasks):
            return "a ring"
        waits = self._waits.setdefault(me, [])
        before = len(waits)
        waits += tasks
        try:
            return await awaited
        finally:
            del waits[before:]

    async def outcome(self, task: Any) -> str:
        """Wait until task is done, and say how it ended."""
        if self._reaches(task, self.me()):
            return "a ring"
        await asyncio.wait([task])
        return end(task)

    def _reaches(self, task: Any, wanted: Any) -> bool:
        seen: set[int] = set()
        look = [task]
        while look:
            found = look.pop()
            if found is wanted:
                return True
            if id(found) not in seen:
                seen.add(id(found))
                look += self._waits.get(found, ())
        return False

    def stopping(self, error: BaseException) -> BaseException:
        """error, or a harmless one when enough have come."""
        if self._interrupted or len(self._stopped) >= _MOST_STOPS:
            return Boom("enough stops")
        self._stopped[error] = self.me()
        return error

    def may_stop(self) -> bool:
        """May the loop be stopped? Not too often."""
        self._stops += 1
        return self._stops <= _MOST_STOPS and not self._interrupted

    def may_interrupt(self) -> bool:
        """Once, and where nothing else stops the loop."""
        if self._interrupted or self._stops or self._stopped:
            return False
        self._interrupted = True
        return True

    # What others do to them

    def stir(self) -> None:
        """Let all that wait for something shared go on."""
        for event in self.events:
            event.set()
        for future in self.futures:
            if not future.done():
                future.set_result("stirred")
        for queue in self.queues:
            try:
                queue.get_nowait() if queue.full() else queue.put_nowait(1)
            except Exception as error:  # it was shut
                self.log(f"stirred: {show(error)}")


def name_of(task: Any) -> str:
    """The name that it was given; of a future, that it is one."""
    name: str = task.get_name() if hasattr(task, "get_name") else "a future"
    return "Task" if name.startswith("Task-") or name == "None" else name  # numbered by the process; 3.13 with a task factory


def show(result: Any) -> Any:
    """An exception, as it is told; anything else as it is."""
    if isinstance(result, BaseExceptionGroup):
        return f"{type(result).__name__}[{', '.join(show(each) for each in result.exceptions)}]"
    if isinstance(result, RuntimeError):  # with the repr of something
        return type(result).__name__
    if isinstance(result, BaseException):
        cause = f" from {show(result.__cause__)}" if result.__cause__ is not None else ""
        return f"{type(result).__name__}({', '.join(map(repr, result.args))}){cause}"
    return result


def end(task: Any) -> str:
    """How a task or future ended."""
    if not task.done():
        return "pending"
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return repr(task.result()) if error is None else f"raised {show(error)}"
