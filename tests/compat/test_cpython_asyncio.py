"""CPython's own asyncio tests, with plait's loop where they make a loop.

The tests are those that the running interpreter brings (the package ``test.test_asyncio``); ``cpython.py`` puts the
loop in and runs them, a process a module.  One case here is one of CPython's test modules.  It passes when

* every test of it passes that passes with asyncio's own loop on this interpreter, save the few in ``exceptions.txt``,
* and some tests made loops of ours: a module whose tests never do would pass whatever the loop is.

``PLAIT_COMPAT_LOOP=module:function`` puts another loop in, to see what of a failure is the loop's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LOOP = os.environ.get("PLAIT_COMPAT_LOOP", "plait:new_event_loop")
STOCK = "asyncio:SelectorEventLoop"

FEW = 15
"""There are fewer exceptions than this."""

TEST_SECONDS = 30.0
"""No single test takes longer; the slowest take three."""

MODULE_SECONDS = 300.0
"""Nor does a process.  This one is for what the first limit can't end."""

KILLS = 3
"""After so many tests of a module that ended the process its others are not run any more."""

MODULES = (
    "test_asyncgen",
    "test_base_events",
    "test_buffered_proto",
    "test_context",
    "test_eager_task_factory",
    "test_events",
    "test_free_threading",
    "test_futures",
    "test_futures2",
    "test_graph",
    "test_locks",
    "test_pep492",
    "test_queues",
    "test_runners",
    "test_sendfile",
    "test_server",
    "test_server_context",
    "test_sock_lowlevel",
    "test_ssl",
    "test_sslproto",
    "test_staggered",
    "test_streams",
    "test_subprocess",
    "test_taskgroups",
    "test_tasks",
    "test_threads",
    "test_timeouts",
    "test_unix_events",
    "test_waitfor",
)
"""All of ``test.test_asyncio`` (and ``test_asyncgen``, which runs on asyncio), but for what makes no loop:

* ``test_windows_events``, ``test_windows_utils``, ``test_proactor_events`` are about Windows,
* ``test_selector_events``, ``test_transports``, ``test_protocols`` hold asyncio's own classes against mocks of a loop,
* ``test_tools`` reads other processes."""

OTHER_SELECTORS = "the same tests over another selector, which a loop of ours does not take"
PYTHON_TASKS = "puts asyncio's Python classes in place of the C ones where asyncio's loop looks for them"
MOCK_LOOP = "holds asyncio's transport against a mock of a loop"
WITHOUT = {
    "PollEventLoopTests": OTHER_SELECTORS,
    "SelectEventLoopTests": OTHER_SELECTORS,
    "TestCallStackPy": PYTHON_TASKS,
    "TestPyFreeThreading": PYTHON_TASKS,
    "TestEagerPyFreeThreading": PYTHON_TASKS,
    "TestPyGetEventLoop": PYTHON_TASKS,
    "UnixReadPipeTransportTests": MOCK_LOOP,
    "UnixWritePipeTransportTests": MOCK_LOOP,
}
"""Classes that are left out of these modules, and why."""


IN_STRANDS = (
    "test_futures2",
    "test_locks",
    "test_queues",
    "test_server",
    "test_server_context",
    "test_staggered",
    "test_taskgroups",
    "test_threads",
    "test_timeouts",
    "test_waitfor",
)
"""The modules whose tests are coroutines: they also run in strands of plait's pool.  (Not ``test_graph``: it asks who waits
for the test itself, and who does so here is us.)"""

FREED_AT_ONCE = ("refcycles", "test_task_exc_handler_correct_context")
"""Parts of the names of tests that ask whether something is gone at once.  On a free-threaded build what one thread made and
another let go of is freed when the first comes to it, so the answer depends on whether the test's strand changed threads in
between; and the monitor may have just looked at it: it lets go of it a tick later."""

TRIES = 5
"""How often such a test is run, until it passes."""


@dataclass(frozen=True)
class Outcome:
    """What became of one test: passed, failed, skipped, killed (it hung or crashed the interpreter), or not run."""

    test: str
    written: str
    """``Class.method`` of the class that defines it."""
    outcome: str
    loops: int
    """How many loops were made while it ran."""
    detail: str

    @property
    def class_name(self) -> str:
        """The class it was run as a test of."""
        return self.test.partition(".")[0]


def has_tests() -> bool:
    """Whether this interpreter brings CPython's tests."""
    try:
        return importlib.util.find_spec("test.test_asyncio") is not None
    except ModuleNotFoundError:
        return False


pytestmark = [
    pytest.mark.timeout(2 * MODULE_SECONDS),  # the first case of a module runs all of it
    pytest.mark.skipif(
        not has_tests(),
        reason="this Python has no package test.test_asyncio; Debian has it in "
        f"libpython{sys.version_info.major}.{sys.version_info.minor}-testsuite",
    ),
]


