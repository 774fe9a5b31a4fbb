"""plait.Strand: an explicit serial executor, in the pool or on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import os
import socket
import sqlite3
import threading
import time
import weakref
from typing import Any

import pytest
from unit_helpers import (
    LONG,
    collected,
    eventually,
    eventually_in_thread,
    everywhere,
    forever,
    hear,
    in_plait,
    open_fds,
    other_strand,
    plait_threads,
    raises,
    value,
)

import plait
from plait._rt.strand.pinned import PinnedStrand

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
pinned_or_not = pytest.mark.parametrize("pinned", [False, True])


@pinned_or_not
def test_one_thing_at_a_time(pinned: bool) -> None:
    """Nothing else of the strand runs between two awaits."""

    async def main() -> None:
        inside, count = 0, 0

        def exclusive() -> None:
            nonlocal inside, count
            inside += 1
            before = count
            assert inside == 1
            for _ in range(20):
                pass
            count = before + 1
            inside -= 1

        async def work() -> None:
            for number in range(50):
                exclusive()
                if number % 10 == 0:
                    asyncio.get_running_loop().call_soon(exclusive)
                await plait.checkpoint()

        strand = plait.Strand(pinned=pinned)
        tasks = [strand.spawn(work()) for _ in range(10)]
        tasks += [await other_strand(lambda: strand.spawn(work())) for _ in range(10)]
        await asyncio.gather(*tasks)
        await strand.call(value(None))
        assert count == 20 * 55

    plait.run(main(), workers=4)


@pinned_or_not
def test_first_come_first_served(pinned: bool) -> None:
    async def main() -> None:
        order: list[int] = []
        strand = plait.Strand(pinned=pinned)

        async def note(number: int) -> None:
            order.append(number)

        tasks = []
        for number in range(0, 60, 3):
            tasks.append(strand.spawn(note(number)))
            strand.call_soon_threadsafe(order.append, number + 1)
            tasks.append(strand.spawn(note(number + 2)))
        await asyncio.gather(*tasks)
        assert order == list(range(60))

    plait.run(main(), workers=2)


@everywhere
async def test_call() -> None:
    async def look() -> tuple[Any, str]:
        await plait.checkpoint()
        seen = variable.get()
        variable.set("inside")
        return plait.current_strand(), seen

    variable.set("caller's")
    for strand in (plait.Strand(), plait.Strand(pinned=True), plait.current_strand()):
        assert await strand.call(look()) == (strand, "caller's")
        assert variable.get() == "caller's"
        with pytest.raises(ValueError, match="mine"):
            await strand.call(raises(ValueError("mine")))


@everywhere
async def test_call_of_a_function() -> None:
    def look(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        seen = variable.get()
        variable.set("inside")
        return plait.current_strand(), seen, args, kwargs

    variable.set("caller's")
    for strand in (plait.Strand(), plait.Strand(pinned=True), plait.current_strand()):
        assert await strand.call(look, 1, two=2) == (strand, "caller's", (1,), {"two": 2})
        assert variable.get() == "caller's"
        with pytest.raises(ZeroDivisionError):
            await strand.call(divmod, 1, 0)


@everywhere
async def test_what_can_be_neither_called_nor_spawned_is_refused_with_what_to_do() -> None:
    class Awaitable:
        def __await__(self) -> Any:
            yield

    async def generator() -> Any:
        yield

    async def nothing() -> None:
        pass

    strand, future, task = plait.Strand(), asyncio.get_running_loop().create_future(), plait.spawn(value(1))
    wrong: list[tuple[Any, str]] = [
        (nothing, r"call it: nothing\(...\), not nothing"),
        (functools.partial(nothing), "call it"),
        (future, "a future belongs to its strand"),
        (task, "await it, in any strand"),
        (Awaitable(), "an awaitable: pass a coroutine that awaits it"),
        (generator(), "async for"),
        (42, "a coroutine was expected, got 42"),
    ]
    for what, why in wrong:
        with pytest.raises(TypeError, match=why):
            await strand.call(what)
        with pytest.raises(TypeError, match=why):
            strand.spawn(what)
    with pytest.raises(TypeError, match=r"strand\.call"):
        strand.spawn(len)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="returned a coroutine"):
        await strand.call(lambda: nothing())
    with pytest.raises(TypeError, match="takes no arguments"):
        await strand.call(coro := nothing(), 1)  # type: ignore[call-overload]
    coro.close()
    await task


@everywhere
async def test_cancelling_a_call_cancels_what_it_runs_and_waits() -> None:
    steps: list[str] = []
    started = plait.Event()

    async def work() -> None:
        try:
            started.set()
            await forever()
        finally:
            await plait.sleep(0.001)
            steps.append("there")

    async def call(strand: plait.Strand) -> None:
        try:
            await strand.call(work())
        finally:
            steps.append("here")

    for pinned in (False, True):
        steps.clear()
        started.clear()
        task = asyncio.create_task(call(plait.Strand(pinned=pinned)))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps == ["there", "here"]


@in_plait
async def test_spawn_in_a_strand() -> None:
    async def look() -> tuple[Any, str]:
        return plait.current_strand(), variable.get()

    strand = plait.Strand()
    context = contextvars.Context()
    context.run(variable.set, "given")
    task = strand.spawn(look(), name="named", context=context)
    assert task.get_name() == "named"
    assert task.spawn_site is not None
    assert "test_spawn_in_a_strand" in task.spawn_site
    assert await task == (strand, "given")
    with pytest.raises(TypeError, match="coroutine"):
        strand.spawn(42)  # type: ignore[arg-type]


@pinned_or_not
def test_used_from_a_plain_thread(pinned: bool) -> None:
    async def main() -> None:
        strand = plait.Strand(pinned=pinned)
        calls: list[Any] = []

        def use() -> plait.Task[Any]:
            strand.call_soon(lambda: calls.append((plait.current_strand(), asyncio.current_task())))
            return strand.spawn(value(3))

        assert await (await plait.to_thread(use)) == 3
        await eventually(lambda: calls)
        assert calls == [(strand, None)]
        future = asyncio.run_coroutine_threadsafe(value(4), strand)
        assert await plait.to_thread(future.result, LONG) == 4

    plait.run(main())


@pinned_or_not
def test_create_task_stays_in_the_strand(pinned: bool) -> None:
    async def child() -> Any:
        await asyncio.sleep(0.001)
        return plait.current_strand()

    async def parent() -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [asyncio.create_task(child()), asyncio.ensure_future(child()), group.create_task(child())]
        return [await task for task in tasks]

    async def main() -> None:
        strand = plait.Strand(pinned=pinned)
        assert await strand.call(parent()) == [strand] * 3

    plait.run(main(), workers=2)


@in_plait
async def test_current_strand_and_check() -> None:
    async def there() -> Any:
        strand.check()
        with pytest.raises(plait.WrongStrand):
            here.check()
        return plait.current_strand()

    here, strand = plait.current_strand(), plait.Strand(name="mine")
    here.check()
    assert await strand.call(there()) is strand
    with pytest.raises(plait.WrongStrand, match=r"strand\.call") as caught:
        strand.check()
    assert "mine" in str(caught.value)

    def nowhere() -> None:
        with pytest.raises(plait.WrongStrand):
            strand.check()
        with pytest.raises(RuntimeError):
            plait.current_strand()

    await plait.to_thread(nowhere)


@pinned_or_not
def test_names_show(pinned: bool) -> None:
    async def main() -> None:
        strand = plait.Strand(name="database", pinned=pinned)
        assert "database" in repr(strand)
        assert isinstance(strand, plait.Strand)
        assert isinstance(strand, asyncio.AbstractEventLoop)

    plait.run(main())


def test_strands_are_made_inside() -> None:
    with pytest.raises(RuntimeError, match=r"plait\.run"):
        plait.Strand()


@pytest.mark.parametrize("wrong", [{"size": 3}, {"pool": None}])
def test_unknown_arguments_are_refused(wrong: dict[str, Any]) -> None:
    async def main() -> None:
        with pytest.raises(TypeError):
            plait.Strand(**wrong)
        with pytest.raises(TypeError):
            plait.Strand("name")  # type: ignore[misc]

    plait.run(main())


@pinned_or_not
def test_strands_are_not_run_by_hand(pinned: bool) -> None:
    async def main() -> None:
        strand = plait.Strand(pinned=pinned)
        for misuse in (strand.run_forever, strand.close):
            with pytest.raises(RuntimeError):
                misuse()
        coro = value(1)
        with pytest.raises(RuntimeError):
            strand.run_until_complete(coro)
        coro.close()
        assert strand.is_running()
        assert not strand.is_closed()
        assert await strand.call(value(2)) == 2

    plait.run(main())


@pinned_or_not
def test_a_strand_of_a_finished_run_refuses(pinned: bool) -> None:
    async def main() -> plait.Strand:
        strand = plait.Strand(pinned=pinned)
        await strand.call(value(1))
        return strand

    strand = plait.run(main())
    assert strand.is_closed()
    coro = value(1)
    with pytest.raises(RuntimeError, match="closed"):
        strand.spawn(coro)
    coro.close()
    with pytest.raises(RuntimeError, match="closed"):
        strand.call_soon_threadsafe(print)


# How long it lives


@in_plait
async def test_a_dropped_strand_lives_until_its_last_callback() -> None:
    done = threading.Event()
    plait.Strand().call_soon_threadsafe(lambda: asyncio.get_running_loop().call_later(0.01, done.set))
    collected(lambda: None)
    await hear(done)


@in_plait
async def test_an_unused_strand_is_collected() -> None:
    strand = plait.Strand()
    await strand.call(value(1))
    reference = weakref.ref(strand)
    del strand
    for _ in range(3):  # what workers remember of their last turns
        await plait.Strand().call(value(1))
        await plait.spawn(plait.sleep(0))
    await eventually(lambda: collected(reference))


# How it is ended


@pinned_or_not
def test_aclose_cancels_its_tasks_and_waits_for_them(pinned: bool) -> None:
    steps: list[str] = []

    async def work(name: str) -> None:
        try:
            await forever()
        finally:
            await plait.sleep(0.001)
            await asyncio.create_task(note(name))  # it may still make tasks

    async def note(name: str) -> None:
        steps.append(name)

    async def parent() -> None:
        kept.append(asyncio.create_task(work("local")))
        await plait.checkpoint()

    async def late() -> None:
        try:
            await forever()
        finally:
            kept.append(asyncio.create_task(work("late")))  # which is cancelled as well
            await plait.checkpoint()

    kept: list[Any] = []

    async def main() -> None:
        async with plait.Strand(name="mine", pinned=pinned) as strand:
            kept.append(strand.spawn(work("spawned")))
            kept.append(strand.spawn(late()))
            await strand.call(parent())
            never = [strand.spawn(work("never")), *(strand.spawn(value(1)) for _ in range(3))]
        assert sorted(steps) == ["late", "local", "never", "spawned"] or sorted(steps) == ["late", "local", "spawned"]
        assert all(task.done() for task in [*kept, *never])
        assert strand.is_closed()
        assert not strand.is_running()
        assert "mine" in repr(strand)
        with pytest.raises(RuntimeError, match="'mine' .*is closed"):
            await strand.call(print)
        coro = value(1)
        with pytest.raises(RuntimeError, match="'mine' .*is closed"):
            strand.spawn(coro)
        coro.close()
        with pytest.raises(RuntimeError, match="'mine' .*is closed"):
            strand.call_soon_threadsafe(print)
        await strand.aclose()

    plait.run(main(), workers=2)


@pinned_or_not
def test_a_closing_strand_takes_nothing_from_others(pinned: bool) -> None:
    async def main() -> None:
        closing, go = plait.Event(), plait.Event()

        async def work() -> None:
            try:
                await forever()
            finally:
                closing.set()
                await go.wait()

        strand = plait.Strand(pinned=pinned)
        strand.spawn(work())
        await strand.call(int)
        closers = [plait.spawn(strand.aclose()), asyncio.create_task(strand.aclose())]
        await closing.wait()
        with pytest.raises(RuntimeError, match="is closing"):
            await strand.call(int)
        closers[1].cancel()  # the other, and the strand, don't mind
        go.set()
        await asyncio.wait_for(closers[0], LONG)
        assert strand.is_closed()

    plait.run(main(), workers=2)


@pinned_or_not
def test_aclose_closes_async_generators_and_transports(pinned: bool) -> None:
    steps: list[Any] = []

    async def generator() -> Any:
        try:
            yield 1
        finally:
            await plait.checkpoint()
            steps.append(plait.current_strand())

    async def iterate() -> None:
        iterating = kept = generator()
        assert await anext(iterating) == 1
        _, writer = await asyncio.open_connection(sock=ours)
        keep.extend([kept, writer])

    keep: list[Any] = []
    ours, theirs = socket.socketpair()

    async def main() -> None:
        strand = plait.Strand(pinned=pinned)
        await strand.call(iterate())
        await strand.aclose()
        assert steps == [strand]
        assert ours.fileno() < 0
        assert theirs.recv(1) == b""
        theirs.close()

    plait.run(main(), workers=2)


@in_plait
async def test_aclose_where_it_can_not_be() -> None:
    with pytest.raises(RuntimeError, match="main strand"):
        await plait.current_strand().aclose()
    for pinned in (False, True):
        strand = plait.Strand(pinned=pinned)
        with pytest.raises(RuntimeError, match="wait for itself"):
            await strand.call(strand.aclose())
        await strand.aclose()


@pinned_or_not
def test_strands_are_closed_while_others_use_them(pinned: bool) -> None:
    """Whatever was started is done afterwards, what was refused says so, and nobody waits for ever."""

    async def main() -> None:
        async def use(strand: plait.Strand) -> int:
            tasks = []
            while True:
                try:
                    tasks.append(strand.spawn(plait.sleep(10)))
                    if len(tasks) % 5 == 0:
                        await strand.call(int)
                    await plait.checkpoint()
                except RuntimeError as error:
                    assert "clos" in str(error)
                    break
                except asyncio.CancelledError:
                    break
            for task in tasks:
                await asyncio.wait([task])
            return len(tasks)

        for _ in range(20):
            strand = plait.Strand(pinned=pinned)
            users = [plait.spawn(use(strand)) for _ in range(3)]
            await plait.sleep(0.002)
            await asyncio.gather(strand.aclose(), plait.spawn(strand.aclose()))
            await asyncio.wait_for(asyncio.gather(*users), LONG)

    plait.run(main(), workers=3)


# Pinned: a thread of its own


@in_plait(workers=2)
async def test_pinned_stays_on_one_thread() -> None:
    async def thread() -> int:
        for wait in (plait.sleep(0.001), plait.checkpoint(), plait.spawn(value(1)), plait.to_thread(int)):
            before = threading.get_ident()
            await wait
            assert threading.get_ident() == before
        return threading.get_ident()

    strand, other = plait.Strand(name="own", pinned=True), plait.Strand(pinned=True)
    idents = {await strand.call(thread()) for _ in range(5)}
    assert len(idents) == 1
    assert threading.get_ident() not in idents
    assert await other.call(thread()) not in idents
    assert any("own" in each.name for each in plait_threads())


@in_plait
async def test_sqlite_in_a_pinned_strand() -> None:
    async def opened() -> sqlite3.Connection:
        return sqlite3.connect(":memory:")

    async def query(number: int) -> int:
        (result,) = connection.execute("select ?", (number,)).fetchone()
        return int(result)

    strand = plait.Strand(pinned=True)
    connection = await strand.call(opened())
    assert [await strand.call(query(number)) for number in range(3)] == [0, 1, 2]
    with pytest.raises(sqlite3.ProgrammingError, match="thread"):
        await query(1)

    async def close() -> None:
        connection.close()

    await strand.call(close())


@in_plait(workers=1)
async def test_a_blocked_pinned_strand_keeps_nobody_waiting() -> None:
    go = threading.Event()

    async def block() -> bool:
        return go.wait(LONG)

    task = plait.Strand(pinned=True).spawn(block())
    assert await plait.spawn(value(1)) == 1
    assert await plait.Strand(pinned=True).call(value(2)) == 2
    go.set()
    assert await task


def test_pinned_threads_end_with_the_run() -> None:
    async def main() -> None:
        for number in range(3):
            await plait.Strand(name=f"p{number}", pinned=True).call(value(number))

    plait.run(main())
    assert plait_threads() == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pinned_or_not
def test_interrupts_raised_in_a_strand_end_the_run(stop: type[BaseException], pinned: bool) -> None:
    async def main() -> None:
        plait.Strand(pinned=pinned).spawn(raises(stop("from a strand")))
        await forever()

    with pytest.raises(stop, match="from a strand"):
        plait.run(main())
    eventually_in_thread(lambda: plait_threads() == [])


def pinned_threads() -> list[threading.Thread]:
    return [thread for thread in plait_threads() if thread.name.startswith("plait-pinned")]


async def pinned_threads_end() -> None:
    """Collect now and then: a free-threaded build does little else while one collection follows another."""
    for _ in range(100):
        gc.collect()
        with contextlib.suppress(AssertionError):
            await eventually(lambda: not pinned_threads(), 0.2)
            return
    raise AssertionError(pinned_threads())


def polls() -> int:
    """How many descriptors pollers have."""
    links = []
    for fd in open_fds():
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sum("[event" in link for link in links)


@in_plait
async def test_a_dropped_pinned_strand_ends_its_thread() -> None:
    async def work() -> None:
        await asyncio.sleep(0.001)
        await asyncio.get_running_loop().run_in_executor(None, int)
        async with asyncio.timeout(10):  # a timer that is cancelled
            await plait.checkpoint()
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        theirs.send(b"x")
        assert await reader.read(1) == b"x"
        theirs.close()
        writer.close()
        await writer.wait_closed()

    await plait.Strand(pinned=True).aclose()  # the pool has its poller from now on
    before = polls()
    for number in range(20):
        strand = plait.Strand(name=f"p{number}", pinned=True)
        await strand.call(work())
        del strand
    await pinned_threads_end()
    await eventually(lambda: polls() == before)  # the monitor's own may have become more


@in_plait
async def test_a_dropped_pinned_strand_does_what_it_has_to_do_first() -> None:
    done = [threading.Event() for _ in range(5)]
    event = plait.Event()

    async def wait() -> None:
        await event.wait()
        done[4].set()

    def read() -> None:
        asyncio.get_running_loop().remove_reader(ours)
        done[3].set()

    ours, theirs = socket.socketpair()
    plait.Strand(pinned=True).call_soon_threadsafe(done[0].set)
    plait.Strand(pinned=True).call_soon_threadsafe(lambda: asyncio.get_running_loop().call_later(0.01, done[1].set))
    plait.Strand(pinned=True).spawn(value(1)).add_done_callback(lambda _: done[2].set())
    plait.Strand(pinned=True).call_soon_threadsafe(lambda: asyncio.get_running_loop().add_reader(ours, read))
    plait.Strand(pinned=True).spawn(wait())
    await plait.sleep(0.02)
    collected(lambda: None)
    theirs.send(b"x")
    event.set()
    for each in done:
        await hear(each)
    await pinned_threads_end()
    ours.close()
    theirs.close()


@in_plait(workers=2)
async def test_pinned_strands_are_dropped_while_threads_post_to_them() -> None:
    """None of what is posted is lost, though the poster lets go of the strand at once and the collector runs."""
    ran: list[int] = []

    def post(start: int) -> None:
        strands = [plait_strands.pop() for _ in range(10)]
        for number in range(200):
            strands[number % 10].call_soon_threadsafe(ran.append, start + number)
            if number % 50 == 0:
                time.sleep(0.001)  # they fall asleep
        del strands

    plait_strands = [plait.Strand(pinned=True) for _ in range(30)]
    await asyncio.gather(*(plait.to_thread(post, start) for start in (0, 1000, 2000)))
    await eventually(lambda: len(ran) == 600)
    await pinned_threads_end()


@in_plait
async def test_what_a_finaliser_posts_to_a_dropped_pinned_strand_is_run() -> None:
    class Last:
        def __init__(self, strand: plait.Strand) -> None:
            self.strand = strand
            strand.last = self  # type: ignore[attr-defined]  # a cycle

        def __del__(self) -> None:
            self.strand.call_soon_threadsafe(done.set)

    done = threading.Event()
    strand = plait.Strand(pinned=True)
    await strand.call(Last, strand)
    del strand
    await eventually(lambda: collected(lambda: None if done.is_set() else 1))
    await pinned_threads_end()


def test_a_pinned_strand_is_not_the_main_strand_of_the_thread_that_made_it() -> None:
    async def main() -> None:
        async def make() -> plait.Strand:
            return plait.Strand(pinned=True)

        reference = weakref.ref(await plait.spawn(make()))
        await eventually(lambda: collected(reference))

    plait.run(main())


@in_plait
async def test_a_post_whose_ring_is_late_does_not_hide_that_the_thread_of_a_pinned_strand_sleeps() -> None:
    """Somebody else has woken the thread, and it sleeps again, before who posts comes to wake it (N2)."""
    ran: list[int] = []
    strand: Any = plait.Strand(pinned=True)

    class Held(dict[None, Any]):
        def __setitem__(self, key: None, value: Any) -> None:
            super().__setitem__(key, value)
            if not ran:
                strand._poller.wake()
                eventually_in_thread(lambda: ran == [1] and strand._parked)

    await eventually(lambda: strand._parked)
    strand.carrier.held = Held()
    strand.call_soon_threadsafe(ran.append, 1)
    await asyncio.sleep(0.05)
    strand.call_soon_threadsafe(ran.append, 2)
    await eventually(lambda: ran == [1, 2])
    await strand.aclose()


@in_plait
async def test_none_is_started_while_the_runtime_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is stuck through the end of the run makes a pinned strand just when all have been told to end."""
    pool: Any = plait.current_strand()._pool  # type: ignore[attr-defined]
    pool.start()
    set_up = PinnedStrand.set_up

    def closes(strand: PinnedStrand, pool: Any, name: str | None = None) -> Any:
        result = set_up(strand, pool, name)
        pool.closed = True
        return result

    descriptors = open_fds()
    monkeypatch.setattr(PinnedStrand, "set_up", closes)
    with pytest.raises(RuntimeError, match="closed"):
        plait.Strand(pinned=True)
    pool.closed = False
    assert not pool.seats
    assert open_fds() == descriptors
