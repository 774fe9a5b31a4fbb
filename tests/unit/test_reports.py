"""Planted causes: each report names the line, says why it stalls and what to write instead. And innocents, which have none.

Code that blocks ends when its report has come, so no test depends on a clock. Where the machine is so busy that a step gets no
core for half a second, "host" is the right verdict: planted computations are tried again then, and innocents may have it.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import gc
import hashlib
import importlib
import inspect
import json
import logging
import os
import queue
import re
import select
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from unit_helpers import GIL_BUILD, LONG, Program, eventually, eventually_in_thread, in_strand, tls_contexts

import plait
from plait.diagnose import report
from plait.diagnose.report import Reporter

KEEPS_GIL = "gil" if GIL_BUILD else "cpu"
COMPUTE = "run_in_executor(processes" if GIL_BUILD else "plait.to_thread"


class Plant:
    """What a planted cause needs: an `on_stall` that lets the blocked code go on, and an end for all that it opens."""

    def __init__(self, folder: Path, until: str) -> None:
        self.folder, self.until = folder, until
        self.found: list[plait.Stall] = []
        self.came = threading.Event()
        self.after = ExitStack()
        self._release: Callable[[], object] = lambda: None

    def __call__(self, stall: plait.Stall) -> None:
        self.found.append(stall)
        if not self.came.is_set() and (stall.state == self.until or stall.seconds >= 0.5):
            self.came.set()
            self._release()

    def release(self, release: Callable[[], object]) -> None:
        """What ends the blocked call."""
        self._release = release

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets."""
        ours, theirs = socket.socketpair()
        self.after.callback(ours.close)
        self.after.callback(theirs.close)
        return ours, theirs

    def pipe(self) -> tuple[int, Any]:
        """A pipe: its reading end, and its writing one as a file."""
        reading, writing = os.pipe()
        file = os.fdopen(writing, "wb", buffering=0)
        self.after.callback(os.close, reading)
        self.after.callback(file.close)
        return reading, file

    def thread(self, work: Callable[[], object], name: str) -> threading.Thread:
        """A thread beside."""
        thread = threading.Thread(target=work, name=name)
        thread.start()
        self.after.callback(thread.join, LONG)
        return thread


Step = Callable[[], Coroutine[Any, Any, Any]]
CAUSES: list[Any] = []


def planted(
    kind: str, call: str | None, instead: str, where: str = "spawned", until: str = "began", detail: str = "", only: bool = True
) -> Any:
    """Register a cause: a function that sets it up and returns the step with the line marked HERE. No call is named where
    call is "", any where it is None."""

    def register(cause: Callable[[Plant], Step]) -> Any:
        if only:
            for place in where.split():
                CAUSES.append(pytest.param(cause, kind, call, instead, place, until, detail, id=f"{cause.__name__}-{place}"))
        return cause

    return register


def marked_line(function: Any) -> int:
    """The line that is marked in a function."""
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if "# HERE" in line)


# ---- system calls


@planted("blocked", "time.sleep", "await plait.sleep(seconds)", "main spawned pinned", "goes on", "clock_nanosleep")
def sleep(plant: Plant) -> Step:
    async def step() -> None:
        while not plant.came.is_set():
            time.sleep(1)  # HERE

    return step


@planted("blocked", "ours.recv", "loop.sock_recv(sock, n)", "main spawned", detail="recvfrom")
def socket_recv(plant: Plant) -> Step:
    ours, theirs = plant.pair()
    plant.release(lambda: theirs.send(b"x"))

    async def step() -> None:
        ours.recv(1)  # HERE

    return step


@planted("blocked", "listener.accept", "plait.start_server", detail="accept4")
def socket_accept(plant: Plant) -> Step:
    listener = plant.after.enter_context(socket.create_server(("127.0.0.1", 0)))
    client = plant.after.enter_context(socket.socket())
    plant.release(lambda: client.connect(listener.getsockname()))

    async def step() -> None:
        listener.accept()[0].close()  # HERE

    return step