def run(module: str, loop: str, *options: str, only: frozenset[str] = frozenset()) -> dict[str, Outcome]:
    """Run a module's tests, or ``only`` some tests of them, on such loops.

    A test that ends the process, or after which it ends, is noted, and another process runs the rest.
    """
    results: dict[str, Outcome] = {}
    for _ in range(KILLS):
        done = [test for test, result in results.items() if result.outcome != "not run"]
        with tempfile.TemporaryDirectory() as folder:
            report, errors = Path(folder, "report"), Path(folder, "errors")
            report.touch()
            argv = [sys.executable, str(HERE / "cpython.py"), module, "--without", *WITHOUT]
            argv += ["--loop", loop, "--limit", str(TEST_SECONDS), "--report", str(report), *options]
            for option, tests in (("--only", only), ("--but", done)):
                if tests:
                    listed = Path(folder, option)
                    listed.write_text("\n".join(tests))
                    argv += [option, str(listed)]
            with errors.open("w") as stderr:
                status = wait_for(argv, folder, stderr.fileno())
            said = errors.read_text(errors="replace")
            events = [json.loads(line) for line in report.read_text().splitlines()]
        results |= {event["test"]: Outcome(**event) for event in events if "test" in event}
        if status == 0:
            break
        started = [event["start"] for event in events if "start" in event]
        if not started:
            raise RuntimeError(f"{module} on {loop} ended with {status} before the first test:\n{said[-4000:]}")
        last = results[started[-1]]
        results[last.test] = replace(last, outcome="killed", detail=f"{status}\n{last_words(said)}")
    return results


def last_words(said: str) -> str:
    """What the fault handler wrote of a hang or a crash, the innermost frames first; else the end of the output."""
    start = max(said.rfind("Timeout ("), said.rfind("Fatal Python error"))
    return said[start:][:4000] if start >= 0 else said[-4000:]


def wait_for(argv: list[str], folder: str, stderr: int) -> int | str:
    """Run a program in an empty folder; its exit status, or that its time was over."""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path), PYTHONFAULTHANDLER="1")
    try:
        return subprocess.run(
            argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, timeout=MODULE_SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        return f"there was no end after {MODULE_SECONDS:.0f} s"


def stock(module: str, only: frozenset[str]) -> dict[str, Outcome]:
    """The outcomes of some tests of a module with asyncio's loop."""
    return run(module, STOCK, only=only) if only else {}


def exceptions() -> dict[str, str]:
    """The tests that need not pass, ``module.Class.method`` as run or (in all classes) as written, and why."""
    lines = (line.split("#")[0].strip() for line in (HERE / "exceptions.txt").read_text().splitlines())
    return {test: why.strip() for test, _, why in (line.partition(" ") for line in lines if line)}


def held_against_us(module: str, results: dict[str, Outcome]) -> list[Outcome]:
    """The tests that pass with asyncio's loop, don't with ours, and are no exceptions."""
    excepted = exceptions().keys()
    doubtful = {
        test: result
        for test, result in results.items()
        if result.outcome != "passed" and not excepted & {f"{module}.{test}", f"{module}.{result.written}"}
    }
    compared = stock(module, frozenset(doubtful))
    return [result for test, result in doubtful.items() if test not in compared or compared[test].outcome == "passed"]


def told(bad: list[Outcome]) -> str:
    """What pytest shows of them."""
    return "\n\n".join(f"{each.test} {each.outcome} {each.detail}" for each in bad)


def check_enough(module: str, results: dict[str, Outcome]) -> None:
    """A module that says nothing about our loop would pass whatever that is."""
    if not results:
        pytest.skip(f"CPython {sys.version_info.major}.{sys.version_info.minor} has no such module, or it needs a later one")
    assert any(each.outcome == "passed" and each.loops > 0 for each in results.values()), "no test made a loop of ours"


@pytest.mark.parametrize("module", MODULES)
def test_module(module: str) -> None:
    """What a module of CPython's asks of a loop holds for ours."""
    results = run(module, LOOP)
    bad = held_against_us(module, results)
    assert not bad, told(bad)
    check_enough(module, results)


def asks_if_freed(test: str) -> bool:
    """Whether a test is one of FREED_AT_ONCE."""
    return any(part in test for part in FREED_AT_ONCE)


@pytest.mark.parametrize("module", IN_STRANDS)
def test_module_in_strands(module: str) -> None:
    """And in pooled strands, some tests at once."""
    results = run(module, LOOP, "--in-strands")
    for _ in range(TRIES - 1):
        again = frozenset(test for test, result in results.items() if result.outcome == "failed" and asks_if_freed(test))
        if not again:
            break
        results |= run(module, LOOP, "--in-strands", only=again)
    bad = held_against_us(module, results)
    assert not bad, told(bad)
    check_enough(module, results)


def test_exceptions_are_few_and_have_reasons() -> None:
    """The list of exceptions stays short, and says of each why no user can notice."""
    listed = exceptions()
    assert len(listed) < FEW
    assert all(listed.values()), [test for test, why in listed.items() if not why]
