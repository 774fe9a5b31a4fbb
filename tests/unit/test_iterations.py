"""When a strand looks at timers and descriptors: in each iteration, as asyncio; in the pool by time as well as by count."""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from unit_helpers import LONG, eventually, everywhere, in_plait

import plait
from plait._rt.ground.clock import Clock
from plait._rt.ground.gil_yield import GIL_YIELD
from plait._rt.ground.here import here
from plait._rt.strand.thread_strand import ThreadStrand


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


@everywhere
async def test_a_timer_comes_between_short_computations() -> None:
    """A task that yields after each 2 ms made timers 61 of its steps late."""
    loop = asyncio.get_running_loop()
    steps = 0
    late = []
    for _ in range(5):
        fired = loop.create_future()
        due = loop.time() + 0.005
        loop.call_at(due, fired.set_result, None)
        after = 0
        while not fired.done():
            after += loop.time() > due
            spin(0.002)
            steps += 1
            await asyncio.sleep(0)
        late.append(after)
    assert min(late) <= 2, f"steps made after the timer was due: {late}"


def test_the_only_timer_comes_between_short_computations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker of a task that did nothing but yield before went on by turns alone, unless the monitor had it look again."""
    monkeypatch.setenv("PLAIT_MONITOR", "0")

    async def yields() -> int:
        loop = asyncio.get_running_loop()
        for _ in range(100):
            await asyncio.sleep(0)
        fired: list[None] = []
        due = loop.time() + 0.005
        loop.call_at(due, fired.append, None)
        after = 0
        while not fired:
            after += loop.time() > due
            spin(0.002)
            await asyncio.sleep(0)
        return after

    async def main() -> None:
        late = [await plait.spawn(yields()) for _ in range(5)]
        assert min(late) <= 2, f"steps made after the timer was due: {late}"

    plait.run(main(), workers=1)


@in_plait(workers=1)
async def test_a_finaliser_sets_a_timer_between_two_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the worker runs no strand but another run item."""
    fired: list[int] = []

    class Late:
        def __init__(self) -> None:
            self.loop = asyncio.get_running_loop()

        def __del__(self) -> None:
            self.loop.call_later(0.005, fired.append, 1)

    kept: list[Late] = []
    lets_go = type(GIL_YIELD)._take_turn
    monkeypatch.setattr(type(GIL_YIELD), "_take_turn", lambda item, worker: (kept.clear(), lets_go(item, worker)))

    async def leaves_it() -> None:
        kept.append(Late())
        worker: Any = here.worker
        worker.proc.queue.append(GIL_YIELD)
        await plait.checkpoint()
        await plait.checkpoint()

    await plait.spawn(leaves_it())
    await eventually(lambda: fired == [1])


@everywhere
async def test_a_descriptor_comes_between_short_computations() -> None:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    late = []
    for _ in range(5):
        got = loop.create_future()
        loop.add_reader(ours, lambda got=got: got.done() or got.set_result(ours.recv(1)))  # type: ignore[misc]
        for _ in range(8):
            spin(0.002)
            await asyncio.sleep(0)
        theirs.send(b"x")
        after = 0
        while not got.done():
            spin(0.002)
            after += 1
            await asyncio.sleep(0)
        late.append(after)
        loop.remove_reader(ours)
    assert min(late) <= 3, f"steps made after it was ready: {late}"
    ours.close()
    theirs.close()


class Peer(asyncio.Protocol):
    """Notes what comes."""

    def __init__(self) -> None:
        self.got = b""

    def data_received(self, data: bytes) -> None:
        self.got += data


@everywhere
async def test_after_a_write_and_two_yields_the_peer_has_it() -> None:
    """What programs and tests count on where both ends are in one loop."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    other, peer = await loop.create_connection(Peer, sock=theirs)
    await asyncio.sleep(0.01)
    strand = plait.current_strand()
    polls_itself = isinstance(strand, ThreadStrand) or len(strand._pool.processors) == 1  # else another worker may poll
    for number in range(1, 50):
        transport.write(b"x")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not polls_itself:
            await eventually(lambda number=number: len(peer.got) == number)  # type: ignore[misc]
        assert len(peer.got) == number
    transport.close()
    other.close()


@everywhere
async def test_what_is_due_when_it_is_set_comes_behind_what_is_ready() -> None:
    """In asyncio's next iteration: first what is ready, then the timers that are due, the earliest first."""
    loop = asyncio.get_running_loop()
    order: list[str] = []
    loop.call_later(0, order.append, "timer")
    loop.call_at(loop.time() - 1, order.append, "earlier")
    loop.call_soon(order.append, "soon")
    cancelled = loop.call_later(-1, order.append, "cancelled")
    cancelled.cancel()
    await asyncio.sleep(0)
    loop.call_soon(order.append, "next")
    await asyncio.sleep(0)
    assert order == ["soon", "earlier", "timer", "next"]


