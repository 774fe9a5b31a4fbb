"""The command `plait run`, beside `python` with the same program; the main strand's monitor."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from unit_helpers import LONG, plait_threads, value

import plait
from plait import cli

SOURCES = Path(plait.__file__).parent.parent
PLAIT = ("-m", "plait", "run")
End = tuple[int, str, str]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCES), **changes}


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., End]:
    """Run python(*arguments) in the test's folder: exit code, stdout, stderr."""

    def run(*arguments: str, given: str = "", **changes: str) -> End:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path, env=environment(**changes), input=given, capture_output=True, text=True, timeout=LONG,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def app(tmp_path: Path) -> Callable[[str], None]:
    """Write the program app.py."""

    def write(source: str) -> None:
        (tmp_path / "app.py").write_text(source, encoding="utf-8")

    return write


Python = Callable[..., End]
App = Callable[[str], None]


def without_runpy(end: End) -> End:
    """What `python -m` prints, without the two calls of its own in a traceback."""
    code, out, err = end
    return code, out, "\n".join(line for line in err.split("\n") if "<frozen runpy>" not in line)


# As python app.py

WHO_AM_I = """
import sys, os, __main__
print(__name__, __file__, __package__, __spec__, __doc__, type(__loader__).__name__, __loader__.path, __loader__.name)
print(__main__.__dict__ is globals(), type(__builtins__).__name__, sys.argv, sys.path[:2], sys.flags.safe_path)
"""
RAISES = """
def inner():
    return 1 / 0
def outer():
    try:
        inner()
    except ZeroDivisionError as error:
        raise ValueError("outer") from error
outer()
"""
RAISES_IN_ASYNCIO = """
import asyncio
async def inner():
    await asyncio.sleep(0)
    raise LookupError("lost")
async def main():
    await inner()
asyncio.run(main())
"""
EXITS_IN_ASYNCIO = """
import asyncio, sys
async def main():
    sys.exit(9)
asyncio.run(main())
"""
HOOK = """
import sys
def hook(kind, error, trace):
    names = []
    while trace:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    print("hook", kind, error, names)
sys.excepthook = hook
def call():
    raise ValueError("mine")
call()
"""
LAST_WORDS = """
import atexit, sys, threading
atexit.register(lambda: print("at exit", flush=True))
ended = threading.Event()
def late():
    ended.wait()
    print(sys.modules["__main__"].name, flush=True)
thread = threading.Thread(target=late)
thread.start()
name = "still there"
class AtEnd:
    def __del__(self):
        ended.set()
def main():
    end = AtEnd()
    raise ValueError
try:
    main()
finally:
    ended.set()
"""
WARNS = """
import warnings
def old():
    warnings.warn("old", DeprecationWarning)
old()
"""
READS = """
import sys
print(sys.stdin.read()[::-1])
print("to stderr", file=sys.stderr)
"""
INTERRUPTED = """
import os, signal, time
def work():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
work()
"""
INTERRUPTED_IN_ASYNCIO = """
import asyncio, os, signal
async def main():
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.sleep(60)
    finally:
        print("cleaned up")
asyncio.run(main())
"""
PICKLES = """
import multiprocessing, pickle, sys
class Thing:
    size = 3
def child(thing, queue):
    queue.put((thing.size, __name__, sys.argv))
if __name__ == "__main__":
    assert type(pickle.loads(pickle.dumps(Thing()))) is Thing
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(Thing(), queue))
    process.start()
    print(queue.get())
    process.join()
    print(process.exitcode)
"""
FORKS = """
import asyncio, os
loop = asyncio.new_event_loop()
if os.fork() == 0:
    print("child", loop.run_until_complete(asyncio.sleep(0.001, 1)), flush=True)
    os._exit(3)
print(os.waitstatus_to_exitcode(os.wait()[1]))
print("parent", loop.run_until_complete(asyncio.sleep(0.001, 2)))
loop.close()
"""

