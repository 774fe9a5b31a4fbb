"""What asyncio has for one loop is refused to a second strand, at its first use, with what to do instead."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from unit_helpers import LONG, in_plait, other_strand, value

import plait


async def guarded(lock: Any) -> None:
    async with lock:
        pass


async def through(queue: asyncio.Queue[int]) -> None:
    await queue.put(1)
    await queue.get()
    queue.task_done()
    await queue.join()


async def waited(event: asyncio.Event) -> None:
    event.set()
    await event.wait()
    event.clear()


async def notified(condition: asyncio.Condition) -> None:
    async with condition:
        condition.notify_all()


class Mine(asyncio.Queue[int]):
    """As libraries make theirs."""

    def _put(self, item: int) -> None:
        super()._put(item)  # type: ignore[misc]


USES: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
    (asyncio.Lock, guarded),
    (asyncio.Semaphore, guarded),
    (asyncio.BoundedSemaphore, guarded),
    (asyncio.Condition, notified),
    (asyncio.Event, waited),
    (lambda: asyncio.Barrier(1), guarded),
    (asyncio.Queue, through),
    (asyncio.LifoQueue, through),
    (asyncio.PriorityQueue, through),
    (Mine, through),
]
names = [use.__name__ + str(number) for number, (_, use) in enumerate(USES)]


@pytest.mark.parametrize(("make", "use"), USES, ids=names)
def test_a_second_strand_is_refused_though_nobody_has_to_wait(make: Any, use: Any) -> None:
    async def main() -> None:
        made_before = make()
        for strand in (plait.Strand(), plait.Strand(pinned=True)):
            for thing in (make(), made_before):
                await use(thing)
                await use(thing)
                with pytest.raises(plait.WrongStrand, match=r"belongs to .*(strand\.call|plait\.Event)"):
                    await strand.call(use(thing))
                await use(thing)
                assert plait.strand_of(thing) is plait.current_strand()
        thing = make()
        await plait.spawn(use(thing))  # and one whose first strand is gone
        for _ in range(2):
            with pytest.raises(plait.WrongStrand):
                await plait.spawn(use(thing))

    plait.run(main(), workers=2)


@pytest.mark.parametrize(("make", "use"), USES, ids=names)
def test_made_here_and_used_there(make: Any, use: Any) -> None:
    async def main() -> None:
        await plait.spawn(value(1))
        thing, strand = make(), plait.Strand()
        await strand.call(use(thing))
        await strand.call(use(thing))
        with pytest.raises(plait.WrongStrand):
            await use(thing)

    plait.run(main())


@pytest.mark.parametrize(("make", "use"), USES, ids=names)
def test_the_next_run_and_asyncios_may_have_it(make: Any, use: Any) -> None:
    async def main() -> None:
        await plait.spawn(value(1))
        await use(thing)

    thing = make()
    plait.run(main())
    plait.run(main())
    asyncio.run(use(thing))
    plait.run(plait_spawned(use, thing))


async def plait_spawned(use: Any, thing: Any) -> None:
    await plait.spawn(use(thing))


@in_plait(workers=2)
async def test_asyncios_own_loops_in_other_threads_are_left_alone() -> None:
    async def contended() -> int:
        lock, queue, count = asyncio.Lock(), asyncio.Queue[int](1), 0

        async def work() -> None:
            nonlocal count
            async with lock:
                await asyncio.sleep(0)
                count += 1
            await queue.put(1)

        tasks = [asyncio.create_task(work()) for _ in range(10)]
        for _ in tasks:
            await queue.get()
        return count

    assert await plait.to_thread(asyncio.run, contended()) == 10


@in_plait
async def test_what_the_main_strand_held_before_there_was_a_second() -> None:
    lock, queue = asyncio.Lock(), asyncio.Queue[int]()
    queue.put_nowait(1)
    await lock.acquire()
    for use in (guarded(lock), through(queue)):
        with pytest.raises(plait.WrongStrand, match="belongs to <ThreadStrand|belongs to <EventLoop"):
            await plait.spawn(use)
    lock.release()


def test_a_program_of_one_strand_runs_asyncios_methods() -> None:
    code = (
        "import asyncio, plait\n"
        "before = asyncio.Lock.acquire, asyncio.Queue.put_nowait\n"
        "async def main(): await guarded()\n"
        "async def guarded():\n"
        "    async with asyncio.Lock(): await asyncio.sleep(0)\n"
        "plait.run(main())\n"
        "assert before == (asyncio.Lock.acquire, asyncio.Queue.put_nowait)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@in_plait
async def test_set_from_another_strand_is_refused() -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(event.wait())
    await plait.sleep(0)
    with pytest.raises(plait.WrongStrand, match=r"plait\.Event"):
        await other_strand(event.set)
    event.set()
    await waiting


@in_plait
async def test_a_timer_of_another_strand_is_refused() -> None:
    """The first that a client session does, which others share with a spawned task."""
    main = asyncio.get_running_loop()
    for at in (main.call_later, main.call_at):
        with pytest.raises(plait.WrongStrand, match=r"strand\.call"):
            await other_strand(lambda: at(1, print))  # type: ignore[arg-type]


@in_plait
async def test_strand_of() -> None:
    here, strand = plait.current_strand(), plait.Strand()
    task = strand.spawn(value(1))
    assert plait.strand_of(strand) is plait.strand_of(task) is strand
    for mine in (asyncio.get_running_loop().create_future(), asyncio.create_task(value(1)), here):
        assert plait.strand_of(mine) is here
    for nobodys in (3, asyncio.Lock()):
        with pytest.raises(TypeError, match="belongs to no strand"):
            plait.strand_of(nobodys)
    with pytest.raises(TypeError, match="belongs to no strand"):
        plait.strand_of(threading.Lock())


@in_plait(workers=2)
async def test_a_chat_writes_where_each_writer_lives() -> None:
    writers: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        while line := await reader.readline():
            for each in list(writers):
                await plait.strand_of(each).call(each.write, line)
        writers.discard(writer)
        writer.close()

    async with await plait.start_server(handle, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        clients = [await asyncio.open_connection(*address) for _ in range(3)]
        while len(writers) < 3:
            await asyncio.sleep(0.001)
        clients[0][1].write(b"hello\n")
        for reader, _ in clients:
            assert await asyncio.wait_for(reader.readline(), LONG) == b"hello\n"
        for _, writer in clients:
            writer.close()