@in_plait(workers=2)
async def test_a_timer_is_heard_while_the_step_that_follows_blocks() -> None:
    """It was found when that step had ended: a worker that holds a processor told nobody of a timer that it set."""
    parking, woken, left = plait.current_strand()._pool.parking, threading.Event(), []

    async def sleeper() -> None:
        await plait.sleep(0.001)
        woken.set()

    async def blocks() -> None:
        for _ in range(8):
            plait.spawn(plait.sleep(0))  # wakes the other worker, which then settles at the poller, for ever
        until = time.monotonic() + LONG
        while parking.sleeps_until != math.inf and time.monotonic() < until:
            await plait.checkpoint()
        task = plait.spawn(sleeper())
        await plait.checkpoint()
        await plait.checkpoint()
        left.append(woken.wait(LONG))
        await task

    for _ in range(5):
        woken.clear()
        await plait.spawn(blocks())
    assert left == [True] * 5


@pytest.mark.parametrize("where", ["main", "pooled"])
def test_threads_that_post_without_a_pause_starve_no_timer(where: str) -> None:
    """Each turn was longer than the last, and timers were looked at every 61 turns; the run didn't end."""
    told: list[str] = []
    threads: list[threading.Thread] = []

    def flood(loop: Any, until: float) -> None:
        try:
            while time.monotonic() < until:
                loop.call_soon_threadsafe(int)
        except RuntimeError as error:
            told.append(str(error))

    async def work() -> float:
        until = time.monotonic() + LONG
        for _ in range(2):
            threads.append(threading.Thread(target=flood, args=[asyncio.get_running_loop(), until]))
            threads[-1].start()
        began = time.monotonic()
        await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def main() -> float:
        return await (work() if where == "main" else plait.spawn(work()))

    assert plait.run(main(), workers=2) < LONG / 2
    for thread in threads:
        thread.join()
    assert told == ["Event loop is closed"] * 2


WRONG: dict[str, Any] = {"nan": math.nan, "text": "1", "complex": 1j, "object": object(), "huge": 10**400}


@everywhere
async def test_a_whole_number_is_a_deadline_as_it_was_given() -> None:
    """(aiohttp's time-outs are whole seconds.)"""
    loop = asyncio.get_running_loop()
    for when in (int(loop.time()) + 1000, int(loop.time()) - 1):
        timer = loop.call_at(when, int)
        assert type(timer.when()) is int and timer.when() == when
        timer.cancel()
    assert loop.call_at(10**20, int).when() == 1e20


@everywhere
async def test_a_wrong_deadline_is_refused_where_it_is_given() -> None:
    """Among the timers it would meet those of everybody: workers died with their processors."""
    loop = asyncio.get_running_loop()
    for name, wrong in WRONG.items():
        for give in (loop.call_at, loop.call_later, plait_sleep):
            with pytest.raises((TypeError, ValueError, OverflowError)):
                give(wrong, print, name)
        with pytest.raises((TypeError, ValueError, OverflowError)):
            async with asyncio.timeout(wrong):
                await asyncio.sleep(LONG)
    with pytest.raises(TypeError, match="must not be None"):
        loop.call_later(None, print)  # type: ignore[arg-type]
    fired = []
    loop.call_at(int(loop.time()), fired.append, "int")
    loop.call_later(True, fired.append, "bool")
    loop.call_later(math.inf, fired.append, "never").cancel()
    await asyncio.sleep(0.01)
    assert fired == ["int"]
    assert await asyncio.gather(*(asyncio.sleep(0.001 * number, number) for number in range(5))) == list(range(5))


def plait_sleep(delay: Any, *_: Any) -> None:
    plait.sleep(delay)


