"""A step does the same wherever it is made: in `Task._run`, or in a worker's copies of it, `start_task` and the fast path of
`_run_batch`. Each scenario is played all ways, by a coroutine of the interpreter's own and by an object that passes for one."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import traceback
import types
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, NamedTuple

import pytest
from unit_helpers import LONG

import plait

Arrive = Callable[[], Awaitable[None]]
variable: ContextVar[str] = ContextVar("variable", default="none")


@pytest.fixture(autouse=True)
def no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would start a second worker while the first is held up."""
    monkeypatch.setenv("PLAIT_MONITOR", "0")


class Foreign(Coroutine):  # type: ignore[type-arg]
    """A coroutine that no `async def` made, as Cython's aren't."""

    def __init__(self, coro: Any) -> None:
        self.send, self.throw, self.close = coro.send, coro.throw, coro.close  # type: ignore[method-assign]

    def send(self, value: Any) -> Any: ...
    def throw(self, *error: Any) -> Any: ...
    def __await__(self) -> Any: ...


# The ways. Each has the coroutine come to the step that counts, and says who makes that.


async def at_once() -> None:
    """In the first step."""


async def yielded() -> None:
    await asyncio.sleep(0)


async def behind_a_callback() -> None:
    asyncio.get_running_loop().call_soon(lambda: None)
    await asyncio.sleep(0)


async def woken_by_a_waiter() -> None:
    event = plait.Event()
    asyncio.get_running_loop().call_soon(event.set)
    await event.wait()


async def woken_by_a_future() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await future


async def in_main(start: Callable[[], Any]) -> Any:
    return start()


async def in_main_debugged(start: Callable[[], Any]) -> Any:
    asyncio.get_running_loop().set_debug(True)
    return start()


async def in_a_worker(start: Callable[[], Any]) -> Any:
    async def inside() -> Any:
        return start()

    return await plait.spawn(inside())


async def in_a_pooled_strand(start: Callable[[], Any]) -> Any:
    return await plait.Strand().call(start)


async def in_a_pinned_strand(start: Callable[[], Any]) -> Any:
    return await plait.Strand(pinned=True).call(start)


class Way(NamedTuple):
    """Where the task is made, how, what comes before the step that counts, and who makes that, for each kind of coroutine."""

    where: Callable[[Callable[[], Any]], Awaitable[Any]]
    make: Callable[[Any], Any]
    arrive: Arrive
    maker: str
    maker_for_foreign: str
    suspect: bool = False


RUN, START, FAST = "Task._run", "Worker.start_task", "Worker._run_batch"


def own(coro: Any) -> Any:
    """Spawned in the strand that calls."""
    return plait.current_strand().spawn(coro)


WAYS = {
    "local": Way(in_main, asyncio.create_task, at_once, RUN, RUN),
    "local, later": Way(in_main, asyncio.create_task, yielded, RUN, RUN),
    "local, woken": Way(in_main, asyncio.create_task, woken_by_a_waiter, RUN, RUN),
    "local, debugged": Way(in_main_debugged, asyncio.create_task, at_once, RUN, RUN),
    "local, pooled": Way(in_a_pooled_strand, asyncio.create_task, at_once, RUN, RUN),
    "local, pooled, later": Way(in_a_pooled_strand, asyncio.create_task, yielded, FAST, RUN),
    "local, pinned": Way(in_a_pinned_strand, asyncio.create_task, at_once, RUN, RUN),
    "in its strand": Way(in_a_pooled_strand, own, at_once, RUN, RUN),
    "in its strand, later": Way(in_a_pooled_strand, own, yielded, FAST, RUN),
    "spawned": Way(in_a_worker, plait.spawn, at_once, START, START),
    "spawned, suspect": Way(in_a_worker, plait.spawn, at_once, START, START, True),
    "spawned, later": Way(in_a_worker, plait.spawn, yielded, FAST, RUN),
    "spawned, later, suspect": Way(in_a_worker, plait.spawn, yielded, RUN, RUN, True),
    "spawned, behind a callback": Way(in_a_worker, plait.spawn, behind_a_callback, RUN, RUN),
    "spawned, woken by a waiter": Way(in_a_worker, plait.spawn, woken_by_a_waiter, RUN, RUN),
    "spawned, woken by a future": Way(in_a_worker, plait.spawn, woken_by_a_future, RUN, RUN),
}
FIRST = [name for name, way in WAYS.items() if way.arrive is at_once]

