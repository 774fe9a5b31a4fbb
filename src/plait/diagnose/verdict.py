"""The verdict: why a step takes so long.

    gc         the garbage collector ran on its thread
    gil        it called something that kept the GIL all the while, so that no other thread could run (gaps.py)
    cpu        it computes: half of the time or longer, or for longer than a step may take
    host       it was ready but the machine gave it no core
    blocked    its thread sleeps in a system call; `detail` names it
    lock       its thread waits for a lock, an event, another thread; `detail` names who holds it, where that is known
    starved    it was ready but other threads had the GIL
    executor   calls wait for a thread of the executor, and all are busy (report.py)

They are looked for in this order. On a GIL build a thread that sleeps in a futex may wait for a lock or for the GIL. Who waits
for the GIL wakes every switch interval; who has not used its processor for several of them waits for a lock.
"""

from __future__ import annotations

import re
import sys
import threading
from dataclasses import dataclass
from typing import Any

from plait._rt.ground.code_origin import is_librarys
from plait._rt.ground.thread_probe import FUTEX
from plait.diagnose import garbage
from plait.diagnose.capture import FREE_THREADED, Frame, frame_of
from plait.diagnose.syscalls import name_of

_MOST = 0.5  # the part of a step's time that decides
_LONG = 0.100  # seconds of computing that are too long whatever else happened
_WAITS = {"acquire", "wait", "wait_for", "join", "get", "put", "result", "shutdown", "as_completed", "recv", "map"}
_WAITING_MODULES = re.compile(r"/(threading|queue|concurrent/futures/\w+|multiprocessing/\w+)\.py$")
_OWNER = re.compile(r"owner=(\d+)")
_RLOCK = type(threading.RLock())
OTHERS_DOING = ("starved", "host")
"""Verdicts that are not the step's doing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Kind and detail, as above."""

    kind: str
    detail: str = ""


def judge(watch: Any, now: float) -> Verdict:
    """Why the step that watch is of has not ended by now; some system calls, and no look at its stack."""
    probe = watch.probe
    took = max(now - watch.since - watch.excused, 1e-9)
    if garbage.seconds_since(probe.ident, watch.since, now) >= _MOST * took:
        return Verdict("gc")
    until = watch.kept_until if watch.caught else now  # by now it may have it again
    if watch.kept_gil > 0 and watch.kept_gil >= _MOST * (until - watch.since - watch.excused):
        return Verdict("gil")
    if probe.cpu_ns() < 0:
        return Verdict("blocked", "or computes: this system does not tell")
    cpu = watch.computed()
    if cpu >= min(_MOST * took, _LONG):
        return Verdict("cpu")
    if (probe.schedule()[0] - watch.first_wait) / 1e9 >= _MOST * (took - cpu):
        return Verdict("host")
    if probe.sleeps():
        number = probe.system_call()
        if number is not None and number != FUTEX:
            return Verdict("blocked", name_of(number))
        rested = probe.cpu_ns() == probe.noted and now - watch.ran_at > max(0.020, 4 * sys.getswitchinterval())
        if FREE_THREADED or rested:
            return Verdict("lock" if number == FUTEX else "blocked")
    return Verdict("host" if FREE_THREADED else "starved")  # it is awake, or has been just now


def calls_a_wait(stack: list[Frame], call: str | None) -> bool:
    """Does the innermost frame wait for another thread?"""
    if stack and _WAITING_MODULES.search(stack[0].file) and stack[0].function not in ("is_set", "locked"):
        return True
    if stack and is_librarys(stack[0].file):
        return False
    return call is not None and (call.startswith("with ") or call.rpartition(".")[2] in _WAITS)


def holder_of(ident: int, call: str | None) -> str:
    """Who holds the lock that a thread waits for. Re-entrant locks tell; a thread that is joined is known by itself.

    (Only on a GIL build: to read another thread's variables on a free-threaded one, all threads would have to stop.)
    """
    if FREE_THREADED:
        return ""
    with frame_of(ident) as frame:
        while frame is not None:
            for value in _named(frame, call):
                if isinstance(value, threading.Thread):
                    return f"waits for thread {value.name}"
                lock = getattr(value, "_lock", None) if type(value) is threading.Condition else value
                owner = _OWNER.search(repr(lock)) if type(lock) is _RLOCK else None
                if owner is not None and owner[1] != "0":
                    return f"held by thread {_thread_name(int(owner[1]))}"
            if not is_librarys(frame.f_code.co_filename):
                break
            frame = frame.f_back
    return ""


def _named(frame: Any, call: str | None) -> list[Any]:
    """The object whose method is called, read without running anything of the user's; and `self` in the library's frames."""
    if is_librarys(frame.f_code.co_filename):
        return [frame.f_locals.get("self")]
    path = (call or "").removeprefix("with ")
    names = path.split(".")[: -1 if not (call or "").startswith("with ") else None]
    if not names or not all(name.isidentifier() for name in names):
        return []
    value = frame.f_locals.get(names[0], frame.f_globals.get(names[0]))
    for name in names[1:]:
        value = getattr(value, "__dict__", {}).get(name)
    return [value]


def _thread_name(ident: int) -> str:
    return next((thread.name for thread in threading.enumerate() if thread.ident == ident), str(ident))
