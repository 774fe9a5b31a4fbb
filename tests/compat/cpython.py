"""Run classes of CPython's own asyncio tests on loops that a given function makes.

A program, not a module to import: ``test_cpython_asyncio.py`` starts a process of it for each test module, so that a
test that hangs or crashes the interpreter costs a process and not the test run.  Each event is written at once, a JSON
object a line::

    {"start": "LifoQueueJoinTests.test_join_timeout"}
    {"test": "LifoQueueJoinTests.test_join_timeout", "written": "_QueueJoinTestMixin.test_join_timeout", ...}

A ``start`` without its ``test`` is thus the test in which the process ended.  ``written`` names the class that defines
the test: an inherited test has one of those and many of the other.  All tests begin with an outcome of ``not run``.

CPython's tests make a loop in four ways.  Each has its place here, and nothing else of them is changed:

1. ``asyncio.new_event_loop``, ``asyncio.run``, ``asyncio.Runner``, ``IsolatedAsyncioTestCase``, and a policy's
   ``new_event_loop()`` all ask the default policy, also after a ``tearDownModule`` has put a new one in.  So its
   factory is replaced in the class.
2. ``asyncio.SelectorEventLoop(...)`` and ``asyncio.EventLoop()``, in the modules listed below: these names are
   replaced.  A selector handed in is closed: which one to use is the loop's own business here.
3. ``utils.TestCase.new_test_loop()``: asyncio's own loop over a scripted clock and a mocked selector.  Most tests
   script nothing and get a real loop instead.  Those that do script the clock are skipped: no other loop fits in.
4. ``BaseTest.new_loop`` of ``test_runners``: a mocked ``BaseEventLoop`` that notes a call of ``shutdown_asyncgens``.  A
   real loop with the same note stands in for it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import importlib
import importlib.util
import inspect
import json
import re
import sys
import traceback
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

Loop = asyncio.AbstractEventLoop
MakeLoop = Callable[[], Loop]

SCRIPTED = "scripts the clock of asyncio's own test loop"
"""Why a test of the third kind is skipped."""

ASKS_FOR_STOCK = {"test_runners"}
"""The module that asks what ``asyncio.EventLoop`` is, and so keeps these names."""

OUTSIDE = {"test_asyncgen"}
"""Modules that run on asyncio without being in its package."""

AT_ONCE = 4
"""So many tests run at once in strands of their own."""

LOOP_TASKS = "LoopTask_Tests"
"""A class put beside the others of ``test_tasks``: its tests of a task, for the tasks that the loop itself makes."""


PRIVATE_PARTS = re.compile(r"loop\._(add_callback|ready|run_once|run_forever_\w+|scheduled|selector\.select)\b")
"""What a test of a bare ``BaseEventLoop`` asks for when it drives it by hand: no other loop has it."""


class Counted:
    """Makes loops and counts them: a test that made none says nothing about the loop."""

    def __init__(self, make: MakeLoop) -> None:
        self._make = make
        self.made = 0

    def __call__(self, selector: Any = None) -> Loop:
        if selector is not None:
            selector.close()
        self.made += 1
        return self._make()


def put_loop(module_name: str, make: Counted) -> Any:
    """Import a test module so that every loop it makes comes from ``make``; None if this Python has no such module."""
    policy: Any = asyncio.DefaultEventLoopPolicy
    policy._loop_factory = staticmethod(make)
    names: Any = asyncio
    if module_name not in ASKS_FOR_STOCK:  # before the import: there are classes that say loop_factory = asyncio.EventLoop
        names.SelectorEventLoop = make
        if hasattr(names, "EventLoop"):
            names.EventLoop = make

    utils: Any = importlib.import_module("test.test_asyncio.utils")

    def new_test_loop(self: Any, gen: Any = None) -> Loop:
        if gen is not None:
            raise unittest.SkipTest(SCRIPTED)
        loop = make()
        self.set_event_loop(loop)
        return loop

    utils.TestCase.new_test_loop = new_test_loop
    full_name = f"test.{module_name}" if module_name in OUTSIDE else f"test.test_asyncio.{module_name}"
    if importlib.util.find_spec(full_name) is None:
        return None
    module: Any = importlib.import_module(full_name)
    if module_name == "test_tasks":
        setattr(module, LOOP_TASKS, _loop_tasks(module, utils, make))
    if module_name == "test_base_events":
        module.BaseEventLoopTests.setUp = lambda self: _set_up(self, utils, make)
        _leave_out_private_parts(module.BaseEventLoopTests)
    if module_name == "test_pep492":
        module.BaseTest.setUp = lambda self: _set_up(self, utils, make)
    if module_name == "test_runners":
        module.BaseTest.new_loop = lambda self: _with_note(make())
    return module


def _loop_tasks(module: Any, utils: Any, make: MakeLoop) -> type:
    """``test_tasks`` gives each of its classes a ``Task`` of its own choice; this one leaves it to the loop."""

    async def nothing() -> None:
        return None

    loop = make()
    task = loop.create_task(nothing())
    loop.run_until_complete(task)
    loop.close()

    def set_up(self: Any) -> None:
        utils.TestCase.setUp(self)
        self.loop = self.new_test_loop()

    class Asks(type):
        """Makes a class that, called, has the loop make a task."""

        def __call__(cls, coro: Any, *, loop: Any = None, **options: Any) -> Any:
            return (loop or asyncio.get_running_loop()).create_task(coro, **options)

        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, type(task))

    def new_task(self: Any, loop: Any, coro: Any, name: Any = "TestTask", eager_start: Any = None, **options: Any) -> Any:
        if eager_start is not None:
            options["eager_start"] = eager_start
        return (loop or asyncio.get_running_loop()).create_task(coro, name=name, **options)  # as many calls deep as theirs

    task_class = Asks("Task", (type(task),), {})
    body = {"Task": task_class, "Future": asyncio.Future, "setUp": set_up, "new_task": new_task}
    body |= {"all_tasks": staticmethod(asyncio.all_tasks), "current_task": staticmethod(asyncio.current_task)}
    return type(LOOP_TASKS, (module.BaseTaskTests, utils.TestCase), body)


def _leave_out_private_parts(cls: Any) -> None:
    for name, test in inspect.getmembers(cls, inspect.isfunction):
        if name.startswith("test") and PRIVATE_PARTS.search(inspect.getsource(test)):
            delattr(cls, name)


def _set_up(test: Any, utils: Any, make: MakeLoop) -> None:
    """In place of a ``setUp`` that makes a bare ``BaseEventLoop`` with a mocked selector."""
    utils.TestCase.setUp(test)
    test.loop = make()
    test.set_event_loop(test.loop)


def _with_note(loop: Any) -> Loop:
    """A loop that notes in ``shutdown_ag_run`` that its asynchronous generators were shut down."""
    shutdown_asyncgens = loop.shutdown_asyncgens
    loop.shutdown_ag_run = False

    async def noted() -> None:
        loop.shutdown_ag_run = True
        await shutdown_asyncgens()

    loop.shutdown_asyncgens = noted
    result: Loop = loop
    return result


class Report(unittest.TestResult):
    """Writes each test's outcome as it happens, and ends the process if a test takes longer than ``limit`` seconds."""

    def __init__(self, out: TextIO, loops: Counted, limit: float) -> None:
        super().__init__()
        self._out = out
        self._loops = loops
        self._limit = limit
        self._before = 0
        self._outcome: tuple[str, str] | None = None

    def _write(self, **event: object) -> None:
        self._out.write(json.dumps(event) + "\n")
        self._out.flush()

    def begin(self, test: unittest.TestCase) -> None:
        """Note that a test starts."""
        self._write(start=short_id(test))
        faulthandler.dump_traceback_later(self._limit, exit=True)

    def end(self, test: unittest.TestCase, outcome: str, detail: str, loops: int) -> None:
        """Note what became of a test."""
        faulthandler.cancel_dump_traceback_later()
        self._write(test=short_id(test), outcome=outcome, loops=loops, detail=detail, written=where_written(test))

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._before = self._loops.made
        self._outcome = None
        self.begin(test)

    def stopTest(self, test: unittest.TestCase) -> None:
        outcome, detail = self._outcome or ("passed", "")
        self.end(test, outcome, detail, self._loops.made - self._before)
        super().stopTest(test)

    def expect(self, test: unittest.TestCase) -> None:
        """Note that the test is there: the process may end before it comes to it."""
        self._write(test=short_id(test), outcome="not run", loops=0, detail="", written=where_written(test))

    def _note(self, test: unittest.TestCase, outcome: str, detail: str) -> None:
        if not isinstance(test, unittest.TestCase) or not hasattr(test, "_testMethodName"):
            self.end(test, outcome, detail, 0)  # setUpClass or setUpModule: neither started nor stopped
        elif self._outcome is None or self._outcome[0] == "skipped":
            self._outcome = (outcome, detail)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self._note(test, "failed", "".join(traceback.format_exception(*err)))

    addFailure = addError

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self.addError(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._note(test, "skipped", reason)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._note(test, "failed", "expected to fail, and passed")


async def outcome_of(test: Any, strand: Any) -> tuple[str, str]:
    """Run a test whose method is a coroutine in strand, step by step as ``IsolatedAsyncioTestCase`` does in its loop."""

    async def call(function: Any, *args: Any, **options: Any) -> None:
        result = function(*args, **options)
        if inspect.isawaitable(result):
            await result

    method = getattr(test, test._testMethodName)
    for skipped in (type(test), method):
        if getattr(skipped, "__unittest_skip__", False):
            return "skipped", getattr(skipped, "__unittest_skip_why__", "")
    try:
        try:
            await strand.call(call(test.setUp))
            await strand.call(test.asyncSetUp())
            try:
                await strand.call(method())
            finally:
                await strand.call(test.asyncTearDown())
                await strand.call(call(test.tearDown))
        finally:
            while test._cleanups:
                function, args, options = test._cleanups.pop()
                await strand.call(call(function, *args, **options))
    except unittest.SkipTest as skip:
        return "skipped", str(skip)
    except Exception:
        return "failed", traceback.format_exc()
    return "passed", ""


def run_in_strands(tests: list[unittest.TestCase], report: Report) -> None:
    """Run tests that are coroutines, each in a strand of its own of plait's pool, some at once."""
    import plait

    async def lane() -> None:
        while tests:
            test = tests.pop(0)
            report.begin(test)
            outcome, detail = await outcome_of(test, plait.Strand())
            report.end(test, outcome, detail, loops=1)

    async def main() -> None:
        await asyncio.gather(*(lane() for _ in range(AT_ONCE)))

    plait.run(main(), workers=2)


def is_coroutine_test(test: unittest.TestCase) -> bool:
    """Whether ``run_in_strands`` can run it."""
    method = getattr(test, test._testMethodName)
    return isinstance(test, unittest.IsolatedAsyncioTestCase) and inspect.iscoroutinefunction(method)


def short_id(test: unittest.TestCase) -> str:
    """``Class.method``; what unittest says of a class or module whose set-up failed is kept as it is."""
    full = test.id()
    return full if " " in full else ".".join(full.split(".")[-2:])


def where_written(test: unittest.TestCase) -> str:
    """``Class.method`` of the class that defines the test."""
    name = getattr(test, "_testMethodName", "")
    return next((f"{cls.__name__}.{name}" for cls in type(test).__mro__ if name in vars(cls)), short_id(test))


def tests_in(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """The tests of a suite, flat."""
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_in(item)
        else:
            yield item


def main() -> None:
    """Run the classes asked for and write their events."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", help="such as test_locks")
    parser.add_argument("classes", nargs="*", help="all that the module has, if none are named")
    parser.add_argument("--without", nargs="*", default=(), help="classes that are left out")
    parser.add_argument("--loop", required=True, metavar="MODULE:FUNCTION", help="what makes the loops")
    parser.add_argument("--in-strands", action="store_true", help="tests that are coroutines, in pooled strands of plait's")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one test")
    parser.add_argument("--only", type=Path, help="a file that lists the tests to run, Class.method a line")
    parser.add_argument("--but", type=Path, help="a file that lists tests not to run")
    parser.add_argument("--report", type=Path, required=True, help="where the events go")
    args = parser.parse_args()

    source, _, name = args.loop.partition(":")
    make = Counted(getattr(importlib.import_module(source), name))
    module = put_loop(args.module, make)

    only = set(args.only.read_text().splitlines()) if args.only else None
    but = set(args.but.read_text().splitlines()) if args.but else set()
    loader = unittest.defaultTestLoader
    tests = [] if module is None else list(tests_in(loader.loadTestsFromModule(module)))
    if args.classes:
        tests = [test for test in tests if type(test).__name__ in args.classes]
    tests = [test for test in tests if type(test).__name__ not in args.without]
    if args.in_strands:
        tests = [test for test in tests if is_coroutine_test(test)]
    chosen = [test for test in tests if (only is None or short_id(test) in only) and short_id(test) not in but]
    with args.report.open("a") as out, contextlib.redirect_stdout(sys.stderr):
        report = Report(out, make, args.limit)
        for test in chosen:
            report.expect(test)
        if args.in_strands:
            run_in_strands(chosen, report)
        else:
            unittest.TestSuite(chosen).run(report)


if __name__ == "__main__":
    main()
