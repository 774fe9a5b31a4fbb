"""PostgreSQL, Redis and uvicorn on loopback, as child processes that end with us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from library_helpers import STRICT, free_port, interpreter

import plait

START = 30.0
"""Seconds within which a server has to answer."""
STOP = 30.0
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Server:
    """A child process that serves a port; it gets a signal when the thread that started it dies."""

    def __init__(self, folder: Path, command: list[str], stop: int = signal.SIGTERM, **options: Any) -> None:
        self.stop_signal = stop
        self.log = folder / "server.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, stop), **options,
            )  # fmt: skip

    def wait_until(self, answers: Callable[[], bool]) -> bool:
        """Ask until it answers; False if the process ended."""
        until = time.monotonic() + START
        while self.process.poll() is None:
            if answers():
                return True
            assert time.monotonic() < until, f"no answer within {START} s\n{self.output()}"
            time.sleep(0.02)
        return False

    def output(self) -> str:
        """What it wrote."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def end(self, seconds: float = STOP) -> int:
        """Stop it; its exit code. Killed, and the test failed, if it does not end."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait()
            pytest.fail(f"{self.process.args} did not end within {seconds} s of signal {self.stop_signal}\n{self.output()}")


def _program(name: str) -> str:
    """Where a server's program is; without one the test is skipped, or fails if all have to run."""
    found = [*Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), *filter(None, [shutil.which(name)])]
    if not found:
        (pytest.fail if STRICT else pytest.skip)(f"no {name} here: apt-get install postgresql redis-server")
    return str(found[0])


def _started(make: Callable[[int], Server], answers: Callable[[int], bool]) -> tuple[Server, int]:
    """Start a server on a port of the system's choice; another one if somebody took it in between."""
    for _ in range(5):
        port = free_port()
        server = make(port)
        if server.wait_until(lambda: answers(port)):
            return server, port
    pytest.fail(f"the server does not start\n{server.output()}")


@contextlib.contextmanager
def _folder(owner: str | None = None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="plait-") as name:
        if owner is not None:
            shutil.chown(name, owner)
        yield Path(name)


@contextlib.contextmanager
def postgres() -> Iterator[int]:
    """The port of a PostgreSQL whose user "postgres" needs no password."""
    initdb, program = _program("initdb"), _program("postgres")
    options: dict[str, Any] = {}
    owner = None
    if os.geteuid() == 0:  # it refuses to run as root
        owner = "postgres"
        options = {"user": owner, "group": pwd.getpwnam(owner).pw_gid, "extra_groups": []}
    with _folder(owner) as folder:
        data = folder / "data"
        setup = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run(setup, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=START, **options)
        settings = {
            "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200", "fsync": "off",
            "shared_buffers": "32MB", "lc_messages": "C",
        }  # fmt: skip

        def make(port: int) -> Server:
            given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
            return Server(folder, [program, "-D", str(data), "-p", str(port), *given], signal.SIGINT, **options)

        def answers(port: int) -> bool:
            ready = _program("pg_isready")
            return subprocess.run([ready, "-q", "-h", "127.0.0.1", "-p", str(port)], timeout=START).returncode == 0

        server, port = _started(make, answers)
        try:
            yield port
        finally:
            server.end()


@contextlib.contextmanager
def redis() -> Iterator[int]:
    """The port of a Redis that stores nothing."""
    program = _program("redis-server")
    with _folder() as folder:

        def make(port: int) -> Server:
            return Server(folder, [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])

        def answers(port: int) -> bool:
            try:
                with socket.create_connection(("127.0.0.1", port), START) as sock:
                    sock.sendall(b"PING\r\n")
                    return sock.recv(16) == b"+PONG\r\n"
            except ConnectionError:
                return False

        server, port = _started(make, answers)
        try:
            yield port
        finally:
            server.end()


def uvicorn(folder: Path, *options: str) -> tuple[Server, int]:
    """`uvicorn --loop plait:new_event_loop` with the app of web_app.py, and its port."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(Path(plait.__file__).parents[1])}

    def make(port: int) -> Server:
        command = [*interpreter(), "-m", "uvicorn", "web_app:app", "--app-dir", str(here), "--port", str(port)]
        return Server(folder, [*command, "--loop", "plait:new_event_loop", "--log-level", "warning", *options], env=environment)

    def answers(port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), START):
                return True
        except ConnectionError:
            return False

    return _started(make, answers)
