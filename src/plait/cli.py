"""The command `plait`, also `python -m plait`.

    plait run app.py [args]         as `python app.py`, served by plait where the program calls asyncio.run
    plait run -m pkg.mod [args]     as `python -m pkg.mod`
    plait run pkg.mod:main [args]   as a console script
    plait ps PID                    what the tasks of a running process do

Each subcommand is a function that adds its parser, and one that does it and returns what `sys.exit` takes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import threading
from typing import Any

import plait
from plait import program
from plait.defaults import serve_asyncio
from plait.ps.client import NoAnswer, ask
from plait.ps.tree import tree
from plait.settings import PARAMETERS, settings

USAGE = "plait run [options] (app.py | -m pkg.mod | pkg.mod:main) [args ...]"
RUN = """\
Run a program as python does, with plait's event loop where it calls asyncio.run, asyncio.Runner or
asyncio.new_event_loop without naming a loop of its own.

This isolates nothing by itself. Existing asyncio code stays in one strand, the main strand, on the main
thread: a task that blocks there still makes all others wait, as in asyncio. What you get is the report: the
logger plait.stalls says which line blocked, on stderr if the program has no logging of its own. What is to run
beside the rest, in parallel, needs plait.spawn (or plait.TaskGroup, plait.start_server).
"""
TARGETS = """\
program:
  app.py [args]          a script, as `python app.py`; also a folder or zip file with a __main__.py
  -m pkg.mod [args]      a module, as `python -m pkg.mod`
  pkg.mod:main [args]    a function, as console scripts call it: what it returns is the exit code, and if that
                         is a coroutine, plait.run runs it first

The options hold for every loop of plait's that names no value itself, and for child processes: they set
PLAIT_WORKERS, PLAIT_HANDOFF_AFTER, PLAIT_MAX_THREADS and PLAIT_SHUTDOWN_GRACE. Child processes that run python
are not served.
"""
PS = """\
Show what the threads and tasks of a running process do that runs plait: each task's state, where it was spawned, the
functions that it is in, and what awaits it. The process goes on meanwhile. It answers the same user and root, on Linux, once
plait's loop runs there.
"""


def main(argv: list[str] | None = None) -> Any:
    """What the command line says; returns what `sys.exit` takes. (argv: without the command's name.)"""
    parser = argparse.ArgumentParser(prog="plait", description="plait's command line", allow_abbrev=False)
    version = f"plait {plait.__version__} ({platform.python_implementation()} {platform.python_version()})"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(metavar="command", required=True)
    _add_run(commands)
    _add_ps(commands)
    chosen = parser.parse_args(argv)
    return chosen.act(chosen)


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="run a program, served by plait where it calls asyncio.run",
        usage=USAGE,
        description=RUN,
        epilog=TARGETS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workers", type=int, metavar="N", help="strands that may run at once")
    parser.add_argument("--handoff-after", type=float, metavar="S", help="seconds that a step may compute beside others")
    parser.add_argument("--max-threads", type=int, metavar="N", help="cap on the pool's threads")
    parser.add_argument("--shutdown-grace", type=float, metavar="S", help="seconds to wait at the end for a step that is stuck")
    # All that comes after the program is the program's.
    parser.add_argument("-m", dest="module", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(act=_run, parser=parser)


def _run(chosen: argparse.Namespace) -> Any:
    if not chosen.program:
        chosen.parser.error("which program?")
    target, *args = chosen.program
    _set_options(chosen)
    serve_asyncio()
    try:
        if chosen.module:
            return program.run_module(target, args)
        if program.names_callable(target):
            return program.run_callable(target, args)
        return program.run_file(target, args)
    except program.NoSuchProgram as error:
        print(f"plait: {error}", file=sys.stderr)
        return 2


def _set_options(chosen: argparse.Namespace) -> None:
    """Check the options, and hand them on in the environment: the program may make loops in more places than we see."""
    try:
        settings(**{name: getattr(chosen, name) for name in PARAMETERS})
    except ValueError as error:
        chosen.parser.error(str(error))
    for name in PARAMETERS:
        if getattr(chosen, name) is not None:
            os.environ[f"PLAIT_{name.upper()}"] = str(getattr(chosen, name))


def _add_ps(commands: Any) -> None:
    parser = commands.add_parser(
        "ps",
        help="show the tasks of a running process",
        description=PS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--timeout", type=_seconds, default=5.0, metavar="S", help="seconds for it to take notice (5)")
    parser.add_argument("pid", type=_pid, metavar="PID", help="the process")
    parser.set_defaults(act=_ps)


def _pid(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no process number")
    return int(text)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r}: it must be more than 0, and finite")
    return seconds


def _ps(chosen: argparse.Namespace) -> int:
    try:
        answer = ask(chosen.pid, chosen.timeout)
    except NoAnswer as reason:
        print(f"plait: {reason}", file=sys.stderr)
        return 1
    print(json.dumps(answer, indent=2) if chosen.json else tree(answer))
    return 0