@everywhere
async def test_a_patched_clock_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`time` of a loop may be replaced, as tests do that move it. (The pool's timers go by the pool's clock, as much later.)"""
    loop = asyncio.get_running_loop()
    real, moved = loop.time, [0.0]
    monkeypatch.setattr(loop, "time", lambda: real() + moved[0])
    moved[0] = 3600.0
    loop.call_at(loop.time() + 0.001, (early := asyncio.Event()).set)
    async with asyncio.timeout(LONG):
        await early.wait()
        await asyncio.sleep(0.001)
        await plait.sleep(0.001)
    if loop is plait.current_strand()._pool.main:
        sleeper = asyncio.ensure_future(asyncio.sleep(3600))
        ours = asyncio.ensure_future(plait.sleep(3600))
        await asyncio.sleep(0)
        moved[0] += 3601.0
        for _ in range(5):
            await asyncio.sleep(0)
        assert sleeper.done()
        assert ours.done()


@in_plait
async def test_a_replaced_select_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """As virtual clocks have it: what the selector would wait for passes at once."""
    loop: Any = asyncio.get_running_loop()
    select, now = loop._selector.select, [loop.time()]
    asked = []

    def at_once(timeout: float | None = None) -> Any:
        asked.append(timeout)
        now[0] += timeout or 0.0
        return select(0)

    ours, theirs = socket.socketpair()
    with monkeypatch.context() as patch:
        patch.setattr(loop._selector, "select", at_once)
        patch.setattr(loop, "time", lambda: now[0])
        before = loop.time()
        await asyncio.sleep(3600)
        assert loop.time() - before == pytest.approx(3600)
        assert any(asked)
        got = loop.create_future()
        loop.add_reader(ours, lambda: got.done() or got.set_result(ours.recv(1)))
        theirs.send(b"x")
        assert await got == b"x"
        loop.remove_reader(ours)
    asked.clear()
    await asyncio.sleep(0.001)
    assert not asked
    ours.close()
    theirs.close()


@everywhere
async def test_the_loops_timers_can_be_looked_through() -> None:
    loop: Any = asyncio.get_running_loop()
    stays = loop.call_later(60, print, "stays")
    goes = loop.call_later(60, print, "goes")
    sleeper = asyncio.ensure_future(plait.sleep(60))  # has no handle
    await asyncio.sleep(0)
    for timer in loop._scheduled:
        if timer._args == ("goes",):
            timer.cancel()
    assert goes.cancelled()
    assert not stays.cancelled()
    assert stays in loop._scheduled
    assert all(isinstance(timer, asyncio.TimerHandle) for timer in loop._scheduled)
    stays.cancel()
    sleeper.cancel()


@in_plait
async def test_a_select_that_looks_and_then_sleeps_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As looptime has it. Another thread posts before it looks, between its look and its sleep, and while it sleeps."""
    loop: Any = asyncio.get_running_loop()
    select = loop._selector.select
    ran: list[str] = []
    told: list[int] = []

    def post(name: str) -> None:
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(ran.append, name))
        thread.start()
        thread.join()

    def look_then_sleep(timeout: float | None = None) -> Any:
        if timeout == 0 or len(told) >= 20:
            return select(timeout)
        post("before")
        found = select(0)
        told.append(len(found))
        post("between")
        return found + select(LONG)

    began = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(loop._selector, "select", look_then_sleep)
        while len(told) < 20:
            await asyncio.sleep(0.001)
    assert told == [1] * 20  # as asyncio's selector tells of its own pipe
    assert len(ran) == 40
    assert time.monotonic() - began < LONG


@everywhere
async def test_what_the_loops_selector_says() -> None:
    loop: Any = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    loop.add_reader(ours, print, "reader")
    key = loop._selector.get_key(ours)
    assert (key.fd, key.events) == (ours.fileno(), 1)
    assert key.data[0]._args == ("reader",)
    assert key.data[1] is None
    loop.add_writer(ours, int)
    assert loop._selector.get_map()[ours.fileno()].events == 3
    loop._selector.unregister(ours)
    assert ours.fileno() not in loop._selector.get_map()
    with pytest.raises(KeyError):
        loop._selector.get_key(ours)
    read = asyncio.Event()
    handle = asyncio.Handle(lambda: (ours.recv(1), read.set()), (), loop)
    loop._selector.register(ours, 1, (handle, None))
    theirs.send(b"x")
    async with asyncio.timeout(LONG):
        await read.wait()
    loop.remove_reader(ours)
    ours.close()
    theirs.close()


