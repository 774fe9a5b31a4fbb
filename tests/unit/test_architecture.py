"""Which module may import which, what importing plait does, what is documented."""

from __future__ import annotations

import ast
import inspect
import pkgutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import plait

ROOT = Path(inspect.getfile(plait)).parent
INTERNAL = sorted((ROOT / "_rt").glob("*.py"))
MODULES = sorted(ROOT.rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    """The modules of plait that file imports, also late and for types only."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}:{node.lineno} imports relatively"
            names = [node.module or ""]
            if node.module in ("plait", "plait._rt"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "plait")


@pytest.mark.parametrize("file", INTERNAL, ids=lambda file: file.stem)
def test_the_runtime_imports_nothing_public_but_errors_and_stats(file: Path) -> None:
    for name in imports(file):
        assert name.startswith(("plait._rt.", "plait.errors", "plait.stats")), name


def test_there_is_something_to_check() -> None:
    assert len(INTERNAL) > 10
    assert any(name.startswith("plait._rt.") for file in INTERNAL for name in imports(file))


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_modules_say_what_they_are(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), file.name


OWNERS = {
    "epoll": "_rt/poller_epoll.py",
    "eventfd": "_rt/poller_epoll.py",
    "EFD_": "_rt/poller_epoll.py",
    "unix_events": "_rt/base.py",
    "sched_": "_rt/cores.py",
    "pthread_getcpuclockid": "_rt/vitals.py",
    "setpriority": "_rt/vitals.py",
    "/proc": "_rt/vitals.py",
    "uname": "_rt/vitals.py",
    "O_CLOEXEC": "_rt/vitals.py",
    "pread": "_rt/vitals.py, diagnose/capture.py",
    "memfd_create": "diagnose/capture.py",
    "MFD_": "diagnose/capture.py",
    "pthread_kill": "diagnose/capture.py",
    "SIGRTM": "diagnose/capture.py",
}


def words_of(file: Path) -> Iterator[tuple[int, str]]:
    """The names and strings of file's code, without its docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias):
            yield node.lineno, node.name


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_what_only_one_system_has_stands_in_the_file_that_owns_it(file: Path) -> None:
    path = file.relative_to(ROOT).as_posix()
    if path == "diagnose/syscalls.py":
        return  # a table of names
    for line, word in words_of(file):
        for name, owner in OWNERS.items():
            if name not in word or path in owner:
                continue
            internal = word in ("epoll", "_epoll", "open_epoll", "poller_epoll") or word.startswith("plait._rt.")
            assert internal, f"{path}:{line} has {word}: that belongs to {owner}"


def public() -> Iterator[Any]:
    """The public names, and the public methods and properties that they define."""
    for name in plait.__all__:
        thing = getattr(plait, name)
        yield pytest.param(thing, id=name)
        if not inspect.isclass(thing):
            continue
        for member, found in vars(thing).items():
            if not member.startswith("_") and (inspect.isfunction(found) or isinstance(found, property)):
                yield pytest.param(found, id=f"{name}.{member}")


@pytest.mark.parametrize("thing", list(public()))
def test_public_names_are_documented(thing: Any) -> None:
    if getattr(thing, "__name__", "") == "_refuse":
        return
    assert (inspect.getdoc(thing) or "").strip()  # asyncio's own for what asyncio's loops have


def test_all_is_sorted_and_complete() -> None:
    assert list(plait.__all__) == sorted(plait.__all__)
    wanted = {
        "run", "Runner", "new_event_loop", "spawn", "TaskGroup", "Task", "Strand", "current_strand", "WrongStrand", "sleep",
        "checkpoint", "Event", "to_thread", "start_server", "stats", "Stall",
    }  # fmt: skip
    assert wanted <= set(plait.__all__)


def test_it_is_typed() -> None:
    assert files(plait).joinpath("py.typed").is_file()


def test_importing_has_no_side_effects(program: Any) -> None:
    code, out, err = program(
        "import os, signal, sys, threading\n"
        "import asyncio, asyncio.unix_events, concurrent.futures, logging, faulthandler\n"
        "def state():\n"
        "    return (threading.active_count(), sorted(os.listdir('/proc/self/fd')), sys.getswitchinterval(),\n"
        "            [signal.getsignal(n) for n in signal.valid_signals()], sys.get_asyncgen_hooks(), sys.excepthook,\n"
        "            threading.excepthook, asyncio.get_event_loop_policy().__class__, len(logging.root.handlers))\n"
        "before = state()\n"
        "import plait\n"
        "assert state() == before, (before, state())\n"
        "print('same')\n",
        "-W", "ignore",
    ).end()  # fmt: skip
    assert (code, out) == (0, "same\n"), err


def test_every_module_imports_by_itself(program: Any) -> None:
    names = [module.name for module in pkgutil.walk_packages([str(ROOT)], "plait.") if not module.name.endswith("__main__")]
    code, out, err = program(
        "import subprocess, sys\n"
        "import importlib\n"
        f"for name in {names!r}:\n"
        "    for loaded in [loaded for loaded in sys.modules if loaded.split('.')[0] == 'plait']:\n"
        "        del sys.modules[loaded]\n"
        "    importlib.import_module(name)\n"
        "print('all')\n"
    ).end(120)
    assert (code, out) == (0, "all\n"), err
