"""Which call of a line is named: the one that runs, with its place known and by the line alone, or none.

Each program stops in a function of a "library"; the frames are those of the real thing.
"""

from __future__ import annotations

import dataclasses
import gc
import linecache
import sys
import textwrap
import threading
from typing import Any

import pytest
from unit_helpers import LONG

from plait.diagnose import garbage, source
from plait.diagnose.capture import Frame, calls_from, frames_of
from plait.diagnose.garbage import one_is_under_way
from plait.diagnose.line import call_at
from plait.diagnose.source import _parsed_file

FILE = "/planted/program.py"


class Stop(Exception):
    """Carries the stack out."""


def frames_at_stop(source: str) -> list[Frame]:
    """The program's frames when the library stops, innermost first."""
    source = textwrap.dedent(source)
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    _parsed_file.cache_clear()
    found: list[Frame] = []

    def stop(*_: Any, **__: Any) -> Any:
        found.extend(frames_of(calls_from(sys._getframe(1))))
        raise Stop

    library = {"__name__": "library", "stop": stop}
    exec(compile(LIBRARY, "/lib/site-packages/library.py", "exec"), library)
    space: dict[str, Any] = {**library, "stop": stop, "__name__": "program"}
    try:
        exec(compile(source, FILE, "exec"), space)
        result = space["main"]()
        if hasattr(result, "send"):
            result.send(None)
    except Stop:
        pass
    assert found
    return found


LIBRARY = """
import contextlib
def fetch(*args): return stop()
async def afetch(*args): return stop()
class Client:
    def __init__(self, url=None):
        if url == "stop": stop()
    def __enter__(self): stop()
    def __exit__(self, *_): stop()
    async def __aenter__(self): stop()
    async def __aexit__(self, *_): pass
    def get(self, *args): return stop()
    def __add__(self, other): return stop()
    @property
    def slow(self): return stop()
    def __call__(self, *args): return stop()
    def same(self, *args): return self
class Leaves(Client):
    def __enter__(self): pass
class Iterates:
    def __iter__(self): return self
    def __next__(self): return stop()
def iterates(*args): return Iterates()
def wraps(function):
    def wrapper(*args): return function(*args)
    return wrapper
wrapped = wraps(fetch)
def calls(function): function()
def cold(*args): return args
client, leaves = Client(), Leaves()
"""


@pytest.mark.parametrize("place", [True, False], ids=["place", "line"])
@pytest.mark.parametrize(
    ("line", "by_place", "by_line"),
    [
        ("fetch(cold(1))", "fetch", "fetch"),
        ("cold(fetch(1))", "fetch", "fetch"),
        ("cold(1), fetch(2), cold(3)", "fetch", "fetch"),
        ("x = client.same().same(cold(1)).get(str(2))", "client.same().same(cold(1)).get", "client.same().same(cold(1)).get"),
        ("return wrapped(str(1))", "wrapped", "wrapped"),
        ("return cold(wrapped(1))", "wrapped", None),  # which of them goes by another name?
        ("return Client(str('stop'))", "Client", "Client"),
        ("return client(cold(1))", "client", "client"),
        ("return client + cold(1)", None, None),
        ("return cold(1), client.slow", None, None),
        ("print(client.slow)", None, None),
        ("return f'{cold(1)} {fetch(2)!r:>{cold(3)}}'", "fetch", "fetch"),
        ("return [fetch(x) for x in range(3)]", "fetch", "fetch"),
        ("return sum(fetch(x) for x in range(3))", "fetch", "fetch"),
        ("return {cold(x): fetch(x) for x in range(3)}", "fetch", "fetch"),
        ("return [client.slow for x in range(3)]", None, None),
        ("for x in iterates(cold(1)): pass", "iterates", None),
        ("with Client(): pass", "with Client()", "with Client()"),
        ("with client: pass", "with client", "with client"),
        ("with leaves: pass", "with leaves", "with leaves"),
        ("with leaves as a, client as b: pass", "with client", None),
        ("with Client('stop'): pass", "Client", "Client"),
        ("if fetch(1): pass", "fetch", "fetch"),
        ("while cold(fetch(1)): pass", "fetch", "fetch"),
        ("assert cold(1) and fetch(2)", "fetch", "fetch"),
        ("(lambda: fetch(cold(1)))()", "fetch", "fetch"),
        ("exec('fetch(cold(1))')", None, None),
    ],
)
def test_a_call_of_a_library(place: bool, line: str, by_place: str | None, by_line: str | None) -> None:
    check(f"def main():\n    {line}\n", place, by_place if place else by_line)