@everywhere
async def test_a_reader_of_a_closed_socket_is_removed_by_the_socket() -> None:
    """As asyncio's selectors, which know the file object; anyio's Unix sockets do so."""
    loop = asyncio.get_running_loop()
    for add, remove in ((loop.add_reader, loop.remove_reader), (loop.add_writer, loop.remove_writer)):
        ours, theirs = socket.socketpair()
        add(ours, print)
        ours.close()
        theirs.close()
        assert remove(ours) is True
        with pytest.raises(ValueError, match="Invalid file"):
            remove(ours)


@everywhere
async def test_a_number_that_came_back_is_not_the_closed_sockets() -> None:
    loop: Any = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    loop.add_reader(ours, print)
    number = ours.detach()
    closed = ours
    again = socket.socket(fileno=number)
    got = loop.create_future()
    loop.add_reader(number, lambda: got.done() or got.set_result(again.recv(1)))
    with pytest.raises(ValueError, match="Invalid file"):
        loop.remove_reader(closed)
    theirs.send(b"x")
    assert await got == b"x"
    loop.remove_reader(again)
    again.close()
    theirs.close()


@everywhere
async def test_a_frozen_clock_freezes_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """freezegun replaces the functions of `time`, in that module and in all that have them as a global."""
    frozen = time.monotonic()
    real: Callable[[], float] = time.monotonic
    replaced = [
        (module, name) for module in list(sys.modules.values()) for name, value in list(vars(module).items()) if value is real
    ]
    assert replaced
    for module, name in replaced:
        if module is not sys.modules[__name__]:
            monkeypatch.setattr(module, name, lambda: frozen)
    began = Clock.monotonic()
    await asyncio.sleep(0.002)
    await plait.sleep(0.002)
    await plait.spawn(plait.sleep(0.002))
    assert Clock.monotonic() - began > 0.004
    monkeypatch.undo()


def test_the_programs_wakeup_descriptor_stays(program: Any) -> None:
    """asyncio takes it when a signal handler is added; Twisted's child processes hang without it."""
    code, out, err = program(
        "import asyncio, os, signal, socket, plait\n"
        "ours, theirs = socket.socketpair()\n"
        "ours.setblocking(False), theirs.setblocking(False)\n"
        "signal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "signal.set_wakeup_fd(theirs.fileno())\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    loop.call_later(0.01, signal.raise_signal, signal.SIGUSR1)\n"
        f"    async with asyncio.timeout({LONG}):\n"
        "        print((await loop.sock_recv(ours, 1))[0] == signal.SIGUSR1)\n"
        "plait.run(main())\n"
        "print(signal.set_wakeup_fd(-1) == theirs.fileno())\n"
        "async def second():\n"
        "    signal.set_wakeup_fd(theirs.fileno())\n"
        "    await asyncio.sleep(0)\n"
        "plait.run(second())\n"
        "print(signal.set_wakeup_fd(-1) == theirs.fileno())\n"
        "async def third():\n"
        "    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)\n"
        "plait.run(third())\n"
        "print(signal.set_wakeup_fd(-1))\n"
    ).end()
    assert (code, out.split()) == (0, ["True", "True", "True", "-1"]), err


@in_plait(workers=2)
async def test_a_round_that_fails_loses_no_processor(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Whatever is raised in a worker's loop, outside of any turn, is logged, and the worker goes on."""
    pool = plait.current_strand()._pool
    await plait.spawn(plait.sleep(0))
    look, failures = type(pool.processors[0]).look, iter(range(4))

    def fails(processor: Any, glance: bool) -> bool:
        if next(failures, None) is not None:
            raise OSError("the poller is broken")
        return look(processor, glance)

    monkeypatch.setattr(type(pool.processors[0]), "look", fails)
    assert await asyncio.gather(*(plait.spawn(plait.sleep(0.001, number)) for number in range(20))) == list(range(20))
    monkeypatch.undo()
    await eventually(lambda: pool.stats().workers == 2)
    assert "the poller is broken" in caplog.text
