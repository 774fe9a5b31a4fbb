"""The pollers over `selectors`, where there is no epoll, and plait without what only Linux has."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import plait
from plait._rt.io import selectors_poller
from plait._rt.io.poller import ReadyHandle, SharedPoller, selector_names
from plait._rt.io.selectors_poller import ONESHOT, READ, WRITE, Bell, Selector

TESTS = Path(__file__).resolve().parent.parent
FORCED = [name for name in ("poll", "select") if name in selector_names()]
ABOUT_IO = [
    *(f"tests/unit/test_{name}.py" for name in ("server", "asyncio_inside", "run", "spawn")),
    "tests/interleave/test_poller.py",
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", FORCED)
def test_what_stands_on_the_pollers(name: str) -> None:
    """The tests that are about I/O, in a process where that selector is forced; fewer seeds than usual."""
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "--timeout=40",
        "-o",
        "faulthandler_timeout=80",  # what that can't end: all stacks, and exit
        *ABOUT_IO,
    ]
    environment = {**os.environ, "PLAIT_SELECTOR": name, "PLAIT_SEEDS": "40"}
    done = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


@pytest.mark.parametrize("name", selector_names())
def test_it_is_chosen_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_SELECTOR", name)

    async def main() -> None:
        assert await plait.spawn(plait.sleep(0.001, 5)) == 5
        strand: Any = plait.current_strand()
        for poller in (strand._poller, strand._pool.poller):
            kind = type(poller._epoll).__name__
            assert kind == ("epoll" if name == "epoll" else "Selector")
            if name != "epoll":
                assert type(poller._epoll._selector).__name__.lower() == f"{name}selector"

    plait.run(main())


def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_SELECTOR", "iocp")
    with pytest.raises(ValueError, match=r"PLAIT_SELECTOR='iocp' .* poll, select"):
        plait.new_event_loop()


WITHOUT = """
import builtins, importlib, os, select, signal, sys, time
for module, names in {
    select: ["epoll"], time: ["pthread_getcpuclockid"],
    os: ["eventfd", "eventfd_read", "eventfd_write", "EFD_CLOEXEC", "EFD_NONBLOCK", "memfd_create", "MFD_CLOEXEC",
         "sched_getaffinity", "setpriority", "uname"][: None if bare else 7],
    signal: ["SIGRTMAX", "SIGRTMIN"] if bare else [],
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
def deny(real):
    def opened(path, *args, **options):
        if str(path).startswith("/proc"):
            raise PermissionError(path)
        return real(path, *args, **options)
    return opened
os.open, builtins.open = deny(os.open), deny(builtins.open)

import asyncio, plait
stalls = []

async def echo(reader, writer):
    while line := await reader.readline():
        writer.write(line)
    writer.close()

async def block():
    time.sleep(0.4)  # marked

async def client(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    late = 0.0
    for number in range(50):
        began = time.monotonic()
        writer.write(b"%d\\n" % number)
        assert await reader.readline() == b"%d\\n" % number
        late = max(late, time.monotonic() - began)
        await plait.sleep(0.001)
    writer.close()
    return late

async def main():
    server = await plait.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    blocking = [plait.spawn(block()) for _ in range(3)]
    lates = await asyncio.gather(*[plait.spawn(client(port)) for _ in range(10)], client(port))
    await asyncio.gather(*blocking)
    assert max(lates) < 0.3, lates
    assert plait.stats().handoffs > 0
    assert await plait.to_thread(lambda: 5) == 5
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(6)", stdout=-1)
    assert (await process.communicate())[0].strip() == b"6"
    server.close()

plait.run(main(), on_stall=stalls.append)
assert any(frame.function == "block" for stall in stalls for frame in stall.stack), stalls
print("fine")
"""


@pytest.mark.parametrize("bare", [False, True], ids=["no epoll, no /proc", "barer still"])
def test_without_what_only_linux_has(bare: bool, program: Any) -> None:
    """Names that other systems lack are taken away before plait is imported: it serves, hands off, and names who blocks."""
    code, out, err = program(f"bare = {bare}\n{WITHOUT}").end(40)
    assert (code, out) == (0, "fine\n"), err


# Selector: epoll's methods


@pytest.fixture(params=FORCED)
def epoll(request: pytest.FixtureRequest) -> Iterator[Selector]:
    bell = Bell()
    made = Selector(getattr(selectors, f"{request.param.capitalize()}Selector")(), bell.ring, threading.RLock())
    made.register(bell.fd, READ)
    made.bell = bell  # type: ignore[attr-defined]
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_level_and_one_shot(epoll: Selector, pair: Any) -> None:
    ours, theirs = pair
    fd = ours.fileno()
    epoll.register(fd, READ)
    assert epoll.poll(0, 9) == []
    theirs.send(b"x")
    assert epoll.poll(None, 9) == epoll.poll(0, 9) == [(fd, READ)]
    epoll.modify(fd, READ | WRITE | ONESHOT)
    assert epoll.poll(None, 9) == [(fd, READ | WRITE)]
    assert epoll.poll(0, 9) == []
    epoll.modify(fd, WRITE | ONESHOT)
    assert epoll.poll(0, 9) == [(fd, WRITE)]
    epoll.unregister(fd)
    assert epoll.poll(0, 9) == []
    for wrong in (lambda: epoll.unregister(fd), lambda: epoll.modify(fd, READ)):
        with pytest.raises(FileNotFoundError):
            wrong()
    epoll.register(fd, READ)
    with pytest.raises(FileExistsError):
        epoll.register(fd, READ)


@pytest.mark.parametrize("reopened", [False, True])
def test_a_closed_file_is_forgotten(epoll: Selector, pair: Any, reopened: bool) -> None:
    """As by epoll, also when its number is another file's by then."""
    fd = os.dup(pair[0].fileno())
    epoll.register(fd, READ)
    assert epoll.poll(0, 9) == []
    os.close(fd)
    if reopened:
        reading, writing = os.pipe()
        os.write(writing, b"y")
        assert reading == fd
        assert epoll.poll(0, 9) == []
        epoll.register(fd, READ)
        assert epoll.poll(0, 9) == [(fd, READ)]
        os.close(reading)
        os.close(writing)
    pair[1].send(b"x")
    epoll.register(pair[0].fileno(), READ)
    found = [epoll.poll(0, 9), epoll.poll(0, 9)]  # the first may be spent on finding it out
    assert found[1] == [(pair[0].fileno(), READ)]


def test_a_change_reaches_a_poll_under_way(epoll: Selector, pair: Any) -> None:
    """What another thread registers, and arms again, while somebody waits."""
    ours, theirs = pair
    fd, found, over = ours.fileno(), [], threading.Event()

    def serve() -> None:
        while not over.is_set():
            for ready, _ in epoll.poll(20.0, 9):
                if ready == fd:
                    found.append(ours.recv(1))
                    theirs.send(b"x")
                else:
                    epoll.bell.silence()  # type: ignore[attr-defined]

    thread = threading.Thread(target=serve)
    thread.start()
    theirs.send(b"x")
    epoll.register(fd, READ | ONESHOT)
    for number in range(1, 50):
        until = time.monotonic() + 10
        while len(found) < number:
            assert time.monotonic() < until, f"{number} slept through"
            time.sleep(0.0002)
        epoll.modify(fd, READ | ONESHOT)
    over.set()
    epoll.bell.ring()  # type: ignore[attr-defined]
    thread.join()


def test_a_mask_set_while_another_event_comes_is_kept(epoll: Selector, pair: Any) -> None:
    """One-shot for reading, and changed to writing after the selector found it readable: the write is reported next."""
    ours, theirs = pair
    fd, select = ours.fileno(), epoll._select
    epoll.register(fd, READ | ONESHOT)
    theirs.send(b"x")

    def select_and_change(timeout: float | None) -> Any:
        found = select(timeout)
        epoll.modify(fd, WRITE | ONESHOT)
        return found

    epoll._select = select_and_change
    assert epoll.poll(1.0, 9) == []
    epoll._select = select
    epoll.bell.silence()  # type: ignore[attr-defined]
    assert epoll.poll(1.0, 9) == [(fd, WRITE)]


class _Nothing(ReadyHandle):
    """Is never run."""

    def __init__(self) -> None:
        self._loop: Any = None


@pytest.mark.parametrize("name", FORCED)
def test_a_finaliser_of_who_polls_looks_at_the_poller(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another thread changes it. (A StreamWriter's asks for its descriptor.) Each once waited for the other's lock."""
    shared = SharedPoller(name)
    pairs = [socket.socketpair() for _ in range(2)]
    (mine, _), (theirs, _) = pairs
    for each in (mine, theirs):
        shared.add(each.fileno(), READ, _Nothing())
    pairs[0][1].send(b"x")
    file_of, looked = selectors_poller._file_of, []
    other = threading.Thread(target=shared.remove, args=(theirs.fileno(), READ, None), daemon=True)

    def collects(fd: int) -> Any:
        if fd == mine.fileno() and threading.current_thread() is polls and not looked:
            looked.append(fd)
            other.start()
            while (frame := sys._current_frames().get(other.ident or 0)) and frame.f_code.co_name not in (
                "remove",
                "unregister",
            ):
                time.sleep(0.001)
            time.sleep(0.05)  # it goes as far as it can
            shared.watched(fd, None)
        return file_of(fd)

    monkeypatch.setattr(selectors_poller, "_file_of", collects)
    polls = threading.Thread(target=shared.poll, args=(10,), daemon=True)
    polls.start()
    polls.join(20)
    other.join(20)
    assert looked
    assert not polls.is_alive()
    assert not other.is_alive()
    assert not shared.watched(theirs.fileno(), None)[0]
    shared.close()
    for pair in pairs:
        pair[0].close()
        pair[1].close()
