"""WaitQueue and Claim under a small channel: nothing that is granted is lost, in order, promptly, at a constant price."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections import Counter
from threading import Lock
from typing import Any

import pytest
from unit_helpers import LONG, eventually, everywhere, in_plait

import plait
from plait._rt.task.claim import Claim
from plait._rt.task.join import Join
from plait._rt.task.task import task_of
from plait._rt.task.wait_queue import GrantWait, WaitQueue
from plait._rt.task.waiter import PENDING


class Closed(Exception):
    """The toy's ChannelClosed."""


class Toy:
    """An unbounded channel: who has the turn serves, and looks again if somebody asked meanwhile."""

    def __init__(self) -> None:
        self.queue, self.turn, self.closed = WaitQueue(), Lock(), False
        self.items: list[Any] = []
        self.returned: list[Any] = []
        self.asked: list[None] = []

    def send(self, item: Any) -> None:
        self.items.append(item)
        self.serve()

    def close(self) -> None:
        self.closed = True
        self.queue.wake_all()

    def receive(self) -> Any:
        return Receive(self)

    def receive_blocking(self, timeout: float) -> Any:
        waiter, thread = Receive(self), ThreadSleeper()
        waiter._state, waiter._sleeper = PENDING, thread  # type: ignore[assignment]
        waiter._enrol()
        if not thread.posted.wait(timeout):
            waiter._abandon()
            raise TimeoutError
        waiter._run()
        return waiter._collect()

    def serve(self) -> None:
        self.asked.append(None)
        while self.asked and self.turn.acquire(False):
            try:
                self.asked.clear()
                while self.returned:
                    self.items.insert(0, self.returned.pop())
                while self.items and self.queue.grant(self.items[0]):
                    del self.items[0]
            finally:
                self.turn.release()


class Receive(GrantWait):
    __slots__ = ("_toy",)

    def __init__(self, toy: Toy) -> None:
        super().__init__(toy.queue)
        self._toy = toy

    def _look(self) -> None:
        self._toy.serve()
        if self._toy.closed:
            self._fire()

    def _give_back(self, value: Any) -> None:
        self._toy.returned.append(value)
        self._toy.serve()

    def _woken(self) -> Any:
        raise Closed


class ThreadSleeper:
    """What a waiter wakes when a plain thread waits, which is its home then."""

    def __init__(self) -> None:
        self.posted, self._strand = threading.Event(), self

    def _post(self, _waiter: Any) -> None:
        self.posted.set()

    def _wake(self, _waiter: Any) -> None:
        pass


async def received(toy: Toy) -> Any:
    return await toy.receive()


async def waiting(toy: Toy, count: int) -> None:
    await eventually(lambda: len(toy.queue._waiting) == count)


@everywhere
async def test_first_come_first_served() -> None:
    toy = Toy()
    tasks = []
    for number in range(5):
        tasks.append(plait.spawn(received(toy)))
        await waiting(toy, number + 1)
    for number in range(5):
        toy.send(number)
    assert await asyncio.gather(*tasks) == [0, 1, 2, 3, 4]
    assert not toy.queue._claims
    assert not toy.queue._waiting


@everywhere
async def test_what_was_granted_to_a_cancelled_task_comes_back_at_once() -> None:
    """Not only when the strand comes to the task's step: a lock would be nobody's as long."""
    toy = Toy()
    task = asyncio.create_task(received(toy))
    await asyncio.sleep(0)
    toy.send(1)
    assert toy.items == []
    task.cancel()
    assert toy.items == [1]
    following = asyncio.create_task(received(toy))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await following == 1


@everywhere
async def test_it_goes_to_the_next_who_waits() -> None:
    toy = Toy()
    first, second = asyncio.create_task(received(toy)), plait.spawn(received(toy))
    await waiting(toy, 2)
    if toy.queue._waiting[0]._sleeper is first:
        toy.send(1)
        first.cancel()
    else:
        first.cancel()
        toy.send(1)
    assert await asyncio.wait_for(second, LONG) == 1
    await asyncio.wait([first])
    assert first.cancelled()


