"""What the library tests share: the uses, and many rounds of something in each of them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import re
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import plait

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
STRICT = "PLAIT_LIBRARIES" in os.environ
"""Set by tools/libraries.sh: what is missing fails, unless requirements.txt says why it is left out."""

LONG = 60.0
"""Seconds after which a test has failed; none takes so long when it passes."""
SOON = 10.0
"""Seconds that the end of a runtime may take."""
TASKS = 20
ROUNDS = 15
"""Each test does TASKS * ROUNDS rounds, TASKS of them at a time."""

USES = ("run", "loop_factory", "spawned")
uses = pytest.mark.parametrize("use", USES)

Round = Callable[[int], Awaitable[Any]]
moves = 0
"""How often a strand was found on another thread than before, in all tests."""


def left_out(package: str) -> str | None:
    """Why a package is not there on this build, by requirements.txt; None if it ought to be there."""
    text = (Path(__file__).parent / "requirements.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(package)}==\S+ +# not free-threaded: (.*)$", text, re.MULTILINE)
    return found[1] if found and FREE_THREADED else None


def library(name: str, package: str | None = None) -> Any:
    """A module of a library, or the test file is left out, with the reason."""
    reason = left_out(package or name)
    if reason is not None:
        pytest.skip(f"{name} is left out on the free-threaded build: {reason}", allow_module_level=True)
    try:
        return importlib.import_module(name)
    except ImportError:
        if STRICT:
            raise
        pytest.skip(f"{name} is not installed: make test-libraries", allow_module_level=True)


def run(use: str, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run main() in the main strand as the use has it. The end has to come soon, and leave nothing of plait's behind."""
    ending = 0.0

    async def limited() -> Any:
        nonlocal ending
        async with asyncio.timeout(LONG):
            result = await main()
        ending = time.monotonic()
        return result

    if use == "loop_factory":
        with asyncio.Runner(loop_factory=plait.new_event_loop) as runner:
            result = runner.run(limited())
    else:
        result = plait.run(limited(), workers=2)
    assert time.monotonic() - ending < SOON
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("plait")]
    assert not left, f"threads left: {left}"
    return result


async def inside(use: str, coro: Coroutine[Any, Any, Any]) -> Any:
    """Await coro where the use has it: here, or in a strand of its own."""
    return await (plait.spawn(coro) if use == "spawned" else coro)


async def many(use: str, task: Round, tasks: int = TASKS) -> list[Any]:
    """The results of task(0), task(1), ... , all at once: tasks of one loop, or each in a strand of its own.

    In strands, one more blocks its thread over and over, so that the others have to move.
    """
    if use != "spawned":
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(task(number)) for number in range(tasks)]  # type: ignore[arg-type]
        return [each.result() for each in running]
    done = threading.Event()
    async with plait.TaskGroup() as strands:
        blocker = strands.create_task(block(done))
        started = [strands.create_task(task(number)) for number in range(tasks)]  # type: ignore[arg-type]
        try:
            results = [await each for each in started]
        finally:
            done.set()
        assert await blocker > 0
    return results


async def block(done: threading.Event) -> int:
    """Block the thread for a moment, again and again, until done."""
    blocked = 0
    while True:
        time.sleep(0.003)
        blocked += 1
        if done.is_set():
            return blocked
        await asyncio.sleep(0.01)


async def rounds(once: Round, count: int = ROUNDS) -> int:
    """await once(n) count times in one task, noting when it moved to another thread; returns how often it did."""
    global moves
    home, thread, moved = asyncio.get_running_loop(), threading.get_ident(), 0
    for number in range(count):
        await once(number)
        assert asyncio.get_running_loop() is home
        if thread != threading.get_ident():
            thread = threading.get_ident()
            moved += 1
    moves += moved
    return moved


async def abandoned(use: str, once: Round, tasks: int = TASKS, *, loses_cancels: bool = False) -> None:
    """Start tasks that go round and round, and return, with all of them still at it, when each has been round once.

    What is tested by it comes after: the end of the runtime, which cancels them. If the library can lose a cancel, on any
    loop (docs/compatibility.md), its tasks look for the end after each round as well.
    """
    been = [0] * tasks
    ended = False

    async def go_on(number: int) -> None:
        while not (loses_cancels and ended):
            await once(number)
            been[number] += 1

    start = plait.spawn if use == "spawned" else asyncio.create_task
    running = [start(go_on(number)) for number in range(tasks)]
    while not all(been):
        for each in running:
            if each.done():
                await each
        await asyncio.sleep(0.005)
    ended = True


@contextlib.asynccontextmanager
async def strand_of(use: str) -> AsyncIterator[Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]]:
    """A way to run coroutines somewhere: in one further strand, or right here."""
    if use == "spawned":
        yield plait.Strand().call
    else:

        async def here(coro: Coroutine[Any, Any, Any]) -> Any:
            return await coro

        yield here


def free_port() -> int:
    """A port of loopback's that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def interpreter() -> list[str]:
    """This Python, for a process of its own."""
    return [sys.executable, "-X", "faulthandler"]
