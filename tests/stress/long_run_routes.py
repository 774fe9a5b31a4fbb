"""What the long run sends, and how it is kept account of. (long_run.py has the program.)

A *route* is one sender, one receiver, and a `Ledger` of the numbers that went out and came in. Both ends are tasks that may be
cancelled at any moment; long_run.py starts them again. A message ends in one of two ways, and never in both:

    received    at the other end, once.
    accounted   its sender was cancelled, or gave up, and knows that it did not and will not arrive: if it does after all,
                that is an error. (`Threads` alone can't know: there the one who takes the number out of the ledger decides.)

Ownership: a route's counts are written by its sender's or its receiver's strand, each its own. `Ledger.open` is taken from by
both, by `dict.pop`, which one of them wins.
"""

from __future__ import annotations

import asyncio
import collections
import random
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import plait

if TYPE_CHECKING:
    from long_run import Run

Home = plait.Strand | None  # where a task runs; None is a strand of its own

WINDOW = 200  # messages under way on one route


class Ledger:
    """The numbers of one route."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent = self.accounted = 0  # the sender's
        self.received = self.late = 0  # the receiver's
        self.open: dict[int, float] = {}
        self.withdrawn: set[int] = set()
        self.wrong: list[str] = []

    def send(self) -> int:
        """A new number, on its way from now on."""
        self.sent += 1
        self.open[self.sent] = time.monotonic()
        return self.sent

    def receive(self, number: int) -> None:
        """It is here."""
        if self.open.pop(number, None) is not None:
            self.received += 1
        elif number in self.withdrawn:
            self.withdrawn.discard(number)
            self.late += 1
        else:
            self.wrong.append(f"{self.name}: message {number} came twice, or after its sender knew that it would not")

    def account(self, number: int, may_come: bool = False) -> None:
        """The sender was cancelled: unless the number is in by now it won't come, or will be passed over if it may_come."""
        if may_come:
            self.withdrawn.add(number)  # first: who finds it gone looks here
        if self.open.pop(number, None) is not None:
            self.accounted += 1
        else:
            self.withdrawn.discard(number)

    def oldest(self) -> tuple[int, float] | None:
        """The message that is longest under way, and since when; from any strand."""
        for number in list(self.open):
            since = self.open.get(number)
            if since is not None:
                return number, since
        return None


async def pause(dice: random.Random, count: collections.Counter[str]) -> None:
    """Between two bursts; some of these block, or compute, in the middle of a conversation."""
    kind = dice.randrange(400)
    if kind == 0:
        count["blocks"] += 1
        time.sleep(dice.uniform(0.002, 0.030))
    elif kind == 1:
        count["hogs"] += 1
        compute(dice.uniform(0.001, 0.020))
    elif kind < 40:
        await plait.checkpoint()
    elif kind < 120:
        await asyncio.sleep(dice.random() * 0.03)
    else:
        await plait.sleep(dice.random() * 0.03)


def compute(seconds: float) -> None:
    """Hold the processor, and the GIL where there is one."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


class Route:
    """What is common: a ledger, dice for each end (one user at a time), and where the two ends run."""

    def __init__(self, run: Run, name: str, sender_home: Home, receiver_home: Home) -> None:
        self.run, self.ledger = run, Ledger(name)
        self.dice, self.far_dice = run.dice(f"{name} sender"), run.dice(f"{name} receiver")
        self.count, self.far_count = run.counter(), run.counter()
        self.sender_home, self.receiver_home = sender_home, receiver_home

    async def send(self) -> None:
        """Send until the run is over, or cancelled."""
        while not self.run.stopping:
            await self.burst()
            await pause(self.dice, self.count)
            while len(self.ledger.open) > WINDOW:
                await plait.sleep(0.002)

    async def burst(self) -> None:
        """A few messages."""
        raise NotImplementedError

    async def receive(self) -> None:
        """Receive until cancelled; routes whose burst does that as well just wait."""
        await plait.sleep(self.far_dice.uniform(1, 5))

    def close(self) -> None:
        """Nothing more will come."""


class Mailbox(Route):
    """A deque and a plait.Event; now and then the sender waits for an answer, by an event that serves once."""

    def __init__(self, run: Run, name: str, sender_home: Home, receiver_home: Home) -> None:
        super().__init__(run, name, sender_home, receiver_home)
        self.box: deque[tuple[int, plait.Event | None]] = deque()
        self.news = plait.Event()

    async def burst(self) -> None:
        for _ in range(self.dice.randrange(1, 10)):
            self.put(self.ledger.send(), None)  # (a cancel comes at an await only: what was sent is in the box)
        answer = plait.Event()
        self.put(self.ledger.send(), answer)
        if self.dice.randrange(3) == 0:
            await answer.wait()

    def put(self, number: int, answer: plait.Event | None) -> None:
        self.box.append((number, answer))
        self.news.set()

    async def receive(self) -> None:
        while True:
            await self.news.wait()
            self.news.clear()
            while self.box:
                number, answer = self.box.popleft()
                self.ledger.receive(number)
                if answer is not None:
                    answer.set()
            await pause(self.far_dice, self.far_count)


class Litter:
    """A garbage cycle that carries a message, and delivers it when it is collected, wherever that happens."""

    def __init__(self, box: Garbage, number: int) -> None:
        self.me, self.box, self.number = self, box, number

    def __del__(self) -> None:
        self.box.put(self.number, None)


class Garbage(Mailbox):
    """Messages that the garbage collector's finalisers deliver."""

    async def burst(self) -> None:
        for _ in range(self.dice.randrange(1, 5)):
            self.count["cycles"] += 1
            Litter(self, self.ledger.send())


