"""A run of a program on a loop, and how it is brought to an end.

A program is *quiet* when nothing was logged for some iterations: it is done, or waits for something that nobody does. Then it
is stirred, then cancelled, then what is left of it is cancelled as well. So each run ends, in the same iteration on each loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import plait
from fuzz.play import FACTORIES, Play, end, name_of, show
from fuzz.program import Program
from fuzz.trace import Trace

QUIET = 12
LIMIT = 5000
RUNS = 8


class Runner(asyncio.Runner):
    """Cancels at Ctrl-C between two steps, as plait's does."""

    def _on_sigint(self, signum: int, frame: Any, main_task: Any) -> None:
        self._interrupt_count += 1
        if self._interrupt_count > 1 or main_task.done():
            raise KeyboardInterrupt
        self.get_loop().call_soon_threadsafe(main_task.cancel)


def run_asyncio(programs: list[Program]) -> list[Trace]:
    """On asyncio's loop."""
    return [run(Course(each), Runner(loop_factory=asyncio.new_event_loop)) for each in programs]


def run_main(programs: list[Program]) -> list[Trace]:
    """In plait's main strand."""
    return [run(Course(each), plait.Runner()) for each in programs]


def run(course: Course, runner: asyncio.Runner) -> Trace:
    """Take course to its end, as often as the loop is stopped in between."""
    trace = course.trace
    try:
        with runner:
            for _ in range(RUNS):
                try:
                    runner.run(course.take())
                    break
                except BaseException as error:
                    trace.log(f"out of the loop: {show(error)}")
    except BaseException as error:
        trace.log(f"out of the runner: {show(error)}")
    course.forget()
    return trace


class Course:
    """A program on its way."""

    def __init__(
        self, program: Program, begin: Callable[[], None] = lambda: None, between: Callable[[], None] | None = None
    ) -> None:
        """`begin` is called once, in the loop. In a strand of the pool `between` is called in each iteration, and the clock is
        nobody's to replace."""
        self.trace = Trace()
        self._begin, self._between = begin, between
        self._program = program
        self._play: Any = None
        self._root: Any = None
        self._taken = 0
        self._iterations = self._looks = 0

    async def take(self) -> None:
        """Run the program to its end, or go on with it after something stopped the loop."""
        self._taken += 1
        loop = asyncio.get_running_loop()
        if self._program.counts_time and self._between is None:
            loop.time = self._time  # type: ignore[method-assign]
        if self._play is None:
            self._begin()
            loop.set_exception_handler(self.trace.report)
            loop.set_task_factory(FACTORIES.get(self._program.factory))
            loop.set_debug(self._program.debug)
            play = self._play = Play(self._program, self.trace)
            self._root = play.spawn(self._program.root, "root")
        await self._finish(self._play, self._root)
        vars(loop).pop("time", None)  # the end of a runtime goes by real time

    async def _finish(self, play: Play, root: Any) -> None:
        await self._quiet()
        for _ in range(3):
            if not root.done():
                play.stir()
                await self._quiet()
        for number in range(3):
            if not root.done():
                root.cancel(f"end {number}")
                await self._quiet()
        for task in play.alive:
            play.log(f"{name_of(task)} ended: {end(task)}, cancelling {task.cancelling()}")
        for _ in range(3):
            for task in play.alive:
                task.cancel("left")
            await self._quiet()
        play.log(f"left: {[name_of(task) for task in play.alive if not task.done()]}")

    async def _quiet(self) -> None:
        taken, lines, since = self._taken, self.trace.lines, 0
        logged = len(lines)
        while since < QUIET:
            await asyncio.sleep(0)
            if self._between is not None:
                self._between()
            if taken != self._taken:  # the loop was stopped, and another run goes on
                await asyncio.get_running_loop().create_future()
            self._iterations += 1
            if self._iterations > LIMIT:
                raise AssertionError("the program does not end")
            since, logged = (since + 1, logged) if len(lines) == logged else (0, len(lines))

    def _time(self) -> float:
        """Whole iterations, and a little more each time, as a clock does."""
        self._looks += 1
        return self._iterations + self._looks * 1e-10

    def forget(self) -> None:
        """Let go of all that the program made: what nobody asked for is reported when it is collected."""
        if self._play is not None:
            self._play.end()
        self._play = self._root = None
