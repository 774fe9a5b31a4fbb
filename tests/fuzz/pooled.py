"""Programs in pooled strands, whose workers are blocked, robbed and handed off meanwhile, and beside them in pinned ones."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import plait
from fuzz.program import Program
from fuzz.run import Course
from fuzz.trace import Trace

_WORKERS = 2


class Disturbed:
    """A runtime in which little goes undisturbed: strands block, compute, yield, and come and go."""

    def __init__(self, pinned: bool) -> None:
        self._pinned = pinned
        self._dice = random.Random()

    def run(self, programs: list[Program]) -> list[Trace]:
        """All programs at once, each in a strand of its own."""
        courses = [Course(program, self._between) for program in programs]
        plait.run(self._run(courses), workers=_WORKERS, handoff_after=0.001, on_stall=lambda _: None)
        for course in courses:
            course.forget()
        return [course.trace for course in courses]

    async def _run(self, courses: list[Course]) -> None:
        with self._disturbances():
            await asyncio.gather(*(self._in_strand(_alone(course)) for course in courses))

    async def _in_strand(self, coro: Coroutine[Any, Any, None]) -> None:
        if not self._pinned:
            return await plait.spawn(coro)
        async with plait.Strand(pinned=True) as strand:
            return await strand.call(coro)

    @contextmanager
    def _disturbances(self) -> Iterator[None]:
        tasks = [plait.spawn(each()) for each in (self._block, self._compute, self._yield, self._yield, self._spawn)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    def _between(self) -> None:
        """The program's own strand blocks, or yields its core."""
        if self._dice.random() < 0.02:
            time.sleep(self._dice.choice((0.0, 0.0, 0.002)))

    async def _block(self) -> None:
        while True:
            time.sleep(self._dice.random() * 0.004)
            await plait.sleep(0.0005)

    async def _compute(self) -> None:
        while True:
            until = time.perf_counter() + self._dice.random() * 0.003
            while time.perf_counter() < until:
                pass
            await plait.sleep(0.001)

    async def _yield(self) -> None:
        while True:
            await plait.checkpoint()

    async def _spawn(self) -> None:
        while True:
            await plait.spawn(asyncio.sleep(0))


async def _alone(course: Course) -> None:
    """As a task that asyncio counts as the strand's."""
    await asyncio.create_task(course.take())