class Queue(Route):
    """An asyncio.Queue in the receiver's strand, filled by `strand.call`.

    `call` waits for the call that it cancels: so the sender knows whether the number is in the queue.
    """

    def __init__(self, run: Run, name: str, sender_home: Home, receiver_home: plait.Strand) -> None:
        super().__init__(run, name, sender_home, receiver_home)
        self.home = receiver_home
        self.queue: asyncio.Queue[int] = asyncio.Queue(maxsize=20)
        self.placed: set[int] = set()

    async def burst(self) -> None:
        number = self.ledger.send()
        try:
            await self.home.call(self.put(number))
        finally:
            if number not in self.placed:
                self.ledger.account(number)
            self.placed.discard(number)

    async def put(self, number: int) -> None:
        await self.queue.put(number)
        self.placed.add(number)

    async def receive(self) -> None:
        while True:
            self.ledger.receive(await self.queue.get())
            if self.far_dice.randrange(10) == 0:
                await pause(self.far_dice, self.far_count)


class Children(Route):
    """A task for each message: spawned, in the same strand, in another strand, in a pinned one that ends afterwards."""

    async def burst(self) -> None:
        kind = self.dice.randrange(60)
        if kind == 0:
            await self.in_pinned()
        elif kind < 20:
            await self.deliver(lambda coro: plait.spawn(coro))
        elif kind < 30:
            await self.deliver(lambda coro: asyncio.create_task(coro))
        elif kind < 40 and self.receiver_home is not None:
            await self.deliver(self.receiver_home.call)
        elif kind < 50:
            await self.in_group()
        else:
            await self.in_time()

    async def deliver(self, start: Any) -> None:
        """Cancelled, it ends after the child: so it knows whether the child had the number."""
        number = self.ledger.send()
        try:
            await start(self.child(number, self.dice.random() * 0.003))
        finally:
            self.ledger.account(number)

    async def child(self, number: int, seconds: float) -> None:
        if seconds > 0.001:
            await plait.sleep(seconds)
        self.arrived(number)

    def arrived(self, number: int) -> None:
        self.ledger.receive(number)

    async def in_pinned(self) -> None:
        self.count["pinned strands"] += 1
        strand = plait.Strand(pinned=True)
        try:
            for _ in range(3):
                await self.deliver(strand.call)
        finally:
            await strand.aclose()

    async def in_group(self) -> None:
        numbers = [self.ledger.send() for _ in range(self.dice.randrange(1, 8))]
        boxes: dict[int, None] = {}
        try:
            async with plait.TaskGroup() as group:
                for number in numbers:
                    group.create_task(self.parallel_child(number, boxes, self.dice.random() * 0.003))
        finally:  # the children are done, and ran in parallel: what they have is counted here
            for number in numbers:
                (self.ledger.receive if number in boxes else self.ledger.account)(number)

    async def parallel_child(self, number: int, boxes: dict[int, None], seconds: float) -> None:
        await plait.sleep(seconds)
        boxes[number] = None

    async def in_time(self) -> None:
        try:
            async with asyncio.timeout(self.dice.random() * 0.004):
                await self.deliver(lambda coro: plait.spawn(coro))
        except TimeoutError:
            self.count["timeouts"] += 1


