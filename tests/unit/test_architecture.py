"""Which module may import which, what importing plait does, what is documented."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import plait

ROOT = Path(inspect.getfile(plait)).parent
INTERNAL = sorted((ROOT / "_rt").rglob("*.py"))
MODULES = sorted(ROOT.rglob("*.py"))


def path_of(file: Path) -> str:
    """file's path below the package's."""
    return file.relative_to(ROOT).as_posix()


def named_by(node: ast.AST) -> list[str]:
    """The modules of plait that an import statement names; none if node is something else."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno} imports relatively"
        folder = ROOT.joinpath(*(node.module or "").split(".")[1:])
        names = [f"{node.module}.{alias.name}" for alias in node.names] if folder.is_dir() else [node.module or ""]
    return [name for name in names if name.split(".")[0] == "plait"]


def imports(file: Path) -> Iterator[str]:
    """The modules of plait that file imports, also late and for types only."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        yield from named_by(node)


def loads(node: ast.AST, late: bool = False) -> Iterator[tuple[str, bool]]:
    """The modules of plait that node's code imports, but not for types only; and whether a function does it, when called."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        node = ast.Module(node.orelse, [])
    yield from ((name, late) for name in named_by(node))
    late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from loads(child, late)


def loaded_by(file: Path) -> Iterator[tuple[str, bool]]:
    """The modules of plait that running file imports, and whether late."""
    return loads(ast.parse(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", INTERNAL, ids=path_of)
def test_the_runtime_imports_nothing_public_but_errors_and_stats(file: Path) -> None:
    for name in imports(file):
        assert name.startswith(("plait._rt.", "plait.errors", "plait.stats")), name


LAYERS = ("ground", "io", "task", "asyncio_face", "strand", "sched", "watch")
"""The folders of `_rt`, from the bottom up. What stands beside them knows all of them."""

LATE = {
    ("_rt/strand/strand.py", "plait._rt.strand.closing"): "ClosedStrand is a Strand",
    ("_rt/strand/thread_strand.py", "plait._rt.shutdown"): "the end of a run looks at all threads of its pool",
    ("_rt/pool.py", "plait._rt.strand.pinned"): "for programs that pin a strand",
}
"""Which functions' imports there are, and why. (Imports under `if TYPE_CHECKING` load nothing, and may point anywhere.)"""


def layer_of(path: str) -> int:
    """The place in LAYERS of what is at path, as a file below the package's or as a module."""
    folder = path.replace("plait._rt.", "_rt.").replace(".", "/").split("/")[1]
    return LAYERS.index(folder) if folder in LAYERS else len(LAYERS)


def test_each_folder_of_the_runtime_is_a_layer() -> None:
    assert {file.parent.name for file in INTERNAL if file.parent.name != "_rt"} == set(LAYERS)
    for layer in LAYERS:
        body = ast.parse((ROOT / "_rt" / layer / "__init__.py").read_text(encoding="utf-8")).body
        assert len(body) == 1, f"{layer}/__init__.py has more than its docstring"


@pytest.mark.parametrize("file", INTERNAL, ids=path_of)
def test_imports_point_down(file: Path) -> None:
    own = layer_of(path_of(file))
    for name, late in loaded_by(file):
        if name.startswith("plait._rt.") and not late:
            assert layer_of(name) <= own, f"{path_of(file)} imports {name}, which is above it"


def test_late_imports_are_listed() -> None:
    assert {(path_of(file), name) for file in INTERNAL for name, late in loaded_by(file) if late} == LATE.keys()


def test_no_two_modules_of_the_runtime_need_each_other() -> None:
    graph = {
        ".".join(("plait", *file.relative_to(ROOT).with_suffix("").parts)): [name for name, late in loaded_by(file) if not late]
        for file in INTERNAL
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)  # CycleError names a cycle


def test_there_is_something_to_check() -> None:
    assert len(INTERNAL) > 10
    assert any(name.startswith("plait._rt.") for file in INTERNAL for name in imports(file))


@pytest.mark.parametrize("file", MODULES, ids=path_of)
def test_modules_say_what_they_are(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), file.name


OWNERS = {
    "epoll": "_rt/io/epoll.py",
    "eventfd": "_rt/io/epoll.py",
    "EFD_": "_rt/io/epoll.py",
    "unix_events": "_rt/ground/cpython.py",
    "sched_": "_rt/ground/cores.py",
    "pthread_getcpuclockid": "_rt/ground/thread_probe.py",
    "setpriority": "_rt/ground/thread_probe.py",
    "/proc": "_rt/ground/thread_probe.py",
    "uname": "_rt/ground/thread_probe.py",
    "O_CLOEXEC": "_rt/ground/thread_probe.py",
    "pread": "_rt/ground/thread_probe.py, diagnose/capture.py",
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


@pytest.mark.parametrize("file", MODULES, ids=path_of)
def test_what_only_one_system_has_stands_in_the_file_that_owns_it(file: Path) -> None:
    path = path_of(file)
    if path == "diagnose/syscalls.py":
        return  # a table of names
    for line, word in words_of(file):
        for name, owner in OWNERS.items():
            if name not in word or path in owner:
                continue
            internal = word in ("epoll", "_epoll", "open_epoll") or word.startswith("plait._rt.")
            assert internal, f"{path}:{line} has {word}: that belongs to {owner}"


THREADS = {"threading.Thread", "threading.Timer", "_thread.start_new_thread", "_thread.start_joinable_thread"}


@pytest.mark.parametrize("file", MODULES, ids=path_of)
def test_threads_are_made_in_one_place(file: Path) -> None:
    makes: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            makes.add(ast.unparse(node.func))
        elif isinstance(node, ast.ClassDef):
            makes.update(map(ast.unparse, node.bases))
        elif isinstance(node, ast.ImportFrom):
            makes.update(f"{node.module}.{alias.name}" for alias in node.names)
    assert (makes & THREADS) == ({"threading.Thread"} if path_of(file) == "_rt/ground/threads.py" else set())


PRIVATE_NAMES = {
    ("defaults.py", "asyncio.events._set_running_loop"): "puts its own in the place of what stands there by then",
}
"""Which private names of the standard library's modules other files than ground/cpython.py name, and why."""


def is_private(path: str) -> bool:
    """Has it a part with one underscore? (Those with two are the language's.)"""
    return any(part.startswith("_") and not part.startswith("__") for part in path.split("."))


def is_librarys(path: str) -> bool:
    """Is there a module of the standard library at this path? (Some are there in some systems or versions only.)"""
    if path.split(".")[0] not in sys.stdlib_module_names:
        return False
    try:
        return importlib.util.find_spec(path) is not None
    except ModuleNotFoundError:
        return False


def imported(node: ast.AST) -> Iterator[tuple[str, str, str]]:
    """What an import statement names: by which name it is known from then on, of what, and what was imported."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.split(".")[0]
            yield alias.asname or top, alias.name if alias.asname else top, alias.name
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}", f"{node.module}.{alias.name}"


def private_names(tree: ast.AST) -> Iterator[str]:
    """The private names of the standard library's modules that code names: imported, as an attribute, or by a constant string.
    A module that was given another name is followed there; one that is taken out of a container isn't."""
    nodes, known = list(ast.walk(tree)), {}

    def path_to(node: ast.AST) -> str:
        if isinstance(node, ast.Attribute):
            return f"{path_to(node.value)}.{node.attr}"
        return known.get(node.id, "") if isinstance(node, ast.Name) else ""

    for node in nodes:
        for name, path, whole in imported(node):
            known[name] = path
            if is_private(whole) and whole.split(".")[0] in sys.stdlib_module_names:
                yield whole
    for node in nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and is_librarys(path_to(node.value)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            known.update((target.id, path_to(node.value)) for target in targets if isinstance(target, ast.Name))
    for node in nodes:
        owner, name = "", ""
        if isinstance(node, ast.Attribute):
            owner, name = path_to(node.value), node.attr
        elif isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            owner, name = path_to(node.args[0]), str(node.args[1].value)  # getattr and its like
        if is_private(name) and is_librarys(owner):
            yield f"{owner}.{name}"


def test_private_names_of_cpython_stand_in_one_file() -> None:
    found = {
        (path_of(file), name)
        for file in MODULES
        if path_of(file) != "_rt/ground/cpython.py"
        for name in private_names(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert found == PRIVATE_NAMES.keys()


@pytest.mark.parametrize(
    "code",
    [
        "import _thread",
        "from concurrent.futures import _base",
        "import concurrent.futures._base",
        "from asyncio.events import _get_running_loop",
        "from asyncio import tasks\ntasks._all_tasks",
        "import asyncio.tasks\nasyncio.tasks._GatheringFuture.cancel",
        "import asyncio.events as e\nwith_it = getattr(e, '_ThreadSafeHandle', None)",
        "import asyncio\nt: Any = asyncio.tasks\nt._all_tasks = 1",
        "def f():\n    import sys\n    return hasattr(sys, '_jit')",
    ],
)
def test_a_private_name_is_found(code: str) -> None:
    assert len(list(private_names(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nsys.__stdout__",
        "import asyncio\nclass Runner(asyncio.Runner):\n    def f(self): return self._loop",
        "import asyncio\nasyncio.Runner._on_sigint",
        "from plait._rt.ground.cpython import _getframe\n_getframe()",
        "import plait\nplait._rt",
    ],
)
def test_other_names_are_not(code: str) -> None:
    assert not list(private_names(ast.parse(code)))


def parts_of(thing: type) -> list[type]:
    """The classes that a public one is made of: its own and those of the same folder that it inherits from."""
    folder = thing.__module__.rpartition(".")[0]
    return [
        part for part in thing.__mro__ if part.__module__.startswith("plait.") and part.__module__.rpartition(".")[0] == folder
    ]


def public() -> Iterator[Any]:
    """The public names, and the public methods and properties that they define."""
    for name in plait.__all__:
        thing = getattr(plait, name)
        yield pytest.param(thing, id=name)
        if not inspect.isclass(thing):
            continue
        for member, found in [each for part in parts_of(thing) for each in vars(part).items()]:
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
