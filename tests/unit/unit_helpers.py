"""What the unit tests share: run a coroutine test in plait, in each kind of strand, or a whole program in a process."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import plait

GIL_BUILD: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
LONG = 20.0
"""Seconds after which something that ought to have happened is given up; no test waits so long when it passes."""

Test = Callable[..., Coroutine[Any, Any, None]]
CERTIFICATE = Path(__file__).parent / "localhost.pem"
"""Made for these tests, and good for nothing else."""


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's, and one of clients that trust it as "localhost"."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE)
    return server, ssl.create_default_context(cafile=str(CERTIFICATE))


def in_plait(test: Test | None = None, **options: Any) -> Any:
    """Make an async test run in `plait.run(..., **options)`, on the main strand."""
    if test is None:
        return functools.partial(in_plait, **options)

    @functools.wraps(test)
    def wrapper(**fixtures: Any) -> None:
        plait.run(test(**fixtures), **options)

    return wrapper


async def in_strand(where: str, coro: Coroutine[Any, Any, Any]) -> Any:
    """Run coro in a strand of the kind that where names."""
    if where == "main":
        return await coro
    if where == "spawned":
        return await plait.spawn(coro)
    return await plait.Strand(pinned=where == "pinned").call(coro)


KINDS = ("main", "spawned", "pooled", "pinned")


def everywhere(test: Test) -> Any:
    """Make an async test run once in each kind of strand."""

    def wrapper(where: str, **fixtures: Any) -> None:
        plait.run(in_strand(where, test(**fixtures)))

    functools.update_wrapper(wrapper, test)
    del wrapper.__wrapped__  # type: ignore[attr-defined]
    wanted = inspect.signature(test)
    where = inspect.Parameter("where", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wrapper.__signature__ = wanted.replace(parameters=[where, *wanted.parameters.values()])  # type: ignore[attr-defined]
    return pytest.mark.parametrize("where", KINDS)(wrapper)


async def eventually(holds: Callable[[], object], seconds: float = LONG) -> None:
    """Return when holds() is true, looking again and again; fail after so many seconds."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"not within {seconds} s"
        await asyncio.sleep(0.002)


def eventually_in_thread(holds: Callable[[], object], seconds: float = LONG) -> None:
    """The same outside plait."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.002)


def collected(reference: Callable[[], object]) -> bool:
    """Is what the weak reference meant gone, or does the garbage collector take it now?"""
    if reference() is not None:
        gc.collect()
    return reference() is None


async def hear(event: threading.Event) -> None:
    """Wait for a thread's event without blocking the strand."""
    await eventually(event.is_set)


async def forever() -> None:
    """Wait until cancelled."""
    await plait.Event().wait()


async def value(result: Any) -> Any:
    """A coroutine that returns result."""
    return result


async def raises(error: BaseException) -> Any:
    """A coroutine that raises error."""
    raise error


def spin_until(flag: Callable[[], object], seconds: float = LONG) -> None:
    """Compute, without letting go of anything, until flag() is true."""
    until = time.monotonic() + seconds
    while not flag():
        assert time.monotonic() < until, f"not within {seconds} s"


async def other_strand(work: Callable[[], Any]) -> Any:
    """Call work() in a strand of its own."""

    async def call() -> Any:
        return work()

    return await plait.spawn(call())


class Program:
    """A Python program in a process of its own; it prints a line when it wants a signal."""

    def __init__(self, folder: Path, source: str, *options: str, **environment: str) -> None:
        self.file = folder / "program.py"
        self.file.write_text(source, encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, *options, str(self.file)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
        )  # fmt: skip

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self, seconds: float = LONG) -> tuple[int, str, str]:
        """Its exit code and the rest of what it printed; killed, with its stacks in stderr, if it does not end."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            out, err = self.process.communicate()
            pytest.fail(f"the program did not end within {seconds} s\n{out}\n{err}")
        return self.process.returncode, out, err


def open_fds() -> set[str]:
    """The descriptors that the process has open."""
    return set(os.listdir("/proc/self/fd"))


def plait_threads() -> list[threading.Thread]:
    """The living threads that plait made."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(("plait", "asyncio_"))]