@in_plait
async def test_a_c_task_receives_and_gives_back() -> None:
    toy, loop, c_task = Toy(), asyncio.get_running_loop(), asyncio.Task
    task: Any = c_task(received(toy), loop=loop)
    await asyncio.sleep(0)
    toy.send(1)
    assert await task == 1
    task = c_task(received(toy), loop=loop)
    await asyncio.sleep(0)
    toy.send(2)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert toy.items == [2]


@in_plait
async def test_a_waiter_of_a_loop_that_is_closed_gets_nothing() -> None:
    toy, loops = Toy(), []

    async def waits() -> None:
        loops.append(asyncio.get_running_loop())
        await toy.receive()

    def elsewhere() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(waits())
        loop.run_until_complete(asyncio.sleep(0.001))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loops.append(task)
        loop.close()

    await plait.to_thread(elsewhere)
    task = plait.spawn(received(toy))
    await waiting(toy, 2)
    toy.send(1)
    assert await asyncio.wait_for(task, LONG) == 1


@everywhere
async def test_a_claim_gets_one_and_leaves_no_trace() -> None:
    toys, event = [Toy(), Toy()], plait.Event()

    async def first() -> Any:
        branches = [toys[0].receive(), toys[1].receive(), event.wait()]
        winner, value = await Claim(*branches)
        return branches.index(winner), value

    for number in range(2):
        task = asyncio.create_task(first())
        await asyncio.sleep(0)
        toys[number].send("item")
        toys[1 - number].send("stays")
        assert await task == (number, "item")
        assert toys[1 - number].items == ["stays"]
        toys[1 - number].items.clear()
    task = asyncio.create_task(first())
    await asyncio.sleep(0)
    event.set()
    assert await task == (2, True)
    toys[0].send("stays")
    assert await asyncio.create_task(first()) in ((0, "stays"), (2, True))
    assert not any(toy.queue._claims for toy in toys)


@everywhere
async def test_a_claim_over_tasks_and_sleeps_cancels_none_of_them() -> None:
    event, toy = plait.Event(), Toy()
    patient = plait.spawn(event.wait())
    for _ in range(3):
        winner, _ = await Claim(Join(patient), plait.sleep(0.001), toy.receive())  # type: ignore[arg-type]
        assert winner.what == "plait.sleep"
    assert not patient.done()
    waits = asyncio.create_task(Claim(Join(patient), plait.sleep(LONG), toy.receive()))  # type: ignore[arg-type]
    await eventually(lambda: len(toy.queue._waiting) == 4)
    assert patient._asyncio_awaited_by == {waits}
    assert task_of(toy.queue._waiting[-1]) is waits
    event.set()
    winner, _ = await waits
    assert isinstance(winner, Join)
    assert await patient is True
    toy.send(1)
    assert toy.items == [1]


@everywhere
async def test_a_cancelled_claim_gives_back() -> None:
    toy = Toy()

    async def first() -> Any:
        return await Claim(toy.receive(), plait.sleep(LONG))  # type: ignore[arg-type]

    task = asyncio.create_task(first())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    toy.send(1)
    assert toy.items == [1]
    task = asyncio.create_task(first())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert task.done() or toy.items == []
    task.cancel()
    await asyncio.wait([task])
    assert [*toy.items, *(value for _, value in ([] if task.cancelled() else [task.result()]))] == [1]


@in_plait
async def test_abandoned_waits_do_not_pile_up_and_let_go() -> None:
    class Thing:
        pass

    async def holds() -> None:
        thing = Thing()
        kept.append(weakref.ref(thing))
        await toy.receive()

    toy, kept = Toy(), list[Any]()
    patient = asyncio.create_task(received(toy))
    for _ in range(300):
        task = asyncio.create_task(holds())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    del task
    gc.collect()
    assert len(toy.queue._waiting) < 100
    assert not any(each() for each in kept)
    toy.send(1)
    assert await patient == 1