@planted("blocked", "sock.connect", "asyncio.open_connection", "pinned", detail="connect")
def socket_connect(plant: Plant) -> Step:
    """To a Unix socket whose backlog is full."""
    address = str(plant.folder / "socket")
    listener = plant.after.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(address)
    listener.listen(0)
    first, sock = (plant.after.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
    first.connect(address)
    plant.release(lambda: listener.accept()[0].close())

    async def step() -> None:
        sock.connect(address)  # HERE

    return step


@planted("blocked", "subprocess.run", "asyncio.create_subprocess_exec")
def subprocess_run(plant: Plant) -> Step:
    reading, writing = plant.pipe()
    plant.release(writing.close)

    async def step() -> None:
        subprocess.run(["cat"], stdin=reading)  # HERE

    return step


@planted("blocked", "os.waitpid", "await process.wait()", detail="wait4")
def waitpid(plant: Plant) -> Step:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    plant.release(child.stdin.close)
    plant.after.callback(child.wait)

    async def step() -> None:
        os.waitpid(child.pid, 0)  # HERE

    return step


@planted("blocked", "os.read", "loop.connect_read_pipe", "main", detail="read")
def read_pipe(plant: Plant) -> Step:
    reading, writing = plant.pipe()
    plant.release(lambda: writing.write(b"x"))

    async def step() -> None:
        os.read(reading, 1)  # HERE

    return step


@planted("blocked", "select.select", "loop.add_reader")
def select_select(plant: Plant) -> Step:
    reading, writing = plant.pipe()
    plant.release(lambda: writing.write(b"x"))

    async def step() -> None:
        select.select([reading], [], [])  # HERE

    return step


@planted("blocked", "input", "plait.to_thread(input", "main", detail="read")
def stdin(plant: Plant) -> Step:
    reading, writing = plant.pipe()
    usual, sys.stdin = sys.stdin, os.fdopen(reading, closefd=False)
    plant.after.callback(setattr, sys, "stdin", usual)
    plant.after.callback(sys.stdin.close)
    plant.release(lambda: writing.write(b"yes\n"))

    async def step() -> None:
        input()  # HERE

    return step


@planted("blocked", "open", "plait.to_thread(function, path)", detail="openat")
def open_fifo(plant: Plant) -> Step:
    path = plant.folder / "fifo"
    os.mkfifo(path)
    plant.release(lambda: open(path, "wb").close())

    async def step() -> None:
        open(path, "rb").close()  # HERE

    return step


@planted("blocked", "fcntl.flock", "plait.to_thread(fcntl.flock", detail="flock")
def flock(plant: Plant) -> Step:
    ours, theirs = (plant.after.enter_context((plant.folder / "lock").open("w")) for _ in range(2))
    fcntl.flock(theirs, fcntl.LOCK_EX)
    plant.release(lambda: fcntl.flock(theirs, fcntl.LOCK_UN))

    async def step() -> None:
        fcntl.flock(ours, fcntl.LOCK_EX)  # HERE

    return step


@planted("blocked", "db.execute", "plait.Strand(pinned=True)", "pinned")
def sqlite_busy(plant: Plant) -> Step:
    path = plant.folder / "data"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    plant.release(other.rollback)
    plant.after.callback(other.close)

    async def step() -> None:
        db = sqlite3.connect(path, timeout=LONG)
        db.execute("BEGIN IMMEDIATE")  # HERE
        db.close()

    return step


@planted("blocked", "opener.open", "httpx.AsyncClient", detail="recvfrom")
def urllib_open(plant: Plant) -> Step:
    server = plant.after.enter_context(socket.create_server(("127.0.0.1", 0)))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"http://127.0.0.1:{server.getsockname()[1]}/"

    def answer() -> None:
        with server.accept()[0] as connection:
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")

    plant.release(answer)

    async def step() -> None:
        opener.open(url).close()  # HERE

    return step


# ---- locks


@planted("lock", "lock.acquire", "asyncio.Lock", "main spawned pinned")
def lock_acquire(plant: Plant) -> Step:
    lock = threading.Lock()
    lock.acquire()
    plant.release(lock.release)

    async def step() -> None:
        lock.acquire()  # HERE

    return step


@planted("lock", "with lock", "plait.Strand", "main", "goes on")
def with_lock(plant: Plant) -> Step:
    lock = threading.Lock()
    lock.acquire()
    plant.release(lock.release)

    async def step() -> None:
        with lock:  # HERE
            pass

    return step


@planted("lock", "with lock", "plait.Strand", detail="held by thread the holder" if GIL_BUILD else "")
def rlock_held(plant: Plant) -> Step:
    lock, held = threading.RLock(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            plant.came.wait(LONG)

    plant.thread(hold, "the holder")
    held.wait(LONG)

    async def step() -> None:
        with lock:  # HERE
            pass

    return step


@planted("lock", "condition.wait", "asyncio.Condition")
def condition_wait(plant: Plant) -> Step:
    condition = threading.Condition()

    def notify() -> None:
        with condition:
            condition.notify()

    plant.release(notify)

    async def step() -> None:
        with condition:
            condition.wait()  # HERE

    return step


@planted("lock", "plant.came.wait", "plait.Event", "main pinned")
def event_wait(plant: Plant) -> Step:
    async def step() -> None:
        plant.came.wait(LONG)  # HERE

    return step


@planted("lock", "slow.join", "plait.to_thread(thread.join)", detail="waits for thread slow" if GIL_BUILD else "")
def thread_join(plant: Plant) -> Step:
    slow = plant.thread(lambda: plant.came.wait(LONG), "slow")

    async def step() -> None:
        slow.join()  # HERE

    return step


@planted("lock", "jobs.get", "asyncio.Queue")
def queue_get(plant: Plant) -> Step:
    jobs: queue.Queue[int] = queue.Queue()
    plant.release(lambda: jobs.put(1))

    async def step() -> None:
        jobs.get()  # HERE

    return step


@planted("lock", "future.result", "asyncio.wrap_future", "main")
def future_result(plant: Plant) -> Step:
    future: Future[int] = Future()
    plant.release(lambda: future.set_result(1))

    async def step() -> None:
        future.result()  # HERE

    return step


# ---- computing


@planted("cpu", None, COMPUTE, "main spawned pinned")
def pure_python(plant: Plant) -> Step:
    async def step() -> None:
        number = 0
        while not plant.came.is_set(): number += 1  # HERE  # noqa: E701  # fmt: skip

    return step


@planted("cpu", "digest.update", "plait.to_thread(hashlib", until="goes on")
def hashing(plant: Plant) -> Step:
    """Lets go of the GIL."""
    block, digest = bytes(10_000_000), hashlib.sha256()

    async def step() -> None:
        while not plant.came.is_set():
            digest.update(block)  # HERE

    return step


@planted("cpu", "hashlib.pbkdf2_hmac", "key derivation", "main")
def key_derivation(plant: Plant) -> Step:
    async def step() -> None:
        while not plant.came.is_set():
            hashlib.pbkdf2_hmac("sha256", b"secret", b"salt", 300_000)  # HERE

    return step


@planted(KEEPS_GIL, "json.dumps", COMPUTE)
def json_dumps(plant: Plant) -> Step:
    document = [{"name": "x", "values": [1.5, 2, None]}] * 400_000

    async def step() -> None:
        while not plant.came.is_set():
            json.dumps(document)  # HERE

    return step


@planted(KEEPS_GIL, "re.match", "can't backtrack", "main spawned")
def regular_expression(plant: Plant) -> Step:
    async def step() -> None:
        while not plant.came.is_set():
            re.match("(a+)+$", "a" * 22 + "b")  # HERE

    return step


@planted(KEEPS_GIL, "sorted", COMPUTE)
def sort(plant: Plant) -> Step:
    numbers = [index * 7919.5 % 1_000_003 for index in range(1_000_000)]

    async def step() -> None:
        while not plant.came.is_set():
            sorted(numbers)  # HERE

    return step


@planted(KEEPS_GIL, None, "", "main spawned")
def power(plant: Plant) -> Step:
    """An operator, and the last thing in the step: on a GIL build all is over when the monitor gets the GIL."""

    async def step() -> int:
        return 7**1_500_000  # HERE

    return step


@planted("gil", "libc.usleep", "keep the GIL", "main spawned", only=GIL_BUILD)
def sleep_with_the_gil(plant: Plant) -> Step:
    libc = ctypes.PyDLL(None)

    async def step() -> None:
        libc.usleep(400_000)  # HERE

    return step


@planted("gc", "gc.collect", "gc.freeze()", "main spawned")
def garbage_collection(plant: Plant) -> Step:
    gc.disable()
    graph = [[index] for index in range(1_500_000)]
    gc.enable()
    plant.after.callback(graph.clear)

    async def step() -> None:
        while not plant.came.is_set():
            gc.collect()  # HERE
            until = time.monotonic() + 0.005  # one after the other would let no other thread in: a world's stopper goes first
            while time.monotonic() < until:
                pass

    return step


# ---- more than one call on the line


@planted("blocked", "time.sleep", "await plait.sleep(seconds)", "main spawned", "goes on", "clock_nanosleep")
def nested_calls(plant: Plant) -> Step:
    async def step() -> None:
        while not plant.came.is_set():
            time.sleep(float(str(1)))  # HERE

    return step


@planted("blocked", "subprocess.run", "asyncio.create_subprocess_exec")
def argument_s_call(plant: Plant) -> Step:
    reading, writing = plant.pipe()
    plant.release(writing.close)

    async def step() -> None:
        subprocess.run(shlex.split("cat"), stdin=reading)  # HERE

    return step


@planted("cpu", "", f"{COMPUTE}{', ' if GIL_BUILD else '('}function", "main spawned")
def loop_of_short_calls(plant: Plant) -> Step:
    """None of them takes long."""

    async def step() -> None:
        while len(str(time.monotonic())) and not plant.came.is_set(): pass  # noqa: E701  # HERE  # fmt: skip

    return step


# ---- other places for a step to be


@planted("lock", "plant.came.wait", "plait.Event")
def async_generator(plant: Plant) -> Step:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        plant.came.wait(LONG)  # HERE
        yield 2

    async def step() -> None:
        async for _ in numbers():
            pass

    return step


@planted("lock", "plant.came.wait", "plait.Event", "pinned")
def async_context_manager(plant: Plant) -> Step:
    class Resource:
        async def __aenter__(self) -> None:
            plant.came.wait(LONG)  # HERE

        async def __aexit__(self, *_: object) -> None:
            pass

    async def step() -> None:
        async with Resource():
            pass

    return step


@planted("lock", "library.fetch", "plait.to_thread", "main spawned")
def library(plant: Plant) -> Step:
    """A step inside an installed package: the user's line is named, not the library's."""
    folder = plant.folder / "site-packages"
    folder.mkdir()
    (folder / "planted_library.py").write_text("async def fetch(wait):\n    wait()\n")
    sys.path.insert(0, str(folder))
    library = importlib.import_module("planted_library")
    plant.after.callback(sys.path.remove, str(folder))
    plant.after.callback(sys.modules.pop, "planted_library")
    lock = threading.Lock()
    lock.acquire()
    plant.release(lock.release)

    async def step() -> None:
        await library.fetch(lock.acquire)  # HERE

    return step


FUNCTIONS = {"async_generator": "numbers", "async_context_manager": "__aenter__"}
"""Where it isn't `step` that stalls."""


def run_planted(cause: Callable[[Plant], Step], folder: Path, where: str, until: str) -> list[plait.Stall]:
    """The reports of one run, those of the planted task."""
    plant = Plant(folder, until)
    with plant.after:
        step = cause(plant)

        async def main() -> None:
            await plait.spawn(asyncio.sleep(0))  # the monitor starts
            if where == "spawned":
                task: Any = plait.spawn(step(), name="planted")
            elif where == "pinned":
                task = plait.Strand(pinned=True).spawn(step(), name="planted")
            else:
                task = asyncio.create_task(step(), name="planted")
            await task

        plait.run(main(), workers=1, on_stall=plant)
    return [stall for stall in plant.found if stall.task == "planted"]


# What a busy machine may make of it: it lost its core between two collections, or one began before the monitor did
BESIDE = {"garbage_collection": ("cpu", "gil")}


@pytest.mark.parametrize("cause,kind,call,instead,where,until,detail", CAUSES)
def test_a_planted_cause(
    cause: Callable[[Plant], Step],
    kind: str,
    call: str | None,
    instead: str,
    where: str,
    until: str,
    detail: str,
    tmp_path: Path,
) -> None:
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        started = time.monotonic()
        found = run_planted(cause, folder, where, until)
        took = time.monotonic() - started
        if found and found[0].kind not in ("host", *BESIDE.get(cause.__name__, ())):
            break
    first, last = found[0], found[-1]
    assert first.kind == kind, str(first)
    line = marked_line(cause)
    late = kind == "gil" and first.line != line  # it was over: the line after it, the loop's, or where its function begins
    where_it_may_be = {line, line - 1} if kind == "gil" or cause.__name__ == "power" else {line}
    assert (first.file, first.function) == (__file__, FUNCTIONS.get(cause.__name__, "step"))
    assert first.line in where_it_may_be
    assert call is None or late or first.call == (call or None)
    assert detail in first.detail
    assert late or instead in (first.advice or "")
    assert first.state == "began"
    assert last.state == "ended"
    assert {stall.state for stall in found[1:-1]} <= {"goes on"}
    if until == "goes on" and first.seconds < 0.4:  # else it was an error from the start
        assert len(found) == 3
    assert 0.09 < first.seconds <= last.seconds < took + 0.01
    assert first.times == 1
    assert where == "main" or (first.spawned_at or "").endswith("in main")
    assert f"{__file__}:{first.line}" in str(first)


def test_there_are_enough_causes() -> None:
    assert len({param.values[0] for param in CAUSES}) >= 24


# ---- causes that are no task of the user's


@pytest.mark.parametrize("where", ["main", "pooled", "pinned"])
@pytest.mark.parametrize("later", [False, True])
def test_a_callback_is_named(where: str, later: bool) -> None:
    plant = Plant(Path(), "began")

    def callback() -> None:
        plant.came.wait(LONG)  # HERE

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if later:
            loop.call_later(0.01, callback)
        else:
            loop.call_soon(callback)
        await eventually(plant.came.is_set)

    async def start() -> None:
        await plait.spawn(asyncio.sleep(0))
        await in_strand(where, main())

    plait.run(start(), workers=1, on_stall=plant)
    stall = plant.found[0]
    line = marked_line(test_a_callback_is_named)
    assert (stall.file, stall.line, stall.function, stall.kind) == (__file__, line, "callback", "lock")
    assert stall.call == "plant.came.wait"
    assert stall.task.endswith("callback")


def test_a_callback_without_a_frame_is_named_by_itself() -> None:
    """And not the line that called `plait.run`."""
    plant = Plant(Path(), "began")

    async def main() -> None:
        await plait.spawn(asyncio.sleep(0))
        lock = threading.Lock()
        lock.acquire()
        plant.release(lock.release)
        asyncio.get_running_loop().call_soon(lock.acquire)
        await eventually(plant.came.is_set)

    plait.run(main(), workers=1, on_stall=plant)
    stall = plant.found[0]
    assert stall.kind == "lock"
    assert stall.file != __file__
    assert stall.call is not None and stall.call.endswith("acquire")


def test_an_executor_at_its_cap() -> None:
    plant = Plant(Path(), "began")

    def query() -> None:
        plant.came.wait(LONG)

    async def main() -> None:
        await plait.spawn(asyncio.sleep(0))
        blocking_pool = plait.current_strand()._pool.blocking_pool
        blocking_pool._most, blocking_pool._free = 2, [1, 0]
        await asyncio.gather(*[plait.to_thread(query) for _ in range(5)])

    plait.run(main(), workers=1, on_stall=plant)
    stall = plant.found[0]
    assert (stall.kind, stall.file, stall.function) == ("executor", __file__, "query")
    assert stall.waiting == 3
    assert stall.seconds >= 0.1
    assert "wrap_future" in (stall.advice or "")
    assert "2 of 2" in stall.detail


def test_a_thread_without_a_core(tmp_path: Path) -> None:
    """The lowest priority, on a core that two others use: the machine is to blame, not the line."""
    if not hasattr(os, "sched_setscheduler"):
        pytest.skip("the system doesn't let us choose")
    plant = Plant(tmp_path, "began")
    core = min(os.sched_getaffinity(0))

    async def starves() -> None:
        usual = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        try:
            until = time.monotonic() + LONG
            while not plant.came.is_set() and time.monotonic() < until:
                pass
        finally:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            os.sched_setaffinity(0, usual)

    async def main() -> None:
        await plait.spawn(starves())

    with spinning(2, {core}):
        plait.run(main(), workers=1, on_stall=plant)
    assert {stall.kind for stall in plant.found} <= (
        {"host", "starved"} if GIL_BUILD else {"host"}
    )  # it waits for the GIL, too
    assert plant.found[0].seconds >= 0.5
    assert (plant.found[0].advice or "not this line").startswith("not this line")


# ---- what is said, and how often


def stalls_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "plait.stalls"]


def block_again_and_again(count: int, on_stall: Any, seconds: float = 0.15) -> plait.Stats:
    """Stalls at one place, one after the other."""

    async def step(number: int) -> None:
        while plait.stats().stalls <= number:
            time.sleep(seconds)

    async def main() -> plait.Stats:
        for number in range(count):
            await plait.spawn(step(number), name=f"number {number}")
        return plait.stats()

    return plait.run(main(), workers=1, on_stall=on_stall)


def test_a_place_is_reported_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    found: list[plait.Stall] = []
    stats = block_again_and_again(6, found.append)
    assert stats.stalls == 6
    states = [stall.state for stall in found if stall.state != "goes on"]
    assert states == ["began", "ended", "again"]
    assert (found[-1].times, found[-1].call) == (5, "time.sleep")
    assert found[-1].seconds >= 0.14
    assert "stalled 5 times more" in stalls_of(caplog)[-1].getMessage()


def test_after_a_minute_it_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MINUTE", 0.4)
    found: list[plait.Stall] = []
    block_again_and_again(5, found.append)
    again = [stall for stall in found if stall.state == "again"]
    assert again
    assert sum(stall.state == "began" for stall in found) + sum(stall.times for stall in again) == 5


def test_a_summary_comes_without_another_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MINUTE", 0.6)
    found: list[plait.Stall] = []

    async def step(number: int) -> None:
        while plait.stats().stalls <= number:
            time.sleep(0.15)

    async def main() -> None:
        await plait.spawn(step(0))
        await plait.spawn(step(1))
        await eventually(lambda: any(stall.state == "again" for stall in found))

    plait.run(main(), workers=1, on_stall=found.append)
    assert found[-1].times == 1


def test_half_a_second_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    plant = Plant(Path(), "goes on")

    async def step() -> None:
        plant.came.wait(LONG)

    async def main() -> None:
        await plait.spawn(step())

    plait.run(main(), workers=1, on_stall=plant)
    assert [stall.state for stall in plant.found] == ["began", "goes on", "ended"]
    assert plant.found[1].seconds >= 0.5
    assert [record.levelno for record in stalls_of(caplog)] == [logging.WARNING, logging.ERROR, logging.ERROR]
    assert plant.found[2].seconds >= plant.found[1].seconds


def test_it_may_have_gone_elsewhere_after_half_a_second() -> None:
    plant = Plant(Path(), "goes on")
    began = threading.Event()

    def on_stall(stall: plait.Stall) -> None:
        began.set()
        plant(stall)

    def first() -> None:
        began.wait(LONG)

    def second() -> None:
        plant.came.wait(LONG)

    async def step() -> None:
        first()
        second()

    async def main() -> None:
        await plait.spawn(step())

    plait.run(main(), workers=1, on_stall=on_stall)
    assert [stall.function for stall in plant.found] == ["first", "second", "second"]


def test_json_lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PLAIT_STALLS", "json")
    block_again_and_again(2, None)
    messages = [record.getMessage() for record in stalls_of(caplog)]
    assert len(messages) >= 3
    assert not any("\n" in message for message in messages)
    first, *_, last = [json.loads(message) for message in messages]
    assert (first["state"], first["kind"], first["call"], first["file"]) == ("began", "blocked", "time.sleep", __file__)
    assert first["advice"] == "`await plait.sleep(seconds)`"
    assert first["stack"][0].endswith(" step")
    assert (last["state"], last["times"]) == ("again", 1)


def test_a_block_for_a_terminal(program: Callable[..., Program]) -> None:
    source = (
        "import time, plait\n"
        "async def step():\n"
        "    time.sleep(0.4)\n"
        "async def main():\n"
        "    await plait.spawn(step(), name='slow')\n"
        "plait.run(main())\n"
    )
    code, out, err = program(source).end()
    assert (code, out) == (0, ""), err
    head, task, others, instead, line, end, *rest = err.splitlines()
    assert re.fullmatch(r".*/program.py:3 time.sleep has blocked its thread for \d+ ms, in step\(\) \(clock_nanosleep\)", head)
    assert task.startswith("  task slow, spawned at ") and task.endswith("program.py:5 in main")
    assert instead == "  instead: `await plait.sleep(seconds)`"
    assert line == "  > time.sleep(0.4)"
    assert "is done after" in end
    assert rest == []


def test_what_waits_behind_it_is_counted() -> None:
    plant = Plant(Path(), "began")

    async def main() -> None:
        await plait.spawn(asyncio.sleep(0))
        for _ in range(7):
            asyncio.get_running_loop().call_soon(int)
        plant.came.wait(LONG)

    plait.run(main(), workers=1, on_stall=plant)
    assert plant.found[0].waiting == 7
    assert "7 waiting now" in str(plant.found[0])


def test_a_slow_on_stall_keeps_nobody_from_a_hand_off() -> None:
    """It is called on a thread of its own."""
    go, called = threading.Event(), threading.Event()

    def on_stall(_stall: plait.Stall) -> None:
        called.set()
        go.wait(LONG)

    async def block(until: threading.Event) -> None:
        until.wait(LONG)

    async def main() -> None:
        first = plait.spawn(block(called))
        await first
        second = threading.Event()
        blocker = plait.spawn(block(second))
        await plait.spawn(call(second.set))  # behind it
        await blocker
        go.set()

    async def call(function: Any) -> None:
        function()

    plait.run(main(), workers=1, on_stall=on_stall)


def test_many_at_once_are_captured_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[Any] = []
    usual = report.stack_of
    monkeypatch.setattr(report, "stack_of", lambda probe: captured.append(probe) or usual(probe))
    found: list[plait.Stall] = []
    go = threading.Event()

    async def block() -> None:
        go.wait(LONG)

    async def main() -> None:
        blockers = [plait.spawn(block()) for _ in range(64)]
        await eventually(lambda: plait.stats().stalls >= 64)
        go.set()
        await asyncio.gather(*blockers)

    plait.run(main(), workers=1, on_stall=found.append)
    assert len(captured) < 20
    ended = sum(stall.state == "ended" for stall in found)
    assert ended + sum(stall.times for stall in found if stall.state == "again") == 64


def test_on_stall_may_raise(caplog: pytest.LogCaptureFixture) -> None:
    def on_stall(_stall: plait.Stall) -> None:
        raise ValueError("in on_stall")

    assert block_again_and_again(1, on_stall).stalls == 1
    assert caplog.text.count("on_stall raised") >= 2


# ---- innocents


@contextmanager
def spinning(count: int, cores: set[int] | None = None) -> Iterator[None]:
    """So many processes compute beside us."""
    source = (
        "import os, sys\n" + (f"os.sched_setaffinity(0, {cores!r})\n" if cores else "") + "print(flush=True)\nwhile 1: pass"
    )
    children = [subprocess.Popen([sys.executable, "-S", "-c", source], stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def compute(seconds: float) -> None:
    """Use the processor for so long."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def short_steps(count: int, seconds: float) -> None:
    for _ in range(count):
        compute(seconds)
        await plait.checkpoint()


async def one_step(seconds: float) -> None:
    compute(seconds)


def reports_of(main: Coroutine[Any, Any, object], **options: Any) -> list[str]:
    """What was reported, but for what the machine did (see above)."""
    found: list[plait.Stall] = []
    plait.run(main, on_stall=found.append, **options)
    return [str(stall) for stall in found if stall.kind not in ("host", "starved")]


async def long_sleeps() -> None:
    await asyncio.gather(plait.sleep(0.4), plait.spawn(plait.sleep(0.4)), plait.spawn(asyncio.sleep(0.4)))


async def short_steps_spawned() -> None:
    await plait.spawn(short_steps(80, 0.004))


async def short_steps_main() -> None:
    await plait.spawn(asyncio.sleep(0))
    await short_steps(80, 0.004)


async def short_steps_pinned() -> None:
    await plait.Strand(pinned=True).call(short_steps(80, 0.004))


async def parked_on_a_socket() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def receive() -> bytes:
        return await asyncio.get_running_loop().sock_recv(ours, 1)

    task = plait.spawn(receive())
    await plait.sleep(0.3)
    theirs.send(b"x")
    assert await task == b"x"
    ours.close()
    theirs.close()


async def tasks_in_strands() -> None:
    async with plait.TaskGroup() as group:
        for _ in range(100):
            group.create_task(one_step(0.005))


async def tasks_in_one_strand() -> None:
    """They run in one turn of it."""

    async def all_of_them() -> None:
        await asyncio.gather(*[one_step(0.005) for _ in range(60)])

    await plait.spawn(all_of_them())
    await plait.Strand(pinned=True).call(all_of_them())


async def callbacks_in_one_strand() -> None:
    async def all_of_them() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        for _ in range(60):
            loop.call_soon(compute, 0.005)
        loop.call_soon(done.set)
        await done.wait()

    await plait.spawn(all_of_them())


async def idle_pinned() -> None:
    strand = plait.Strand(pinned=True)
    await strand.call(one_step(0))
    await plait.sleep(0.3)


async def tls() -> None:
    context, trusting = tls_contexts()
    trusting.check_hostname = False

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    for _ in range(3):
        await asyncio.gather(*[plait.spawn(client(port)) for _ in range(10)])
    server.close()


async def big_gather() -> None:
    await asyncio.gather(*[plait.spawn(asyncio.sleep(0.001)) for _ in range(2000)])


async def garbage_in_short_steps() -> None:
    async def litter() -> None:
        for _ in range(100):
            for _ in range(500):
                ring: list[Any] = []
                ring.append(ring)
            await plait.checkpoint()

    await asyncio.gather(plait.spawn(litter()), litter())


async def a_call_in_a_thread() -> None:
    await plait.to_thread(time.sleep, 0.4)


async def beside_a_thread_that_keeps_the_gil() -> None:
    over, libc = threading.Event(), ctypes.PyDLL(None)

    def keep() -> None:
        while not over.is_set():
            libc.usleep(20_000)

    thread = threading.Thread(target=keep)
    thread.start()
    await asyncio.gather(plait.spawn(short_steps(10, 0.001)), short_steps(10, 0.001))
    over.set()
    await eventually(lambda: not thread.is_alive())


async def beside_a_thread_that_keeps_the_gil_long() -> None:
    """0.2 s at a time, asleep and computing: what waits for the GIL meanwhile is no culprit."""
    libc = ctypes.PyDLL(None)

    def keep() -> None:
        for _ in range(2):
            libc.usleep(200_000)
            time.sleep(0.01)
            re.match("(a+)+$", "a" * 21 + "b")
            time.sleep(0.01)

    thread = threading.Thread(target=keep)
    thread.start()
    while thread.is_alive():
        await asyncio.gather(plait.spawn(short_steps(10, 0.001)), short_steps(10, 0.001))


async def on_a_full_machine() -> None:
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        await asyncio.gather(plait.spawn(short_steps(10, 0.001)), short_steps(10, 0.001))


@pytest.mark.parametrize(
    "innocent",
    [
        long_sleeps, short_steps_spawned, short_steps_main, short_steps_pinned, parked_on_a_socket, tasks_in_strands,
        tasks_in_one_strand, callbacks_in_one_strand, idle_pinned, tls, big_gather, garbage_in_short_steps, a_call_in_a_thread,
        beside_a_thread_that_keeps_the_gil, beside_a_thread_that_keeps_the_gil_long, on_a_full_machine,
    ],
)  # fmt: skip
def test_an_innocent_is_not_reported(innocent: Callable[[], Coroutine[Any, Any, None]]) -> None:
    tries = (
        3 if innocent is beside_a_thread_that_keeps_the_gil_long else 1
    )  # who slept with it is told by how often others woke
    with spinning(6 if innocent is on_a_full_machine else 0):
        found = next((found for found in (reports_of(innocent()) for _ in range(tries)) if not found), "something each time")
        assert not found


def test_what_the_thread_computed_before_a_run_is_not_held_against_it() -> None:
    """The monitor compared the clock of the main thread after a gap with none, since it was started first; or with what it had
    been when the run before ended."""

    async def main() -> None:
        probe = plait.current_strand().probe  # type: ignore[attr-defined]
        assert probe.noted >= before
        if sys.platform == "linux":
            assert probe.noted_schedule[1] > 0

    with plait.Runner() as runner:
        for _ in range(2):
            before = time.thread_time_ns()
            runner.run(main())
            monitor = runner.get_loop()._pool.monitor  # type: ignore[attr-defined]
            eventually_in_thread(lambda monitor=monitor: monitor._asleep)  # type: ignore[misc]


def test_a_stopped_process_is_not_reported(program: Callable[..., Program]) -> None:
    """Its steps did nothing wrong: those that compute, and one that has just begun to block."""
    running = program(
        "import time, threading, plait\n"
        "async def compute():\n"
        "    until = time.monotonic() + 1.5\n"
        "    while time.monotonic() < until:\n"
        "        sum(range(1000))\n"
        "        await plait.checkpoint()\n"
        "async def block():\n"
        "    until = time.monotonic() + 1.5\n"
        "    while time.monotonic() < until:\n"
        "        time.sleep(0.01)\n"
        "        await plait.checkpoint()\n"
        "async def main():\n"
        "    tasks = [plait.spawn(compute()), plait.spawn(block())]\n"
        "    print('running', flush=True)\n"
        "    await compute()\n"
        "    for task in tasks: await task\n"
        "plait.run(main(), workers=2)\n"
    )
    assert running.line() == "running"
    time.sleep(0.2)
    running.send(signal.SIGSTOP)
    time.sleep(0.5)
    running.send(signal.SIGCONT)
    code, out, err = running.end()
    assert (code, out) == (0, "")
    assert [line for line in err.splitlines() if "(host)" not in line and "overloaded" not in line and line[:1] != " "] == []


def test_a_reporter_that_nobody_starts_keeps_no_thread() -> None:
    Reporter(None)
    assert not [thread for thread in threading.enumerate() if thread.name == "plait-reports"]