PROGRAMS = {
    "who am I": WHO_AM_I,
    "nothing": "",
    "exit code": "import sys; sys.exit(7)",
    "exit by message": "import sys; sys.exit('it went wrong')",
    "exit by None": "import sys; sys.exit(None)",
    "raises": RAISES,
    "raises at once": "raise RuntimeError('at once')",
    "syntax error": "x = 1\ndef f(:\n    pass\n",
    "raises in asyncio": RAISES_IN_ASYNCIO,
    "exits in asyncio": EXITS_IN_ASYNCIO,
    "own excepthook": HOOK,
    "last words": LAST_WORDS,
    "warns": WARNS,
    "reads": READS,
    "interrupted": INTERRUPTED,
    "interrupted in asyncio": INTERRUPTED_IN_ASYNCIO,
    "pickles": PICKLES,
    "forks": FORKS,
    "latin-1": "# coding: latin-1\nprint('\\xe4', 'ä')\n",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_with_python(name: str, app: App, python: Python) -> None:
    app(PROGRAMS[name])
    call = ("app.py", "a", "--workers", "-h", "--", "-m", "b")
    # (Not watched: on a busy machine there might be a stall to report.)
    expected = python(*call, given="typed\nin", PLAIT_MONITOR="0")
    assert python(*PLAIT, *call, given="typed\nin", PLAIT_MONITOR="0") == expected


@pytest.mark.parametrize("path", ["./app.py", "../{folder}/app.py", "{absolute}", "linked/app.py"])
def test_whatever_the_path(path: str, app: App, python: Python, tmp_path: Path) -> None:
    app(WHO_AM_I)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "app.py").symlink_to(tmp_path / "app.py")
    path = path.format(folder=tmp_path.name, absolute=tmp_path / "app.py")
    assert python(*PLAIT, path) == python(path)


@pytest.mark.parametrize("options", [("-P",), ("-W", "error"), ("-X", "dev"), ("-O",)], ids=lambda options: options[0])
def test_options_of_the_interpreter(options: tuple[str, ...], app: App, python: Python) -> None:
    app(WHO_AM_I + WARNS + "\nassert False\n" + RAISES_IN_ASYNCIO)
    assert python(*options, *PLAIT, "app.py", PLAIT_MONITOR="0") == python(*options, "app.py", PLAIT_MONITOR="0")


@pytest.mark.parametrize("kind", ["folder", "zip", "pyc"])
def test_programs_in_other_shapes(kind: str, python: Python, tmp_path: Path) -> None:
    source = "import sys\nprint(__name__, __file__, sys.argv, sys.path[0])\nraise ValueError('so')\n"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text(source)
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("__main__.py", source)
    python("-c", "import py_compile; py_compile.compile('folder/__main__.py', 'pyc')")
    assert python(*PLAIT, kind, "a") == without_runpy(python(kind, "a"))


