"""The advice of the stall report: the table is sound, each entry is found, and the closer one is."""

from __future__ import annotations

import importlib
import queue
import random
import re
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from fnmatch import fnmatchcase
from typing import Any

import pytest

import plait
from plait.diagnose.advice import Entry, _matches, advise, find, library_frames, module_of, table
from plait.diagnose.capture import Frame, calls_of, frames_of

STDLIB = f"/usr/lib/python3.{sys.version_info.minor}"
USER = Frame("/srv/app/main.py", 12, "handle")
NAMES = {"loop": "asyncio.AbstractEventLoop", "strand": "plait.Strand", "barrier": "asyncio.Barrier", "jobs": "asyncio.Queue"}
"""What the variables in the advice stand for; others (client, cursor) are a library's."""

ENTRIES = table().entries
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=[(entry.frame or entry.call)[0] for entry in ENTRIES])


def frame(name: str) -> Frame:
    """The frame of "module:function", in the standard library or installed."""
    module, _, function = name.partition(":")
    folder = STDLIB if module.split(".")[0] in {*sys.stdlib_module_names, "telnetlib"} else f"{STDLIB}/site-packages"
    return Frame(f"{folder}/{module.replace('.', '/')}.py", 1, function)


def stack(*names: str) -> list[Frame]:
    """These library frames, innermost first, called by the user."""
    return [*map(frame, names), USER, frame("asyncio.events:_run"), Frame(plait.__file__, 1, "run")]


def said(call: str | None, *names: str, kind: str = "blocked", free_threaded: bool = True) -> str:
    """The advice, which there has to be."""
    advice = advise(stack(*names), call, kind, free_threaded)
    assert advice is not None
    return advice


def replacements(text: str) -> Iterator[str]:
    """The dotted names in a sentence's code that can be looked up here: the standard library's, plait's, and NAMES."""
    for code in re.findall(r"`([^`]+)`", text):
        for name in re.findall(r"(?<![\w.])[a-zA-Z_]\w*(?:\.\w+)+", code):
            root, _, rest = name.partition(".")
            if root in NAMES:
                yield f"{NAMES[root]}.{rest}"
            elif root in sys.stdlib_module_names or root == "plait":
                yield name


