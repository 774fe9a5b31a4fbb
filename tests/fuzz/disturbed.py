"""Programs in pooled strands, whose workers are blocked, robbed and handed off meanwhile, in pinned ones, and in a main strand
beside such a pool."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import plait
from fuzz.program import Program
from fuzz.run import Course, run
from fuzz.trace import Trace


class Disturbed:
    """A runtime in which little goes undisturbed: strands block, compute, yield, and come and go."""

    def __init__(self) -> None:
        self._dice = random.Random()

    def run_in_main(self, programs: list[Program]) -> list[Trace]:
        """One after the other, each in a runtime of its own."""
        return [run(Course(program, self._disturb), self._runner()) for program in programs]

    def run_pooled(self, programs: list[Program]) -> list[Trace]:
        """All at once, each in a strand of its own."""
        return self._run_in_strands(programs, plait.spawn)

    def run_pinned(self, programs: list[Program]) -> list[Trace]:
        """All at once, each in a strand with a thread of its own."""
        return self._run_in_strands(programs, _in_pinned)

    def _run_in_strands(self, programs: list[Program], start: Callable[[Any], Awaitable[None]]) -> list[Trace]:
        courses = [Course(program, between=self._between) for program in programs]

        async def main() -> None:
            self._disturb()
            await asyncio.gather(*(start(_alone(course)) for course in courses))

        with self._runner() as runner:
            runner.run(main())
        for course in courses:
            course.forget()
        return [course.trace for course in courses]

    def _runner(self) -> plait.Runner:
        return plait.Runner(workers=2, handoff_after=0.001, on_stall=lambda _: None)

    def _disturb(self) -> None:
        """Until the runtime ends."""
        for each in (self._block, self._compute, self._yield, self._yield, self._spawn):
            plait.spawn(each())

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


async def _in_pinned(coro: Coroutine[Any, Any, None]) -> None:
    async with plait.Strand(pinned=True) as strand:
        await strand.call(coro)


async def _alone(course: Course) -> None:
    """As a task that asyncio counts as the strand's."""
    await asyncio.create_task(course.take())