@pytest.mark.parametrize("name", ["app", "package", "package.part", "package.missing", "nowhere", "empty"])
def test_modules_as_with_python_m(name: str, app: App, python: Python, tmp_path: Path) -> None:
    source = WHO_AM_I.replace("__spec__", "__spec__.name").replace("__loader__.name", "''") + RAISES
    app(source)
    for folder in ("package", "empty"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    for file in ("__main__", "part"):
        (tmp_path / "package" / f"{file}.py").write_text(source)
    assert python(*PLAIT, "-m", name, "a", "-h", "--", "b") == without_runpy(python("-m", name, "a", "-h", "--", "b"))


def test_the_console_script(app: App, python: Python, tmp_path: Path) -> None:
    scripts = tomllib.loads((SOURCES.parent / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"plait": "plait.cli:main"}
    (tmp_path / "bin").mkdir()
    # As installers write it:
    script = "import sys\nfrom plait.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    (tmp_path / "bin" / "plait").write_text(script)
    for name in ("who am I", "raises", "interrupted", "pickles", "exit code"):
        app(PROGRAMS[name])
        assert python("bin/plait", "run", "app.py", "a") == python("app.py", "a")


def test_a_failing_excepthook(app: App, python: Python) -> None:
    app("import sys\nsys.excepthook = lambda *_: 1 / 0\nraise ValueError('mine')\n")
    (code, out, err), (_, _, expected) = python(*PLAIT, "app.py"), python("app.py")
    cut = "Original exception was:\n"
    assert (code, out, err.partition(cut)[2]) == (1, "", expected.partition(cut)[2])
    assert "ZeroDivisionError" in err.partition(cut)[0]


# A function


@pytest.fixture
def module(tmp_path: Path) -> None:
    """package.module, with things to call."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "module.py").write_text(
        "import asyncio, sys, plait\n"
        "async def main():\n"
        "    print(sys.argv, sys.path[0], asyncio.get_running_loop() is plait.current_strand())\n"
        "    return 7\n"
        "def plain(): print('plain')\n"
        "def gives(): return main()\n"
        "def says(): return 'it went wrong'\n"
        "def asks(needed): pass\n"
        "def raises(): return 1 / 0\n"
        "async def raises_late(): return raises()\n"
        "class Holder:\n"
        "    @staticmethod\n"
        "    def held(): sys.exit(4)\n"
    )


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "code", "out", "err"),
    [("main", 7, "['package.module:main', 'a', '-h'] {} True\n", ""),
     ("gives", 7, "['package.module:gives', 'a', '-h'] {} True\n", ""),
     ("plain", 0, "plain\n", ""), ("says", 1, "", "it went wrong\n"), ("Holder.held", 4, "", ""),
     ("asks", 1, "", "TypeError: asks() missing 1 required positional argument: 'needed'\n"),
     ("nothing", 2, "", "plait: package.module:nothing: module 'package.module' has no attribute 'nothing'\n")],
)  # fmt: skip
def test_a_function_is_called(name: str, code: int, out: str, err: str, python: Python, tmp_path: Path) -> None:
    assert python(*PLAIT, f"package.module:{name}", "a", "-h") == (code, out.format(tmp_path), err)


@pytest.mark.usefixtures("module")
def test_a_functions_traceback_begins_with_the_function(python: Python, tmp_path: Path) -> None:
    file = tmp_path / "package" / "module.py"
    for name, calls in (("raises", ["raises"]), ("raises_late", ["raises_late", "raises"])):
        code, out, err = python(*PLAIT, f"package.module:{name}")
        places = [line for line in err.splitlines() if line.startswith("  File")]
        assert (code, [line.rpartition(" ")[2] for line in places]) == (1, calls), err
        assert all(str(file) in line for line in places)
        assert err.startswith("Traceback (most recent call last):\n")
        assert err.endswith("ZeroDivisionError: division by zero\n")


def test_a_module_that_cannot_be_imported(python: Python, tmp_path: Path) -> None:
    assert python(*PLAIT, "nowhere.at_all:main") == (2, "", "plait: nowhere.at_all:main: No module named 'nowhere'\n")
    (tmp_path / "needy.py").write_text("import nowhere\n")
    code, out, err = python(*PLAIT, "needy:main")
    assert (code, err.count("File"), err.splitlines()[-1]) == (1, 1, "ModuleNotFoundError: No module named 'nowhere'"), err


# Whose loop

WHICH = """
import asyncio, sys, warnings, plait
warnings.simplefilter("ignore")
from plait._rt.strand.thread_strand import ThreadStrand
async def which(): return "plait" if isinstance(asyncio.get_running_loop(), ThreadStrand) else "asyncio"
"""


def ran_by(python: Python, app: App, source: str) -> str:
    app(WHICH + source)
    code, out, err = python(*PLAIT, "app.py")
    assert code == 0, err
    return out.strip()


@pytest.mark.parametrize(
    "source",
    [
        "print(asyncio.run(which()))",
        "print(asyncio.run(which(), debug=True))",
        "with asyncio.Runner() as runner: print(runner.run(which()))",
        "loop = asyncio.new_event_loop(); print(loop.run_until_complete(which())); loop.close()",
        "loop = asyncio.events.new_event_loop(); print(loop.run_until_complete(which())); loop.close()",
        "import concurrent.futures\nwith concurrent.futures.ThreadPoolExecutor() as threads:"
        " print(threads.submit(lambda: asyncio.run(which())).result())",
        "print(plait.run(which()))",
        "if sys.version_info < (3, 14): print(asyncio.get_event_loop().run_until_complete(which()))\nelse: print('plait')",
    ],
)
def test_where_no_loop_is_named_it_is_plaits(source: str, app: App, python: Python) -> None:
    assert ran_by(python, app, source) == "plait"


@pytest.mark.parametrize(
    "source",
    [
        "with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner: print(runner.run(which()))",
        "if sys.version_info < (3, 12): print('asyncio')\n"
        "else: print(asyncio.run(which(), loop_factory=asyncio.SelectorEventLoop))",
        "loop = asyncio.SelectorEventLoop(); print(loop.run_until_complete(which())); loop.close()",
        "if sys.version_info < (3, 16): asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())\n"
        "print(asyncio.run(which()) if sys.version_info < (3, 16) else 'asyncio')",
    ],
)
def test_the_programs_own_choice_is_left_alone(source: str, app: App, python: Python) -> None:
    assert ran_by(python, app, source) == "asyncio"


def test_where_there_are_no_policies(python: Python, app: App) -> None:
    app("from plait.defaults import _replace_function\n_replace_function()\n" + WHICH + "print(asyncio.run(which()))\n")
    assert python("app.py")[:2] == (0, "plait\n")


def test_an_interrupt_is_handled_by_whose_loop_it_is(python: Python, app: App) -> None:
    app(
        "import asyncio, os, signal, sys, plait\n"
        "async def main():\n"
        "    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)\n"
        "    await asyncio.sleep(60)\n"
        "for factory in (None, plait.new_event_loop, asyncio.SelectorEventLoop):\n"
        "    with asyncio.Runner(loop_factory=factory) as runner:\n"
        "        try: runner.run(main())\n"
        "        except KeyboardInterrupt: print('interrupted')\n"
    )
    code, out, err = python(*PLAIT, "app.py")
    assert (code, out) == (0, "interrupted\n" * 3)
    assert err.startswith("plait does not serve this program") and err.count("\n") == 1


# The report


@pytest.fixture
def blocking(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start app.py under plait, to be talked to; it is killed if that takes long."""
    started: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def start(**changes: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *PLAIT, "app.py"], cwd=tmp_path, env=environment(**changes), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        timer = threading.Timer(LONG, process.kill)
        timer.start()
        started.append((process, timer))
        return process

    yield start
    for process, timer in started:
        timer.cancel()
        process.kill()
        process.communicate()


BLOCKS = """
import asyncio, sys, plait
async def handle():
    sys.stdin.readline()
async def main():
    await asyncio.create_task(handle(), name="reader")
"""


@pytest.mark.parametrize("start", ["asyncio.run(main())", "plait.run(main())"])
def test_who_blocks_the_main_strand_is_named(
    start: str, app: App, blocking: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    app(f"{BLOCKS}{start}\n")
    process = blocking()
    assert process.stdout is not None
    assert process.stderr is not None
    report = [process.stderr.readline() for _ in range(5)]  # it comes while the program blocks: nothing ends that but us
    assert report[0].startswith(f"{tmp_path}/app.py:4 sys.stdin.readline has blocked its thread for ")
    assert report[0].endswith(" ms, in handle() (read)\n")
    assert report[1] == "  task reader\n"
    assert report[2] == "  everything else in this strand waits: it keeps its thread (0 waiting now)\n"
    assert report[3].startswith("  instead: `await plait.to_thread(")
    assert report[4] == "  > sys.stdin.readline()\n"
    out, err = process.communicate("go on\n", timeout=LONG)
    assert out == ""
    assert [line.rpartition(" is done after ")[1] for line in err.splitlines()] == [" is done after "]
    assert process.returncode == 0


def test_the_monitor_and_the_door_are_the_threads_more(app: App, python: Python) -> None:
    app(
        "import asyncio, threading, plait\n"
        "def names(): return sorted(thread.name for thread in threading.enumerate())\n"
        "async def main(): print(names()); print(await plait.spawn(asyncio.sleep(0, 1)))\n"
        "print(names()); asyncio.run(main()); print(names())\n"
    )
    assert python(*PLAIT, "app.py") == (
        0,
        "['MainThread']\n['MainThread', 'plait-monitor', 'plait-ps']\n1\n['MainThread']\n",
        "",
    )


@pytest.mark.parametrize("start", [plait.run, lambda main: in_loop(plait.new_event_loop(), main)], ids=["run", "loop"])
def test_watch_main(start: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    async def threads() -> tuple[list[str], list[str]]:
        before = [thread.name for thread in plait_threads()]
        assert await plait.spawn(value(1)) == 1
        return before, [thread.name for thread in plait_threads() if thread.name == "plait-monitor"]

    for switch in (None, "1"):
        if switch is not None:
            monkeypatch.setenv("PLAIT_WATCH_MAIN", switch)
        assert start(threads()) == (["plait-monitor", "plait-ps"], ["plait-monitor"])
        assert plait_threads() == []
    monkeypatch.setenv("PLAIT_WATCH_MAIN", "0")
    assert start(threads()) == ([], ["plait-monitor"])
    monkeypatch.setenv("PLAIT_WATCH_MAIN", "1")
    monkeypatch.setenv("PLAIT_MONITOR", "0")
    assert start(threads()) == ([], [])


def in_loop(loop: Any, main: Any) -> Any:
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


def test_a_runner_s_monitor_stays_for_all_of_its_runs() -> None:
    async def monitor() -> int | None:
        return next(thread.ident for thread in plait_threads() if thread.name == "plait-monitor")

    with plait.Runner() as runner:
        assert runner.run(monitor()) == runner.run(monitor())
    assert plait_threads() == []


def test_a_fork_between_two_runs_is_watched_anew(app: App, python: Python) -> None:
    app(
        "import asyncio, os, time, warnings, plait\n"
        "warnings.simplefilter('ignore')\n"
        "stalls = []\n"
        "loop = plait.new_event_loop(on_stall=stalls.append)\n"
        "async def block():\n"
        "    while not stalls: time.sleep(0.2)\n"
        "    return stalls.pop().state\n"
        "async def spawn(): return await plait.spawn(asyncio.sleep(0, 2))\n"
        "loop.run_until_complete(asyncio.sleep(0))\n"
        "child = os.fork()\n"
        "if child == 0: print(loop.run_until_complete(block()), loop.run_until_complete(spawn()), flush=True)\n"
        "else: print(os.waitstatus_to_exitcode(os.wait()[1])); print(loop.run_until_complete(block()))\n"
        "loop.close()\n"
    )
    code, out, err = python("app.py")
    assert (code, out) == (0, "began 2\n0\nbegan\n"), err


# Programs with another loop

OTHER_LOOPS = {
    "a loop": "loop = asyncio.SelectorEventLoop(); loop.run_until_complete(main()); loop.close()",
    "a factory": "\nwith asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner: runner.run(main())",
    "a thread": (
        "import threading; loop = asyncio.SelectorEventLoop(); thread = threading.Thread(target=loop.run_until_complete, "
        "args=(main(),)); thread.start(); thread.join(); loop.close()"
    ),
}


@pytest.mark.parametrize("kind", OTHER_LOOPS)
def test_a_program_with_another_loop_is_told_so_once(kind: str, app: App, python: Python, tmp_path: Path) -> None:
    start = OTHER_LOOPS[kind]
    app(
        "import asyncio, plait\n"
        "async def main():\n"
        "    try: plait.spawn(None)\n"
        "    except RuntimeError as error: print(error)\n"
        f"{start}\n{start}\nasyncio.run(asyncio.sleep(0))\n"
    )
    code, out, err = python(*PLAIT, "app.py")
    assert code == 0, err
    assert err.startswith(
        "plait does not serve this program, whose loop is asyncio.unix_events._UnixSelectorEventLoop (run at "
    )
    assert err.endswith("name `plait.new_event_loop`\n") and err.count("\n") == 1
    assert (f"(run at {tmp_path}/app.py:" in err) == (kind != "a thread")
    assert out.count("plait.run(main()), or have what runs it make plait's loop: asyncio.Runner(loop_factory=") == 2


def test_what_a_package_runs_is_told_with_its_option(app: App, python: Python, tmp_path: Path) -> None:
    for name in ("uvicorn", "uvloop"):
        (tmp_path / "site-packages" / name).mkdir(parents=True)
        (tmp_path / "site-packages" / name / "__init__.py").write_text(
            "import asyncio\ndef run(main): asyncio.SelectorEventLoop().run_until_complete(main)\n"
        )
        app(f"import sys; sys.path.append('site-packages')\nimport {name}, asyncio\n{name}.run(asyncio.sleep(0))\n")
        code, out, err = python("-W", "ignore", *PLAIT, "app.py")
        assert (code, out) == (0, "")
        assert f"(run at {tmp_path}/app.py:3 in <module>)" in err
        assert ("--loop plait:new_event_loop" if name == "uvicorn" else "asyncio.run(main())") in err


# The command line


def test_options(app: App, python: Python) -> None:
    app(
        "import asyncio, os, sys, plait\n"
        "async def main():\n"
        "    await plait.spawn(asyncio.sleep(0))\n"
        "    print(len(plait.stats().queued), plait.stats().max_threads, os.environ.get('PLAIT_HANDOFF_AFTER'), sys.argv)\n"
        "asyncio.run(main()); plait.run(main()); plait.run(main(), workers=1)\n"
    )
    code, out, err = python(*PLAIT, "--workers", "3", "--handoff-after=0.5", "--max-threads", "9", "app.py", "--workers", "8")
    line = " 9 0.5 ['app.py', '--workers', '8']\n"
    assert (code, out) == (0, f"3{line}3{line}1{line}"), err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required"),
        (["walk"], "invalid choice"),
        (["run"], "which program?"),
        (["run", "-m"], "which program?"),
        (["run", "--workers", "many", "app.py"], "--workers: invalid int value: 'many'"),
        (["run", "--workers", "0", "app.py"], "workers=0: it must be 1 or more"),
        (["run", "--handoff-after", "-1", "app.py"], "handoff_after=-1.0: it must be 0.0 or more"),
        (["run", "--handoff-after", "nan", "app.py"], "handoff_after=nan"),
        (["run", "--workers", "4", "--max-threads", "2", "app.py"], "max_threads=2 is less than workers=4"),
        (["run", "--shutdown-grace", "-1", "app.py"], "shutdown_grace=-1.0: it must be 0.0 or more"),
        (["run", "--wrokers", "4", "app.py"], "unrecognized arguments: --wrokers"),
    ],
)
def test_bad_usage(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    said = capsys.readouterr()
    assert (stop.value.code, said.out) == (2, "")
    assert says in said.err
    assert said.err.startswith("usage: plait")


def test_a_file_that_is_not_there(python: Python, tmp_path: Path) -> None:
    message = f"can't open file '{tmp_path}/gone.py': [Errno 2] No such file or directory\n"
    code, out, err = python("gone.py")
    assert (code, out) == (2, "")
    assert err.endswith(message)
    assert python(*PLAIT, "gone.py") == (2, "", f"plait: {message}")


def printed(arguments: list[str], capsys: Any) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    said = capsys.readouterr()
    assert (stop.value.code, said.err) == (0, "")
    return str(said.out)


def test_help_says_what_it_does_not_do(capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(["run", "--help"], capsys)
    for words in (
        "isolates nothing",
        "one strand",
        "plait.spawn",
        "plait.stalls",
        "--workers",
        "--handoff-after",
        "--max-th",
        "--shutdown-g",
    ):
        assert words in said
    assert "run a program" in printed(["--help"], capsys)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(["--version"], capsys).startswith(f"plait {plait.__version__} (CPython 3.")
