"""Capture the stack of one thread without stopping the others.

On a free-threaded build `sys._current_frames()` stops the world, which can take as long as the longest C call (1.2 s was
seen on 3.13t): there the thread is sent a signal whose handler, `faulthandler`'s, writes its own stack into a memory file
(0.2-0.4 ms, and it stops nobody). On a GIL build `sys._current_frames()` is cheap and tells the exact call as well.

A signal is sent under the lock that the thread's exit takes (thread_probe.py, K1): signalling a finished thread crashes.
"""

from __future__ import annotations

import faulthandler
import itertools
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from plait._rt.ground import forks
from plait._rt.ground.build import GIL_BUILD
from plait._rt.ground.clock import Clock
from plait._rt.ground.cpython import _current_frames
from plait.diagnose.collector import held_off

Call = tuple[CodeType, int]  # and the instruction that it is at

FREE_THREADED = not GIL_BUILD()
COLLECTS_BETWEEN_STEPS = sys.version_info >= (3, 12)  # the collector; of steps of the interpreter's
SIGNAL: int = signal.SIGRTMAX - 5 if hasattr(signal, "SIGRTMAX") and hasattr(faulthandler, "register") else 0
_LINE = re.compile(rb'  File "(.*)", line (\d+) in (.*)')
_RECENT = 0.090  # seconds; an answer to a question asked since then is of the same step, which has lasted longer
_SPIN = 0.000_05  # seconds; less than the switch interval ever is (switch_interval.py)
_LOOKING = 0.002  # seconds; what a report of the monitor's may take
_PATIENCE = 0.005  # seconds to wait for an answer: a thread that gets no core, or sleeps deeply (D), gives none
_lock = threading.Lock()
_file: int | None = None
_owing: Any = None  # the probe of a thread that has not answered yet: what comes next would be taken for another's
_asked_at = 0.0


@dataclass(frozen=True, slots=True)
class Frame:
    """One call on a stack, innermost first in a list of them."""

    file: str
    line: int
    function: str
    position: tuple[int, int, int, int] | None = None
    """Where the running call stands in the source: line, end line, column, end column; None where it isn't known."""


def stack_of(probe: Any) -> list[Frame]:
    """The stack of a thread (given as its probe), innermost first; empty when it has ended or did not answer."""
    if not FREE_THREADED or not SIGNAL:  # there is no other way then
        return frames_of(calls_of(probe.ident))
    forks.in_child(_after_fork)
    if not _lock.acquire(False):  # another runtime's monitor asks just now, and may be in a finaliser that waits for this one
        return []
    try:
        return _from_signal(probe)
    finally:
        _lock.release()


def _after_fork() -> None:
    """In the child: the file and the turn are the parent's. The handler writes to it until another is asked for here."""
    global _file, _lock, _owing
    _lock = threading.Lock()
    _owing = None
    if _file is not None:
        faulthandler.unregister(SIGNAL)
        os.close(_file)
        _file = None


@contextmanager
def frame_of(ident: int) -> Iterator[FrameType | None]:
    """The innermost frame of thread ident, and time to walk from there; None if it has ended. Not on a free-threaded build.

    Up to 3.11 the collector runs where something is allocated: in the middle of `f_back`, where a finaliser may let go of the
    GIL. Then the thread goes on, and the interpreter crashes at its frame, which is no more. Or in the middle of
    `_current_frames`, which has a lock then that each thread takes that begins or ends. So the collector is held off meanwhile;
    while another thread does so the answer is None.
    """
    if COLLECTS_BETWEEN_STEPS:
        yield _current_frames().get(ident)
    else:
        with held_off() as held:
            yield _current_frames().get(ident) if held else None


def calls_of(ident: int) -> list[Call]:
    """What thread ident runs, in a few microseconds and without letting go of the GIL (where there is one)."""
    with frame_of(ident) as frame:
        return calls_from(frame)


def calls_if_native(probe: Any) -> list[Call]:
    """What the thread runs, if that is a C call that computes without the GIL; else [], where the machine lets us tell.

    While we have the GIL, whose clock goes on is in such a call, and who waits for the GIL may have just come out of any.
    """
    until = Clock.monotonic() + _LOOKING
    while Clock.monotonic() < until:
        calls, began, clock = calls_of(probe.ident), Clock.monotonic(), probe.cpu_ns()
        took = 0.0
        while took < _SPIN:
            took = Clock.monotonic() - began
        if took < 2 * _SPIN and probe.cpu_ns() - clock > took * 0.5e9:  # if it took longer we may have lost the GIL meanwhile
            return calls
        Clock.sleep(_SPIN)  # it may be that it gets no core
    return []


def calls_from(frame: FrameType | None) -> list[Call]:
    """The calls on the stack from frame outwards."""
    calls = []
    while frame is not None:
        calls.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return calls


def frames_of(calls: list[Call]) -> list[Frame]:
    """The frames of such calls."""
    return [_frame_of(code, lasti) for code, lasti in calls]


def _frame_of(code: CodeType, lasti: int) -> Frame:
    place: Any = next(itertools.islice(code.co_positions(), max(lasti, 0) // 2, None), (None,))
    return Frame(code.co_filename, place[0] or code.co_firstlineno, code.co_name, None if None in place else place)


def _from_signal(probe: Any) -> list[Frame]:
    global _asked_at, _file, _owing
    if _file is None:
        try:
            _file = _memory_file()
        except OSError:  # there is no descriptor left
            return []
        faulthandler.register(SIGNAL, file=_file, all_threads=False, chain=False)
    if _owing is not None and _owing.alive:
        late = _answer(_file)
        if not late:
            return []
        if _owing is probe and Clock.monotonic() - _asked_at < _RECENT:
            _owing = None
            return _frames_in(late)
    _owing = None
    os.ftruncate(_file, 0)
    os.lseek(_file, 0, os.SEEK_SET)
    with probe.life:
        if not probe.alive:
            return []
        _asked_at = Clock.monotonic()
        signal.pthread_kill(probe.ident, SIGNAL)
    text = _answer(_file)
    if not text:
        _owing = probe
    return _frames_in(text)


def _frames_in(text: bytes) -> list[Frame]:
    return [Frame(_name(file), int(line), _name(name)) for file, line, name in _LINE.findall(text)]


def _memory_file() -> int:
    """A file for the handler to write to: in memory where the system has such, else a temporary one."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("plait-stacks", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _answer(file: int) -> bytes:
    """What the handler wrote; b"" if it did not begin in time."""
    text, size, until = b"", -1, Clock.monotonic() + _PATIENCE
    while Clock.monotonic() < until or text:  # until it stops growing
        Clock.sleep(0.0003)
        text = os.pread(file, 1 << 16, 0)
        if text and len(text) == size:
            break
        size = len(text)
    return text


def _name(text: bytes) -> str:
    """faulthandler writes what is not ASCII as Python's escapes."""
    return text.decode("unicode_escape") if b"\\" in text else text.decode(errors="replace")