def check(source: str, place: bool, expected: str | None, **verdict: str) -> None:
    stack = frames_at_stop(source)
    depth = next(index for index, frame in enumerate(stack) if frame.file == FILE or frame.file == "<string>")
    at = stack[depth]
    at = at if place else dataclasses.replace(at, position=None)
    if sys.version_info < (3, 13) and expected == "with client" and "leaves" in source:
        expected = "with leaves, client"  # the place is the whole statement's
    assert call_at(at, stack[depth - 1] if depth else None, **verdict) == expected


@pytest.mark.parametrize("place", [True, False], ids=["place", "line"])
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("async def main():\n  await afetch(cold(1))", "afetch"),
        ("async def main():\n  return cold(await afetch(1))", "afetch"),
        ("async def main():\n  async with Client(): pass", "async with Client()"),
        ("async def main():\n  await (\n    afetch(\n      cold(1),\n    )\n  )", "afetch"),
        ("def main():\n  return cold(\n    cold(1),\n    fetch(2),\n    cold(3))", "fetch"),
        ("def main():\n  return fetch(\n    cold(1),\n    cold(3))", "fetch"),
        ("def main():\n  return (client\n    .same(cold(1))\n    .get(cold(2)))", "client.same(cold(1)).get"),
        ("def main():\n  return (client\n    .same(fetch(1))\n    .get(cold(2)))", "fetch"),
        ("def main():\n  @client\n  def f(x=cold(1)): pass", "client"),
        ("def main():\n  @client.get\n  def f(x=cold(1)): pass", "client.get"),
        ("def main():\n  @cold(1)\n  @fetch(2)\n  def f(): pass", "fetch"),
        ("def main():\n  with (\n    leaves,\n    Client() as c,\n  ): pass", "with Client()"),
        ("def main():\n  try: cold(1)\n  finally: fetch(2)", "fetch"),
        ("def main():\n  if not cold(1): pass\n  elif fetch(2): pass", "fetch"),
        ("def main():\n  ä = 'äöü'; return cold('ä'), fetch('ö')", "fetch"),
        ("def main():\n  match fetch(1):\n    case _: pass", "fetch"),
        ("def main():\n  match 1:\n    case 1: fetch(1)", "fetch"),
        ("def main():\n  return calls(lambda: cold(fetch(1)))", "fetch"),
        ("def main():\n  return calls(\n    lambda:\n      cold(fetch(1)))", "fetch"),
        ("def main():\n  x = '''\n  cold(1)\n  '''; fetch(2)", "fetch"),
    ],
)
def test_other_shapes(place: bool, source: str, expected: str | None) -> None:
    if sys.version_info < (3, 13) and expected == "with Client()" and "leaves" in source:
        expected = "with leaves, Client()"
    if not place and ("@client" in source or ("with (" in source and sys.version_info < (3, 13))):
        expected = None  # a decorator is no call to the parser; and a whole statement begins on another line
    check(source, place, expected)


# Built-in functions have no frame


def native(line: str, kind: str, detail: str = "", function: str = "main") -> str | None:
    """What is named by the line alone where no frame is inside."""
    source = f"def known(): pass\nasync def main(self):\n    {line}\n"
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    _parsed_file.cache_clear()
    return call_at(Frame(FILE, 3, function), None, kind, detail)