@in_plait
@pytest.mark.parametrize("kind", ["event", "toy"])
async def test_an_abandoned_wait_costs_the_same_however_many_wait(kind: str) -> None:
    """Two of three give up: eight times as many take about eight times as long, not sixty-four."""

    async def seconds(count: int) -> float:
        toy, event = Toy(), plait.Event()
        tasks = [asyncio.create_task(received(toy) if kind == "toy" else event.wait()) for _ in range(count)]
        await asyncio.sleep(0)
        patient = tasks[::3]
        begin = time.perf_counter()
        for number, task in enumerate(tasks):
            if number % 3:
                task.cancel()
        taken = time.perf_counter() - begin
        event.set()
        for number in range(len(patient)):
            toy.send(number)
        if kind == "toy":
            assert [await task for task in patient] == list(range(len(patient)))
        await asyncio.wait(tasks)
        return taken

    for _ in range(5):
        few, many = min([await seconds(2_000) for _ in range(3)]), await seconds(16_000)
        if many < 24 * few:
            return
    pytest.fail(f"{few:.3f} s for 2,000, {many:.3f} s for 16,000")


def test_a_forks_child_purges_too(program: Any) -> None:
    """Though a thread of its parent's was purging when it forked."""
    code, out, err = program(
        "import asyncio, os, plait\n"
        "from plait._rt.task import wait_queue\n"
        "async def main():\n"
        "    await plait.spawn(plait.sleep(0.001))\n"
        "    wait_queue._purging.acquire()\n"
        "    if not os.fork():\n"
        "        print(wait_queue._purging.acquire(False), flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "plait.run(main())\n",
        "-W", "ignore",
    ).end()  # fmt: skip
    assert (code, out) == (0, "True\n"), err


@in_plait(workers=3)
@pytest.mark.parametrize("seed", range(4))
async def test_conservation(seed: int) -> None:
    """Each item that is sent, from strands and threads, is received once, whoever gives up meanwhile; each sender's in order by
    the one that receives all of a channel."""
    rng = random.Random(seed)
    toys = [Toy() for _ in range(3)]
    got: list[Any] = []
    count, senders = 300, 4
    total = count * senders

    async def sends(name: int) -> None:
        for number in range(count):
            toys[number % 3].send((name, number))
            if not number % 7:
                await plait.checkpoint()

    def sends_in_thread(name: int) -> None:
        for number in range(count):
            toys[number % 3].send((name, number))

    async def receives(toy: Toy) -> None:
        while True:
            try:
                got.append(await toy.receive())
            except Closed:
                return

    async def selects() -> None:
        while True:
            try:
                _, item = await Claim(*(toy.receive() for toy in toys))
                got.append(item)
            except Closed:
                return

    async def gives_up(receiver: Any, mind: random.Random) -> None:
        """Waits in a task of its own, which it cancels now and then, at any moment."""
        done = False
        while not done:
            task = (plait.spawn if mind.random() < 0.5 else asyncio.create_task)(receiver())  # type: ignore[operator]
            await plait.sleep(mind.random() * 0.003)
            if len(got) + sum(len(toy.items) for toy in toys) >= total and all(toy.closed for toy in toys):
                await task
                done = True
            else:
                task.cancel()
                await asyncio.wait([task])
                done = not task.cancelled()

    def receives_in_thread(toy: Toy, mind: random.Random) -> None:
        while True:
            try:
                got.append(toy.receive_blocking(mind.random() * 0.002))
            except TimeoutError:
                pass
            except Closed:
                return

    minds = [random.Random(rng.random()) for _ in range(8)]
    threads = [threading.Thread(target=receives_in_thread, args=(toys[number], minds[number])) for number in range(2)]
    threads += [threading.Thread(target=sends_in_thread, args=(2 + number,)) for number in range(2)]
    receivers = [plait.spawn(gives_up(lambda toy=toy: receives(toy), mind)) for toy, mind in zip(toys, minds[2:5], strict=True)]  # type: ignore[misc]
    receivers += [plait.spawn(gives_up(selects, mind)) for mind in minds[5:]]
    for thread in threads:
        thread.start()
    sending = [plait.spawn(sends(name)) for name in range(2)]
    try:
        await asyncio.gather(*sending)
        await eventually(lambda: len(got) == total, LONG)
    finally:
        for toy in toys:
            toy.close()
    await asyncio.wait_for(asyncio.gather(*receivers), LONG)
    for thread in threads:
        await plait.to_thread(thread.join)
    assert set(Counter(got).values()) == {1}
    assert len(got) == total
    assert not any(toy.items or toy.returned or toy.queue._claims for toy in toys)
