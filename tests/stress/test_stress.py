"""Pound on real pools. A short form runs in `make test`; PLAIT_STRESS=1 makes it long (`make stress`).

Every run is seeded; PLAIT_SEED repeats one. What is asserted holds whatever the schedule is: nobody is woken too often or
too rarely, every task ends in a way that it may end, nothing is left behind.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from typing import Any

import pytest

import plait

LONG = bool(os.environ.get("PLAIT_STRESS"))
SEED = int(os.environ.get("PLAIT_SEED", time.time_ns() % 1_000_000))
WORKERS = [1, 2, 4]


def scaled(short: int, long: int) -> int:
    return long if LONG else short


@pytest.fixture(autouse=True)
def _tell_seed(capsys: pytest.CaptureFixture[str]) -> None:
    print(f"PLAIT_SEED={SEED}")


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("plait")}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("workers", WORKERS)
def test_tasks_wake_each_other(workers: int) -> None:
    """Rings of tasks pass tokens: each waits for its event and sets its neighbour's, in turn through events, joins,
    callbacks and call_soon_threadsafe. A lost wake-up hangs, a doubled one shows in the counts."""
    rings, members, rounds = scaled(50, 1000), 100, scaled(3, 10)

    async def member(mine: plait.Event, next_one: plait.Event, how: int, counts: list[int], index: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(rounds):
            await mine.wait()
            mine.clear()
            counts[index] += 1
            if how == 0:
                next_one.set()
            elif how == 1:
                loop.call_soon_threadsafe(next_one.set)
            elif how == 2:
                await plait.spawn(_set(next_one))
            else:
                asyncio.create_task(_set(next_one)).add_done_callback(lambda _: None)

    async def main() -> None:
        dice = random.Random(SEED)
        counts = [[0] * members for _ in range(rings)]
        async with plait.TaskGroup() as group:
            for ring in counts:
                events = [plait.Event() for _ in range(members)]
                for index in range(members):
                    following = events[(index + 1) % members]
                    group.create_task(member(events[index], following, dice.randrange(4), ring, index))
                events[0].set()
        assert all(count == rounds for ring in counts for count in ring)

    plait.run(main(), workers=workers)


async def _set(event: plait.Event) -> None:
    event.set()


@pytest.mark.parametrize("workers", WORKERS)
def test_random_cancels(workers: int) -> None:
    """Tasks in the middle of all kinds of waits are cancelled from several strands and threads at once, while what they wait
    for happens. Each ends, returned or cancelled, and runs its clean-up once."""
    count = scaled(400, 20_000)

    async def victim(dice: random.Random, event: plait.Event, cleaned: list[int]) -> str:
        try:
            for _ in range(dice.randrange(1, 5)):
                kind = dice.randrange(7)
                if kind == 0:
                    await plait.sleep(dice.random() * 0.002)
                elif kind == 1:
                    await asyncio.sleep(dice.random() * 0.002)
                elif kind == 2:
                    await event.wait()
                elif kind == 3:
                    await plait.spawn(event.wait())
                elif kind == 4:
                    await plait.checkpoint()
                elif kind == 5:
                    await plait.to_thread(time.sleep, 0)
                else:
                    async with asyncio.timeout(dice.random() * 0.002):
                        await event.wait()
        except TimeoutError:
            return "timed out"
        finally:
            cleaned.append(1)
        return "done"

    async def main() -> None:
        dice = random.Random(SEED)
        for _ in range(count // 100):
            event, cleaned = plait.Event(), list[int]()
            tasks = [plait.spawn(victim(random.Random(dice.random()), event, cleaned)) for _ in range(100)]
            doomed = dice.sample(tasks, 60)

            async def cancel(some: list[Any]) -> None:
                for task in some:
                    task.cancel()
                    await plait.checkpoint()

            cancellers = [plait.spawn(cancel(doomed[start::3])) for start in range(3)]
            thread = threading.Thread(target=lambda doomed=doomed: [task.cancel() for task in doomed[:20]])
            thread.start()
            await plait.sleep(dice.random() * 0.003)
            event.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*cancellers)
            thread.join()
            fine = ("done", "timed out")
            assert not [each for each in results if each not in fine and not isinstance(each, asyncio.CancelledError)]
            started = sum(not isinstance(r, asyncio.CancelledError) for r in results)
            assert started <= len(cleaned) <= 100  # one that was cancelled before its first step has nothing to clean up
            assert not event._unset.get(None)

    plait.run(main(), workers=workers)


@pytest.mark.parametrize("workers", WORKERS)
def test_random_blockers_and_hogs(workers: int) -> None:
    """Others go on, count right and end, while tasks block and compute, and processors change hands."""
    seconds = scaled(2, 20)

    async def blocker(dice: random.Random) -> None:
        time.sleep(dice.random() * 0.03)

    async def hog(dice: random.Random) -> None:
        until = time.monotonic() + dice.random() * 0.03
        while time.monotonic() < until:
            pass

    async def worker(stop: plait.Event, total: list[int]) -> int:
        done = 0
        while not stop.is_set():
            await plait.sleep(0.001)
            done += 1
        total.append(done)
        return done

    async def main() -> None:
        dice, stop, total = random.Random(SEED), plait.Event(), list[int]()
        workers_ = [plait.spawn(worker(stop, total)) for _ in range(20)]
        trouble = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            make = dice.choice([blocker, hog])
            trouble += [plait.spawn(make(random.Random(dice.random()))) for _ in range(dice.randrange(8))]
            await asyncio.sleep(dice.random() * 0.05)
        stop.set()
        results = await asyncio.gather(*workers_)
        await asyncio.gather(*trouble)
        assert sum(results) == sum(total)
        assert min(results) > 0
        stats = plait.stats()
        assert stats.handoffs > 0
        assert stats.workers + stats.spares + stats.handed_off <= stats.max_threads

    plait.run(main(), workers=workers)


@pytest.mark.parametrize("workers", WORKERS)
def test_sockets(workers: int) -> None:
    """Echo over loopback between strands: every line comes back, in order, and every connection ends."""
    clients, lines = scaled(50, 500), scaled(20, 100)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    async def client(port: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(lines):
            writer.write(b"%d\n" % number)
            assert await reader.readline() == b"%d\n" % number
        writer.close()
        await writer.wait_closed()
        return lines

    async def main() -> None:
        server = await plait.start_server(serve, "127.0.0.1", 0, backlog=1000)
        port = server.sockets[0].getsockname()[1]
        async with server:
            answers = await asyncio.gather(*(plait.spawn(client(port)) for _ in range(clients)))
        assert sum(answers) == clients * lines

    plait.run(main(), workers=workers)


def test_finalisers_set_events() -> None:
    """The garbage collector runs finalisers anywhere, also in the middle of the scheduler: they may set events."""
    rounds = scaled(300, 20_000)

    class Cycle:
        def __init__(self, event: plait.Event) -> None:
            self.me, self.event = self, event

        def __del__(self) -> None:
            self.event.set()

    async def one() -> None:
        event = plait.Event()
        Cycle(event)
        while not event.is_set():
            await plait.sleep(0)

    async def collect(stop: plait.Event) -> None:
        while not stop.is_set():
            gc.collect(0)
            await plait.sleep(0.001)
            gc.collect()

    async def main() -> None:
        stop = plait.Event()
        collector = plait.spawn(collect(stop))
        async with plait.TaskGroup() as group:
            for _ in range(rounds):
                group.create_task(one())
        stop.set()
        await collector

    threshold = gc.get_threshold()
    gc.set_threshold(50)
    try:
        plait.run(main(), workers=2)
    finally:
        gc.set_threshold(*threshold)


def test_start_and_stop_leaves_nothing() -> None:
    """Not a thread, not a descriptor."""

    async def main() -> None:
        pinned = plait.Strand(pinned=True)
        await asyncio.gather(plait.spawn(plait.sleep(0)), pinned.call(plait.sleep(0)), plait.to_thread(int))

    plait.run(main(), workers=2)
    before = descriptors()
    for _ in range(scaled(20, 200)):
        plait.run(main(), workers=2)
    for _ in range(1000):  # threads of to_thread end by themselves once the pool is shut
        if not threads():
            break
        time.sleep(0.01)
    assert threads() == set()
    assert descriptors() <= before
