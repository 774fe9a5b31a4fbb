"""plait.Strand: an explicit serial executor, in the pool or on a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import threading
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
    other_strand,
    plait_threads,
    raises,
    value,
)

import plait

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