# The scenarios: what the step does


@types.coroutine
def give(what: Any) -> Any:
    """Yield what, as it is."""
    return (yield what)


class Mine(BaseException):
    """No Exception, and none that stops the program."""


class Faulty:
    """A future that can't be waited for."""

    _asyncio_future_blocking = True

    def get_loop(self) -> Any:
        return asyncio.get_running_loop()

    def add_done_callback(self, *_args: Any, **_options: Any) -> None:
        raise LookupError("no callbacks here")

    def __await__(self) -> Any:
        yield self


def me() -> Any:
    return asyncio.current_task()


def cancel_from_elsewhere() -> None:
    """Have another thread cancel the task that calls, and wait until it did."""
    thread = threading.Thread(target=me().cancel, args=("elsewhere",))
    thread.start()
    thread.join(LONG)


def foreign_future() -> Any:
    loop = asyncio.new_event_loop()
    loop.close()
    return loop.create_future()


def done_soon(result: Any) -> Any:
    """A future of this strand, which gets result, or raises it, after the step, unless it was cancelled."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    end = future.set_exception if isinstance(result, Exception) else future.set_result
    loop.call_soon(lambda: future.done() or end(result))
    return future


def set_soon() -> Any:
    event = plait.Event()
    asyncio.get_running_loop().call_soon(event.set)
    return event.wait()


async def wait_for_nothing() -> None:
    await plait.Event().wait()


def raiser(error: type[BaseException], *args: Any) -> Callable[[], Any]:
    def act() -> None:
        raise error(*args)

    return act


async def finish_another() -> str:
    """End another task of the strand by this step, and look what it was."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    async def other() -> str:
        return f"other {await future}, {asyncio.current_task() is not mine}"

    mine = me()
    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    future.set_result(7)
    return await task


async def look_at_callbacks() -> Any:
    """What a callback sees that runs after the step."""
    seen: list[Any] = []
    asyncio.get_running_loop().call_soon(lambda: seen.append((asyncio.current_task(), variable.get())))
    variable.set("of the step")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return seen, variable.get()


async def garbage(what: Callable[[], Any]) -> Any:
    try:
        return await give(what())
    except Exception as error:
        return type(error).__name__, plain(str(error))


ENDS: dict[str, Callable[[], Any]] = {
    "returns": lambda: 7,
    "returns a tuple": lambda: (1, 2),
    "returns an exception": lambda: ValueError("as a value"),
    "raises": raiser(ValueError, "raised"),
    "raises CancelledError": raiser(asyncio.CancelledError, "raised"),
    "raises StopIteration": raiser(StopIteration, 5),
    "raises StopAsyncIteration": raiser(StopAsyncIteration, 5),
    "raises GeneratorExit": raiser(GeneratorExit, 5),
    "raises a BaseException": raiser(Mine, "mine"),
    "raises SystemExit": raiser(SystemExit, 3),
    "raises KeyboardInterrupt": raiser(KeyboardInterrupt, "now"),
    "yields nothing": lambda: asyncio.sleep(0, "slept"),
    "yields a waiter": set_soon,
    "yields a future": lambda: done_soon(5),
    "yields a future that raises": lambda: done_soon(OSError("from the future")),
    "yields another loop's future": lambda: garbage(lambda: next(iter(foreign_future().__await__()))),
    "yields a number": lambda: garbage(lambda: 42),
    "yields a generator": lambda: garbage(lambda: (each for each in "")),
    "yields a future without await": lambda: garbage(asyncio.get_running_loop().create_future),
    "yields a faulty future": lambda: garbage(Faulty),
    "awaits itself": lambda: garbage(lambda: next(iter(me().__await__()))),
    "awaits a task": lambda: asyncio.create_task(asyncio.sleep(0, "of the task")),
    "awaits a spawned task": lambda: plait.spawn(asyncio.sleep(0, "of the task")),
    "finishes another": finish_another,
    "has callbacks": look_at_callbacks,
}
WHILE_CANCELLED = (
    "returns", "raises", "raises a BaseException", "yields nothing", "yields a waiter", "yields a future", "yields a number",
    "awaits a task",
)  # fmt: skip


def plain(text: str) -> str:
    """Without what differs from object to object: what stands in angle brackets, which may be nested."""
    while (shorter := re.sub(r"<[^<>]*>", "...", text)) != text:
        text = shorter
    return text


