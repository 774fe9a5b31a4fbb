"""Program: somebody's program, run in this process as `python` would run it.

What Python does for `python app.py` is done here: argv, `sys.path[0]`, a `__main__` of its own in `sys.modules` (pickle and
multiprocessing look there, also while the interpreter ends). What the program raises goes on to the interpreter, which
prints it and finds the exit code, SIGINT included; only our frames are taken off the top of the traceback.
"""

from __future__ import annotations

import asyncio
import builtins
import importlib
import importlib.machinery
import io
import os
import pkgutil
import re
import sys
import types
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from plait._rt.ground.code_origin import is_plaits
from plait._rt.ground.cpython import main_runner
from plait._rt.strand.thread_strand import ThreadStrand
from plait._rt.task.task import Task
from plait.runtime import run

_CALLABLE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
_BETWEEN = ("<frozen importlib", *(os.path.dirname(str(package.__file__)) + os.sep for package in (asyncio, importlib)))
_RESULTS = (Task.result.__code__, Task._raised.__code__, Task.exception.__code__, ThreadStrand.run_until_complete.__code__)


class NoSuchProgram(Exception):
    """There is nothing to run; the text says why."""


def names_callable(target: str) -> bool:
    """Does it read `package.module:function`, and is no file of that name there?"""
    return _CALLABLE.fullmatch(target) is not None and not os.path.exists(target)


def run_file(file: str, args: list[str]) -> None:
    """As `python file args`: a script, or a folder or zip file with a `__main__.py`."""
    sys.argv = [file, *args]
    if pkgutil.get_importer(file) is not None:  # a folder or a zip file
        _set_first_path(_full(file), always=True)
        return _run_as_main("__main__", alter_argv=False)
    try:
        content = _read(file)
    except OSError as error:
        raise NoSuchProgram(f"can't open file {_full(file)!r}: [Errno {error.errno}] {error.strerror}") from None
    _set_first_path(os.path.dirname(os.path.realpath(file)))
    _run_script(content, _full(file))
    return None


def run_module(name: str, args: list[str]) -> None:
    """As `python -m name args`."""
    sys.argv = ["-m", *args]
    _set_first_path(os.getcwd())
    _run_as_main(name, alter_argv=True)


def run_callable(target: str, args: list[str]) -> Any:
    """Import and call `package.module:function`, as console scripts do; run the coroutine if it gives one. Its result."""
    sys.argv = [target, *args]
    _set_first_path(os.getcwd())
    try:
        result = _find(target)
        if callable(result):
            result = result()
        return run(result) if asyncio.iscoroutine(result) else result
    except NoSuchProgram:
        raise
    except BaseException as error:
        _hide_frames(error, lambda file: is_plaits(file) or file.startswith(_BETWEEN))
        raise


def _find(target: str) -> Any:
    module, _, name = target.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise NoSuchProgram(f"{target}: {error}") from None
        raise  # it is there, and misses another
    try:
        return attrgetter(name)(found)
    except AttributeError as error:
        raise NoSuchProgram(f"{target}: {error}") from None


# As the interpreter does it


def _run_script(content: bytes | types.CodeType, file: str) -> None:
    main = _new_main()
    main.__file__ = file
    main.__loader__ = importlib.machinery.SourceFileLoader("__main__", file)
    try:
        code = content if isinstance(content, types.CodeType) else compile(content, file, "exec", dont_inherit=True)
        exec(code, main.__dict__)
    except BaseException as error:
        _hide_frames(error, lambda file: False)
        raise


def _run_as_main(name: str, alter_argv: bool) -> None:
    _new_main()
    try:
        main_runner()(name, alter_argv)
    except BaseException as error:
        _hide_frames(error, lambda file: file.startswith("<frozen "))
        raise


def _new_main() -> Any:
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    return main


def _set_first_path(folder: str, always: bool = False) -> None:
    """The folder of what is run, in place of the folder of the `plait` command; with `python -P` there is neither."""
    if not sys.flags.safe_path:
        sys.path[0] = folder
    elif always:
        sys.path.insert(0, folder)


def _full(file: str) -> str:
    return os.path.join(os.getcwd(), file)  # not normalised, as in Python


def _read(file: str) -> bytes | types.CodeType:
    """Its source, or its code if it is compiled."""
    with io.open_code(os.path.abspath(file)) as content:
        code: types.CodeType | None = pkgutil.read_code(content)  # type: ignore[attr-defined]
        if code is not None:
            return code
        content.seek(0)
        return content.read()


# Tracebacks


def _hide_frames(error: BaseException, ours: Callable[[str], bool]) -> None:
    """Have the interpreter print error without the caller's frame, what is outside of it, and the frames right below it whose
    files are ours."""
    assert error.__traceback__ is not None
    trace = error.__traceback__.tb_next
    while trace is not None and ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    _hide_results(error)
    hook = sys.excepthook  # the program's, if it has one

    def excepthook(kind: type[BaseException], raised: BaseException, _trace: types.TracebackType | None) -> None:
        sys.excepthook = hook
        hook(kind, raised.with_traceback(trace), trace)

    sys.excepthook = excepthook


def _hide_results(error: BaseException) -> None:
    """Leave out what asyncio does in C, without a trace: a task's result() raises what the task raised."""
    chain, known = [error], set()
    while chain:
        error = chain.pop()
        known.add(id(error))
        trace = error.__traceback__
        while trace is not None:
            while trace.tb_next is not None and trace.tb_next.tb_frame.f_code in _RESULTS:
                trace.tb_next = trace.tb_next.tb_next
            trace = trace.tb_next
        chain += [each for each in (error.__cause__, error.__context__) if each is not None and id(each) not in known]
