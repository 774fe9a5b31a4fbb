"""The settings of a runtime: from parameters, PLAIT_* in the environment, and defaults; whatever is wrong is refused here."""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Callable
from typing import Any

from plait._rt.ground.build import GIL_BUILD
from plait._rt.ground.cores import usable_cores
from plait._rt.io.poller import selector_names
from plait._rt.options import HANDOFF_AFTER, SHUTDOWN_GRACE, Options
from plait.diagnose.stall import Stall

PARAMETERS = ("workers", "handoff_after", "max_threads", "shutdown_grace")
"""Those of `plait.run` that the environment has as well."""
_OTHERS = ("MONITOR", "PS", "SELECTOR", "STALLS", "WATCH_MAIN")
_TESTS = ("BENCH_PYTHONS", "COMPAT_LOOP", "FREETHREADED", "LIBRARIES", "SEED", "SEEDS", "STRESS")
_FOR_TESTS = ("BENCH_", "FUZZ_", "TEST_")  # what begins like that is nobody's mistake


def settings(
    workers: int | None = None,
    handoff_after: float | None = None,
    max_threads: int | None = None,
    shutdown_grace: float | None = None,
    on_stall: Callable[[Stall], object] | None = None,
) -> Options:
    """The options of a runtime; ValueError or TypeError says what is wrong, and where it comes from."""
    _check_names()
    _check_on_stall(on_stall)
    _one_of("STALLS", "", ("text", "json"))
    cores = 1 if GIL_BUILD() else usable_cores()
    options = Options(
        workers=_setting("WORKERS", workers, int, cores, 1),
        handoff_after=_setting("HANDOFF_AFTER", handoff_after, float, HANDOFF_AFTER, 0.0),
        max_threads=_setting("MAX_THREADS", max_threads, int, 256, 1),
        shutdown_grace=_setting("SHUTDOWN_GRACE", shutdown_grace, float, SHUTDOWN_GRACE, 0.0),
        monitored=_switch("MONITOR"),
        answers=_switch("PS"),
        watch_main=_switch("WATCH_MAIN"),
        selector=_one_of("SELECTOR", "", selector_names()),
        on_stall=on_stall,
    )
    if options.max_threads < options.workers:
        raise ValueError(f"max_threads={options.max_threads} is less than workers={options.workers}")
    return options


def _check_names() -> None:
    """Refuse a PLAIT_ variable that nobody reads: it is a slip of the pen, and what it was to do would not be done."""
    known = sorted((*map(str.upper, PARAMETERS), *_OTHERS))
    for variable in os.environ:
        name = variable.removeprefix("PLAIT_")
        if name == variable or name in known or name in _TESTS or name.startswith(_FOR_TESTS):
            continue
        near = difflib.get_close_matches(name.upper(), known, 1)
        hint = f" (PLAIT_{near[0]}?)" if near else ""
        names = ", ".join(f"PLAIT_{each}" for each in known)
        raise ValueError(f"{variable} in the environment is no setting of plait's{hint}: there are {names}")


def _check_on_stall(on_stall: Any) -> None:
    if on_stall is None:
        return
    if not callable(on_stall):
        raise TypeError(f"on_stall takes a function that is called with a plait.Stall, got {on_stall!r}")
    if any(map(inspect.iscoroutinefunction, (on_stall, getattr(on_stall, "__call__", None)))):  # noqa: B004
        raise TypeError(
            f"on_stall={on_stall!r} is a coroutine function, and nobody would await it: it is called on a thread of its own. "
            f"Write a plain function; one that has to await something may use asyncio.run_coroutine_threadsafe(coro, loop)"
        )


def _one_of(name: str, default: str, known: Any) -> str:
    """PLAIT_<name> in the environment, which is a word; "" is as good as none."""
    text = os.environ.get(f"PLAIT_{name}", "")
    if text and text not in known:
        raise ValueError(f"PLAIT_{name}={text!r} in the environment: it may be {', '.join(known)}")
    return text or default


def _switch(name: str) -> bool:
    """PLAIT_<name> in the environment: on, unless it is 0."""
    return _one_of(name, "1", ("0", "1")) == "1"


def _setting(name: str, given: Any, kind: type, default: Any, least: Any) -> Any:
    """A parameter, else PLAIT_<name> in the environment, else default; checked."""
    origin = name.lower()
    if given is None and (text := os.environ.get(f"PLAIT_{name}")):
        origin = f"PLAIT_{name}"
        try:
            given = kind(text)
        except ValueError:
            raise ValueError(f"{origin}={text!r} in the environment is no {kind.__name__}") from None
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, int if kind is int else int | float):
        raise TypeError(f"{origin} takes {'an int' if kind is int else 'a float'}, got {given!r}")
    if not given >= least or given == math.inf:
        raise ValueError(f"{origin}={given!r}: it must be {least} or more, and finite")
    return given