async def scenario(arrive: Arrive, log: list[Any], makers: list[str], before: Callable[[], Any], act: Callable[[], Any]) -> Any:
    """The step that counts begins where arrive returns: before() comes first, then act(), which is awaited if it can be."""
    await arrive()
    frame = sys._getframe(1)
    makers.append(frame.f_code.co_qualname)
    del frame
    log.append((me() is not None, me().get_loop() is asyncio.get_running_loop(), variable.get()))
    before()
    try:
        result = act()
        return await result if hasattr(result, "__await__") else result
    except asyncio.CancelledError as error:
        log.append(("CancelledError", error.args, me().cancelling()))
        raise


def outcome(task: Any) -> Any:
    """How it ended: the result, or the exception with the functions that its traceback names."""
    if not task.done():
        return "pending"
    try:
        return "returned", plain(repr(task.result()))
    except BaseException as error:
        names = [
            each.name
            for each in traceback.extract_tb(error.__traceback__)
            if "test_steps" in each.filename or "/plait/" in each.filename
        ]
        return type(error).__name__, error.args, names[names.index("outcome") + 1 :], task.cancelled()


def play(name: str, kind: Callable[[Any], Any], before: Callable[[], Any], act: Callable[[], Any], at_start: Any = None) -> Any:
    """Play a scenario one way; returns all that can be seen of it."""
    way = WAYS[name]
    log: list[Any] = []
    makers: list[str] = []
    said: list[str] = []
    tasks: list[Any] = []

    def start() -> None:
        variable.set("of the maker")
        tasks.append(task := way.make(kind(scenario(way.arrive, log, makers, before, act))))
        task.add_done_callback(lambda _: log.append("done"))
        if at_start is not None:
            at_start(task)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: said.append(plain(context["message"])))
        if way.suspect:
            loop._pool.blocking_sites.suspects[scenario.__code__] = None
        await way.where(start)
        while not (tasks[0].done() and "done" in log):
            await asyncio.sleep(0.0005)

    try:
        plait.run(main(), workers=1)
        ended: Any = "well"
    except BaseException as error:
        ended = type(error).__name__, error.args
    if at_start is None:
        wanted = way.maker if kind is not Foreign else way.maker_for_foreign
        assert makers == [wanted], f"{name}: the step was not made where it is to be, but in {makers}"
    seen = log if ended == "well" else [each for each in log if each != "done"]  # which a run that is stopped may not come to
    (task,) = tasks
    return outcome(task), seen, said, ended, task.cancelling(), task._waiting_for


def plainly(coro: Any) -> Any:
    return coro


KINDS = {"coroutine": plainly, "foreign": Foreign}


def check(names: Any, kind: str, *how: Any) -> None:
    """Play it in all ways, and compare."""
    found = {name: play(name, KINDS[kind], *how) for name in names}
    first = found[next(iter(found))]
    assert found == dict.fromkeys(found, first)


def nothing() -> None:
    pass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ENDS)
def test_a_step(what: str, kind: str) -> None:
    check(WAYS, kind, nothing, ENDS[what])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", WHILE_CANCELLED)
def test_a_step_that_cancels_its_own_task(what: str, kind: str) -> None:
    check(WAYS, kind, lambda: me().cancel("itself"), ENDS[what])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", WHILE_CANCELLED)
def test_a_step_that_takes_its_cancel_back(what: str, kind: str) -> None:
    check(WAYS, kind, lambda: (me().cancel("itself"), me().uncancel()), ENDS[what])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", [*WHILE_CANCELLED, "waits for nothing"])
def test_a_task_that_another_thread_cancels_in_its_step(what: str, kind: str) -> None:
    check(WAYS, kind, cancel_from_elsewhere, ENDS.get(what, wait_for_nothing))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cancels", [("one",), ("one", "two")])
def test_a_cancel_before_the_first_step(cancels: tuple[str, ...], kind: str) -> None:
    check(FIRST, kind, nothing, nothing, lambda task: [task.cancel(message) for message in cancels])


@pytest.mark.skipif(sys.version_info < (3, 13), reason="a cancel that was delivered stays due")
@pytest.mark.parametrize("kind", KINDS)
def test_a_cancel_before_the_first_step_that_is_taken_back(kind: str) -> None:
    check(FIRST, kind, nothing, lambda: 7, lambda task: (task.cancel(), task.uncancel()))
