"""The system gives no more threads or descriptors: what can goes on, the rest is refused, nothing hangs or is left."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from unit_helpers import LONG, Program, in_plait, open_fds, value

import plait
from plait._rt.io import blocking_pool
from plait._rt.io.blocking_pool import Lane
from plait.diagnose import capture

real_start = threading.Thread.start


class System:
    """Gives so many threads, and no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        system = self

        def start(self: threading.Thread) -> None:
            if system.left == 0:
                raise RuntimeError("can't start new thread")
            system.left -= 1
            real_start(self)

        monkeypatch.setattr(threading.Thread, "start", start)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    return System(monkeypatch)


@in_plait
async def test_no_worker(system: System) -> None:
    """The spawn is refused, and the next one tries again."""
    for _ in range(2):
        coro = value(1)
        with pytest.raises(RuntimeError, match="no thread for plait's workers.*ulimit -u"):
            plait.spawn(coro)
        coro.close()
    assert plait.stats().workers == 0
    system.left = 10
    assert await plait.spawn(value(1)) == 1


@pytest.mark.parametrize(("left", "workers", "said"), [(2, 2, "of 3 workers"), (3, 3, "monitor")])
def test_too_few_threads(system: System, caplog: pytest.LogCaptureFixture, left: int, workers: int, said: str) -> None:
    async def main() -> None:
        system.left = left
        async with plait.TaskGroup() as group:
            for _ in range(100):
                group.create_task(plait.sleep(0.001))
        assert plait.stats().workers == workers

    with caplog.at_level(logging.WARNING, "plait"):
        plait.run(main(), workers=3)
    assert any(said in message and "ulimit -u" in message for message in caplog.messages)


@in_plait
async def test_no_strand(system: System) -> None:
    """It is refused when it is made; what is posted to one is never."""
    with pytest.raises(RuntimeError, match="no thread for plait's workers"):
        plait.Strand()
    system.left = 10
    assert await plait.Strand().call(value(1)) == 1


def sockets() -> set[str]:
    """Those that the process has open. (Not all descriptors: the monitor opens some when it likes.)"""
    found = set()
    for fd in open_fds():
        try:
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:  # it was closed since
            continue
    return {name for name in found if name.startswith("socket:")}


@in_plait
async def test_no_server(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sockets are closed."""
    before = sockets()
    with pytest.raises(RuntimeError, match="no thread for plait's workers"):
        await plait.start_server(print, "127.0.0.1", 0)
    assert not sockets() - before
    system.left = 10
    await plait.spawn(value(1))
    before = sockets()

    def listen(_socket: socket.socket, _backlog: int) -> None:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    monkeypatch.setattr(socket.socket, "listen", listen)
    with pytest.raises(OSError, match="in use"):
        await plait.start_server(print, "127.0.0.1", 0)
    assert not sockets() - before


@in_plait
async def test_no_pinned_strand(system: System) -> None:
    system.left = 100
    await plait.spawn(value(1))
    system.left = 0
    with pytest.raises(RuntimeError, match="can't start new thread"):
        plait.Strand(pinned=True)
    system.left = 1
    assert await plait.Strand(pinned=True).call(value(1)) == 1


def test_the_end_needs_no_thread(system: System) -> None:
    """The executor's threads are waited for without one more."""

    async def main() -> int:
        system.left = 1
        return await plait.to_thread(threading.get_ident)

    before = threading.enumerate()  # one of these may be ending
    assert plait.run(main())
    assert not set(threading.enumerate()) - set(before)


NO_DESCRIPTORS = """
import gc, os, resource, plait

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

async def two():
    return 2

async def main():
    coro = two()
    try:
        return await plait.spawn(coro)
    finally:
        coro.close()

async def sleeps():
    await plait.sleep(0)

plait.run(sleeps())  # which imports what it needs
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass

def in_use():
    gc.collect()
    used = 0
    for fd in range(64):
        try:
            os.fstat(fd)
            used += 1
        except OSError:
            continue
    return used

for left in range(12):
    before, coro = in_use(), main()
    try:
        outcome = plait.run(coro, workers=2)
    except OSError as error:
        outcome = error.strerror
    coro.close()
    print(left, outcome, in_use() - before)
    os.close(held.pop())
"""


def test_no_descriptors(tmp_path: Path) -> None:
    """With none left, with one, with two: it is refused, nothing is left open or complains; until there are enough."""
    code, out, err = Program(tmp_path, NO_DESCRIPTORS).end()
    assert (code, err) == (0, "")
    outcomes = [line.split(" ", 1)[1] for line in out.splitlines()]
    assert len(outcomes) == 12
    refused = outcomes.count("Too many open files 0")
    assert refused >= 4  # (a poller and its bell, and two ends of a pipe)
    assert outcomes[refused:] == ["2 0"] * (12 - refused)


def test_no_descriptor_for_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread gives no answer then; the next time it does."""

    def none_left(*_args: Any) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def main() -> None:
        probe = plait.current_strand().probe  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setattr(capture, "_file", None)
            patch.setattr(capture, "_memory_file", none_left)
            assert capture._from_signal(probe) == []
        assert capture.stack_of(probe)

    plait.run(main())


# Lanes


def test_a_call_that_gets_no_thread_is_refused(system: System) -> None:
    lane = Lane("lane", 8)
    with pytest.raises(RuntimeError, match="no thread for a blocking call.*ulimit -u"):
        lane.submit(int)
    system.left = 1
    assert lane.submit(lambda: 7).result(LONG) == 7
    lane.shutdown()


def test_another_thread_comes_to_a_call_that_got_none(system: System) -> None:
    lane, let_go = Lane("lane", 8), threading.Event()
    system.left = 1
    first = lane.submit(let_go.wait, LONG)
    second = lane.submit(lambda: 7)
    assert not second.done()
    let_go.set()
    assert first.result(LONG)
    assert second.result(LONG) == 7
    lane.shutdown()


def test_calls_that_wait_for_a_thread_that_never_comes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls at a time: the second counts on the thread of the first."""
    lane, begun = Lane("lane", 8), threading.Event()
    others: list[Future[int]] = []

    def start(_thread: threading.Thread) -> None:
        if not begun.is_set():
            begun.set()
            others.append(lane.submit(int))
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="no thread for a blocking call"):
        lane.submit(int)
    with pytest.raises(RuntimeError, match="no thread for a blocking call"):
        others[0].result(LONG)


def test_a_call_does_not_count_on_a_thread_that_is_on_its_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was idle for long and has just decided to end: with one thread at most, nobody would come to the call."""
    late: list[Future[int]] = []

    class Late(Lane):
        def _next_job(self, bell: threading.Lock) -> Any:
            job = super()._next_job(bell)
            if job is None and not late:
                late.append(self.submit(lambda: 7))
            return job

    monkeypatch.setattr(blocking_pool, "IDLE_SECONDS", 0.001)
    lane = Late("lane", 1)
    lane.submit(int).result(LONG)
    for thread in list(lane._threads):
        thread.join(LONG)
    assert late[0].result(LONG) == 7
    lane.shutdown()