class Threads(Route):
    """By way of to_thread, and from that thread by call_soon_threadsafe. A call that was cancelled may go on: it comes late."""

    async def burst(self) -> None:
        number, home = self.ledger.send(), self.run.receiving
        self.count["to_thread"] += 1
        try:
            await plait.to_thread(self.carry, home, number, self.dice.random() ** 4 * 0.1)
        except asyncio.CancelledError:
            self.ledger.account(number, may_come=True)
            raise

    def carry(self, home: plait.Strand, number: int, seconds: float) -> None:
        time.sleep(seconds)
        home.call_soon_threadsafe(self.ledger.receive, number)


class Timers(Route):
    """Messages that timers deliver; a third of the timers are cancelled, and must not fire after that."""

    def __init__(self, run: Run, name: str, sender_home: Home, receiver_home: Home) -> None:
        super().__init__(run, name, sender_home, receiver_home)
        self.handles: dict[int, asyncio.TimerHandle] = {}

    async def send(self) -> None:
        try:
            await super().send()
        finally:
            self.cancel(list(self.handles))

    async def burst(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self.dice.randrange(1, 20)):
            number = self.ledger.send()
            self.count["timers"] += 1
            self.handles[number] = loop.call_later(self.dice.random() * 0.05, self.fire, number)
        for _ in range(self.dice.randrange(20)):  # what most timers are: for something that comes in time
            self.count["timers"] += 1
            self.count["timers cancelled"] += 1
            loop.call_later(self.dice.uniform(10, 3600), self.fire, 0).cancel()
        await pause(self.dice, self.count)
        self.cancel(self.dice.sample(list(self.handles), len(self.handles) // 3))

    def fire(self, number: int) -> None:
        del self.handles[number]
        self.ledger.receive(number)

    def cancel(self, numbers: list[int]) -> None:
        for number in numbers:
            self.count["timers cancelled"] += 1
            self.handles.pop(number).cancel()
            self.ledger.account(number)


class Tcp(Route):
    """A client of the echo server: each burst is a connection; a message is received when its echo is."""

    async def burst(self) -> None:
        self.count["connections"] += 1
        reader, writer = await asyncio.open_connection("127.0.0.1", self.run.port)
        out: deque[int] = deque()
        try:
            for _ in range(self.dice.randrange(1, 30)):
                await self.converse(reader, writer, out)
                await pause(self.dice, self.count)
            writer.write_eof()
            if rest := await reader.read():
                self.ledger.wrong.append(f"{self.ledger.name}: {rest!r} after the last echo")
        except asyncio.CancelledError:
            for number in out:  # nobody will read what comes of these
                self.ledger.account(number)
            raise
        finally:
            writer.close()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, out: deque[int]) -> None:
        for _ in range(self.dice.randrange(1, 12)):
            out.append(self.ledger.send())
            writer.write(b"%d %s\n" % (out[-1], b"x" * self.dice.choice((0, 10, 100, 5000))))
        await writer.drain()
        while out:
            number = int((await reader.readline()).partition(b" ")[0])
            if number != out.popleft():
                self.ledger.wrong.append(f"{self.ledger.name}: echo {number} is out of order")
            self.ledger.receive(number)


class Pair(Route):
    """A Unix socket pair: add_writer where it is full, add_reader at the other end, taken away and added again."""

    def __init__(self, run: Run, name: str, sender_home: Home, receiver_home: Home) -> None:
        super().__init__(run, name, sender_home, receiver_home)
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # a message goes whole, or not at all
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    async def burst(self) -> None:
        for _ in range(self.dice.randrange(1, 20)):
            number = self.ledger.send()
            try:
                while not self.write(number):
                    self.count["full"] += 1
                    await self.writable()
            except asyncio.CancelledError:  # in `writable`: it did not go
                self.ledger.account(number)
                raise

    def write(self, number: int) -> bool:
        try:
            return self.near.send(b"%d" % number) > 0
        except BlockingIOError:
            return False

    async def writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self.near, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self.near)

    async def receive(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            loop.add_reader(self.far, self.readable)
            try:
                await plait.sleep(self.far_dice.random() * 0.2)
            finally:
                loop.remove_reader(self.far)
            await pause(self.far_dice, self.far_count)

    def readable(self) -> None:
        for _ in range(self.far_dice.randrange(1, 30)):  # what it leaves has to be told again
            try:
                self.ledger.receive(int(self.far.recv(100)))
            except BlockingIOError:
                return

    def close(self) -> None:
        self.near.close()
        self.far.close()