def resolve(name: str) -> Any:
    """The object of a dotted name."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise ImportError(name)


# ---- the table


def test_patterns_match_as_fnmatchs_do() -> None:
    dice = random.Random(1)
    for _ in range(20_000):
        name, pattern = ("".join(dice.choices(letters, k=dice.randrange(7))) for letters in ("ab.", "ab.*"))
        assert _matches(name, pattern) == fnmatchcase(name, pattern), (name, pattern)


def test_there_are_enough_entries() -> None:
    assert len(ENTRIES) >= 70


def test_no_two_entries_are_recognised_alike() -> None:
    seen: set[Any] = set()
    for entry in ENTRIES:
        conditions = (*entry.if_frame, *entry.if_call, entry.kind)
        for recogniser in [("frame", name, conditions) for name in entry.frame] + [("call", name) for name in entry.call]:
            assert recogniser not in seen, recogniser
            seen.add(recogniser)


@every_entry
def test_an_entry_is_well_formed(entry: Entry) -> None:
    assert entry.frame or entry.call
    assert re.search(r"`[^`]*[a-z]\w*[.(]?[^`]*`", entry.instead), "names nothing to write"
    assert entry.instead.count("`") % 2 == 0
    assert not entry.instead.endswith(".")
    assert re.fullmatch(r"https://[\w.-]+\.\w+/\S*", entry.source)


@every_entry
def test_an_entry_is_found_for_its_example(entry: Entry) -> None:
    frames, call = stack(*entry.example.get("stack", ())), entry.example.get("call")
    assert find(frames, call, entry.kind or "blocked") is entry


@every_entry
def test_no_placeholder_is_left(entry: Entry) -> None:
    for free_threaded in (False, True):
        text = advise(stack(*entry.example.get("stack", ())), entry.example.get("call"), entry.kind or "cpu", free_threaded)
        assert text and not re.search(r"COMPUTE|CALL", text)


@every_entry
def test_the_replacement_exists(entry: Entry) -> None:
    for free_threaded in (False, True):
        text = advise(stack(*entry.example.get("stack", ())), entry.example.get("call"), entry.kind or "cpu", free_threaded)
        for name in replacements(text or ""):
            resolve(name)


@pytest.mark.parametrize("kind", sorted(table().fallback))
@pytest.mark.parametrize("free_threaded", [False, True])
def test_the_fallbacks_replacement_exists(kind: str, free_threaded: bool) -> None:
    names = list(replacements(said(None, kind=kind, free_threaded=free_threaded)))
    assert names
    for name in names:
        resolve(name)


# ---- the search


def test_the_design_examples() -> None:
    assert said("time.sleep") == "`await plait.sleep(seconds)`"
    assert "httpx.AsyncClient" in said("requests.get", "socket:readinto", "requests.sessions:send", "requests.api:get")
    assert "plait.to_thread" in said("requests.get", "socket:readinto", "requests.sessions:send", "requests.api:get")
    assert "asyncio.create_subprocess_exec" in said("subprocess.run", "selectors:select", "subprocess:run")


def test_the_stack_decides_over_the_text() -> None:
    assert "httpx.AsyncClient" in said("queue.get", "urllib3.connectionpool:urlopen", "requests.sessions:get")
    assert "asyncio.Queue" in said("work_queue.get")


def test_the_library_the_user_called_decides() -> None:
    assert "QueueHandler" in said("log.info", "socket:create_connection", "logging.handlers:emit", "logging:info")
    assert "redis.asyncio" in said("cache.get", "socket:create_connection", "redis.connection:connect", "redis.client:get")


def test_what_is_outside_the_users_code_does_not_count() -> None:
    frames = [USER, frame("requests.sessions:send"), USER]  # a hook that requests called
    assert advise(frames, "time.sleep", "blocked", True) == "`await plait.sleep(seconds)`"


def test_the_asynchronous_half_of_a_library_is_left_alone() -> None:
    entry = find(stack("redis.connection:pack_command", "redis.asyncio.client:execute_command"), "cache.get", "cpu")
    assert entry is None


def test_the_closer_entry_wins() -> None:
    assert "shutil.rmtree" in said("shutil.rmtree", "shutil:rmtree")
    assert "shutil.copytree" in said("shutil.copy", "shutil:copy")
    assert "asyncio.Barrier" in said("barrier.wait", "threading:wait")
    assert "plait.Event" in said("ready.wait", "threading:wait")
    assert "hashlib.scrypt" in said("hashlib.scrypt")
    assert "hashlib.sha256" in said("hashlib.sha512")


def test_an_ambiguous_method_is_advised_on_condition() -> None:
    for call in ("x.recv", "x.sendall", "x.acquire", "x.execute", "x.read", "x.write"):
        assert said(call).startswith("if it is"), call


def test_the_verdict_restricts() -> None:
    assert "regular expression" in said("PATTERN.match", kind="cpu")
    assert said("PATTERN.match") == "move it to a thread: `await plait.to_thread(PATTERN.match, ...)`"


def test_unknown_calls_get_the_verdicts_advice() -> None:
    assert said("frobnicate") == "move it to a thread: `await plait.to_thread(frobnicate, ...)`"
    assert "plait.to_thread(function, ...)" in said("f(1).g")
    assert "plait.to_thread(crunch, ...)" in said("crunch", kind="cpu", free_threaded=True)
    assert advise([], None, "blocked", False) == "move it to a thread: `await plait.to_thread(function, ...)`"


def test_a_loop_goes_to_a_process_where_there_is_a_gil() -> None:
    text = said(None, kind="cpu", free_threaded=False)
    assert "loop.run_in_executor(processes, function, ...)" in text
    assert "concurrent.futures.ProcessPoolExecutor" in text
    assert "to_thread" not in text


def test_the_line_is_not_blamed_for_the_collector_or_others() -> None:
    assert "garbage collector" in said("time.sleep", kind="gc")
    assert "other threads" in said("json.loads", "json.decoder:decode", kind="starved")
    assert advise(stack(), "time.sleep", "host", True) is None
    assert "run_in_executor" in said("json.loads", "json.decoder:decode", kind="gil", free_threaded=False)
    assert "run_in_executor" in said("solve", kind="gil", free_threaded=False)
    assert "gc.freeze" in said("gc.collect", kind="gc")


def test_an_unknown_verdict_still_knows_the_table() -> None:
    assert said("time.sleep", kind="syscall") == "`await plait.sleep(seconds)`"
    assert advise(stack(), "frobnicate", "syscall", True) is None


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("/home/me/venv/lib/python3.13t/site-packages/requests/api.py", "requests.api"),
        ("/home/me/venv/lib/python3.13t/site-packages/six.py", "six"),
        ("/usr/lib/python3/dist-packages/requests/__init__.py", "requests"),
        ("/usr/lib/python3.13/subprocess.py", "subprocess"),
        ("/usr/lib64/python3.11/json/__init__.py", "json"),
        ("/opt/python/lib/python3.14t/concurrent/futures/_base.py", "concurrent.futures._base"),
        ("<frozen importlib._bootstrap>", "importlib._bootstrap"),
        ("<string>", None),
        ("/srv/app/requests/api.py", None),
        ("main.py", None),
    ],
)
def test_the_module_of_a_file(file: str, module: str | None) -> None:
    assert module_of(file) == module


@pytest.mark.parametrize(
    ("wait", "wake", "instead"),
    [
        (lambda event, jobs, future: event.wait(), lambda event, jobs, future: event.set(), "plait.Event"),
        (lambda event, jobs, future: jobs.get(), lambda event, jobs, future: jobs.put(1), "asyncio.Queue"),
        (lambda event, jobs, future: future.result(), lambda event, jobs, future: future.set_result(1), "asyncio.wrap_future"),
    ],
    ids=["event", "queue", "future"],
)
def test_a_real_stack_is_recognised(wait: Any, wake: Any, instead: str) -> None:
    things = threading.Event(), queue.Queue[int](), Future[int]()
    thread = threading.Thread(target=wait, args=things)
    thread.start()
    try:
        until = time.monotonic() + 10
        frames = frames_of(calls_of(thread.ident or 0))
        while not (any(each.file == __file__ for each in frames) and library_frames(frames)) and time.monotonic() < until:
            time.sleep(0.001)
            frames = frames_of(calls_of(thread.ident or 0))
    finally:
        wake(*things)
        thread.join()
    assert instead in (advise(frames, None, "blocked", True) or ""), frames


def test_the_table_is_not_read_on_import(program: Any) -> None:
    code, out, err = program("import plait, plait.diagnose.advice as a\nprint(a.table.cache_info().currsize)\n").end()
    assert (code, out) == (0, "0\n"), err