@pytest.mark.parametrize(
    ("line", "kind", "detail", "expected"),
    [
        ("time.sleep(float('0.25'))", "blocked", "clock_nanosleep", "time.sleep"),
        ("time.sleep(delay(1))", "blocked", "clock_nanosleep", "time.sleep"),
        ("known(time.sleep(1))", "blocked", "clock_nanosleep", "time.sleep"),
        ("float(input())", "blocked", "read", "input"),
        ("json.loads(conn.recv(10))", "blocked", "recvfrom", "conn.recv"),
        ("print(sys.stdin.readline())", "blocked", "read", "sys.stdin.readline"),
        ("print(sys.stdin.readline())", "blocked", "write", "print"),
        ("db.execute(sql.format(x))", "blocked", "fdatasync", "db.execute"),
        ("float(x)", "blocked", "read", None),
        ("known(1)", "blocked", "read", None),
        ("self.known(db.execute(x))", "blocked", "read", "db.execute"),
        ("a.execute(1), b.execute(2)", "blocked", "pread64", None),
        ("x = d[k] + 1", "blocked", "read", None),
        ("with lock: pass", "lock", "", "with lock"),
        ("with locks.of(key): pass", "lock", "", "with locks.of(key)"),
        ("with open(path): pass", "blocked", "openat", "open"),
        ("lock.acquire(timeout=float(x))", "lock", "", "lock.acquire"),
        ("str(jobs.get())", "lock", "", "jobs.get"),
        ("return hashlib.scrypt(pw.encode())", "cpu", "", "hashlib.scrypt"),
        ("return sorted(range(9), key=lambda x: -x)[0]", "cpu", "", "sorted"),
        ("while time.monotonic() < end: pass", "cpu", "", None),
        ("for x in range(10**9): pass", "cpu", "", None),
        ("for x in y: z.add(x)", "cpu", "", None),
        ("return sum([x * x for x in range(10**9)])", "cpu", "", None),
        ("return [f(x) for x in range(10**9)]", "cpu", "", None),
        ("return x ** y", "cpu", "", None),
        ("known()", "cpu", "", None),
    ],
)
def test_a_built_in_function_by_the_line(line: str, kind: str, detail: str, expected: str | None) -> None:
    if sys.version_info < (3, 12) and line.startswith("return sum(["):
        expected = "sum"  # what goes through the numbers has a frame of its own
    assert native(line, kind, detail) == expected


@pytest.mark.parametrize(
    ("line", "function", "expected"),
    [
        ("return sorted(range(9), key=lambda x: -x)[0]", "<lambda>", None),
        ("return sorted(range(9), key=lambda x: f(x))[0]", "<lambda>", "f"),
        ("return sum(-x for x in range(9))", "<genexpr>", None),
        ("return sum(db.one(x) for x in range(9))", "<genexpr>", "db.one"),
        ("return sum(db.one(x) for x in db.all(9))", "main", "db.all"),
    ],
)
def test_a_lambda_s_calls_are_its_own(line: str, function: str, expected: str | None) -> None:
    assert native(line, "blocked", "read", function=function) == expected


def test_a_function_on_one_line() -> None:
    source = "def a(x=len(y)): time.sleep(float(x))\nclass B: pass\n"
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    _parsed_file.cache_clear()
    assert call_at(Frame(FILE, 1, "a"), None, "blocked", "clock_nanosleep") == "time.sleep"
    assert call_at(Frame(FILE, 1, "a"), None, "cpu") == "time.sleep"
    assert call_at(Frame(FILE, 1, "<module>"), None, "blocked", "clock_nanosleep") is None


def test_a_line_in_a_loop_is_known_by_the_file() -> None:
    source = "def main():\n    for x in y:\n        if x:\n            z.append_all(x)\n    return z.append_all(1)\n"
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    _parsed_file.cache_clear()
    assert call_at(Frame(FILE, 4, "main"), None, "cpu") is None
    assert call_at(Frame(FILE, 4, "main"), None, "blocked", "read") == "z.append_all"
    assert call_at(Frame(FILE, 5, "main"), None, "cpu") == "z.append_all"


@pytest.mark.parametrize("file", ["/nowhere/missing.py", "<string>"])
@pytest.mark.parametrize("position", [None, (1, 1, 0, 5), (3, 9, 4, 2)])
def test_no_source_no_call(file: str, position: Any) -> None:
    for kind in ("blocked", "cpu", "lock"):
        assert call_at(Frame(file, 1, "main", position), None, kind) is None


def test_no_tree_is_made_while_another_thread_collects(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be in the middle of making one: up to 3.11.7 the program's `ast.parse` failed with SystemError."""
    monkeypatch.setattr(source, "_ONE_TREE_AT_A_TIME", True)
    garbage.loop_is_made()
    garbage.watch()
    go, collects = threading.Event(), threading.Event()

    class Waits:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            collects.set()
            go.wait(LONG)

    def collect() -> None:
        Waits()
        gc.collect()

    thread = threading.Thread(target=collect)
    thread.start()
    assert collects.wait(LONG)
    assert one_is_under_way()
    assert source.parsed_line("call()") is None
    assert gc.isenabled()
    go.set()
    thread.join()
    assert not one_is_under_way()
    assert source.parsed_line("call()") is not None
    garbage.unwatch()
