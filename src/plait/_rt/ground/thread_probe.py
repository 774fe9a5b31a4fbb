"""Thread probe: what other threads may ask of a thread while it lives.

K1  Signals to the thread, and questions about it, are made under `life`, and its exit takes `life`: asking a finished
    thread crashes the interpreter. The clock id is saved by the thread itself; asked of a finished thread it answers
    EINVAL. The lock is held for a system call at most.

Only Linux tells all of this. Where nobody knows, the clock stands at -1, no thread sleeps or is in a system call, and none
waited for a core.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from plait._rt.ground.clock import Clock

MACHINE = os.uname().machine if hasattr(os, "uname") else ""
FUTEX = 202 if MACHINE == "x86_64" else 98
_clock_of = getattr(time, "pthread_getcpuclockid", None)


class ThreadProbe:
    """One thread, seen from others."""

    __slots__ = ("_clock", "_files", "alive", "begun", "ident", "life", "noted", "noted_schedule", "tid")

    def __init__(self) -> None:
        self.life = threading.Lock()
        self.alive = False
        self.ident = self.tid = -1
        self._clock: int | None = -1
        self._files: dict[str, int] = {}  # kept open: opening one takes longer than reading it
        self.begun = 0.0  # when, by our clock; a main strand's thread, its first run
        self.noted = 0  # its CPU clock at the monitor's last look; the monitor's own once the thread has begun
        self.noted_schedule = 0, 0

    def begin(self) -> None:
        """Called by the thread itself, first."""
        before, self.ident, self.tid = self.tid, threading.get_ident(), threading.get_native_id()
        self._clock = _clock_of(self.ident) if _clock_of is not None else None
        if self.tid != before:
            self.begun, self.noted, self.noted_schedule = Clock.monotonic(), self.cpu_ns(), (0, 0)
        self.alive = True

    def end(self) -> None:
        """Called by the thread itself, last: from now on nobody asks."""
        with self.life:
            self.alive = False
            while self._files:
                os.close(self._files.popitem()[1])

    def after_fork(self) -> None:
        """In the child, which has another thread of that name, or none."""
        self.life = threading.Lock()
        while self._files:
            os.close(self._files.popitem()[1])
        if self.alive and self.ident == threading.get_ident():
            self.begin()
        else:
            self.alive = False

    def cpu_ns(self) -> int:
        """Its CPU clock; -1 once it has ended. 1 us."""
        if self._clock is None:
            return -1
        try:
            return time.clock_gettime_ns(self._clock)
        except OSError:
            return -1

    def lower_priority(self, nice: int) -> None:
        """Have it run behind threads that are not as nice; if the system can, and allows it."""
        with self.life:
            if self.alive and hasattr(os, "setpriority") and sys.platform == "linux":  # elsewhere it means the process
                try:
                    os.setpriority(os.PRIO_PROCESS, self.tid, nice)
                except OSError:  # then they share the cores evenly
                    pass

    def sleeps(self) -> bool:
        """Does the kernel say that it sleeps (S or D)? 5 us."""
        return self._read("stat").rpartition(b")")[2][1:2] in (b"S", b"D")

    def waits_for_futex(self) -> bool:
        """Is it in the system call that locks, the GIL and a stopped world are waited for in?"""
        return self.system_call() == FUTEX

    def system_call(self) -> int | None:
        """The number of the system call that it is in, -1 for a page fault; None if it runs, or nobody knows."""
        try:
            return int(self._read("syscall").split(b" ", 1)[0])
        except ValueError:  # "running"
            return None

    def schedule(self) -> tuple[int, int]:
        """For how long in all it was ready to run and had no core, in ns, and how often it was given one. 5 us."""
        fields = self._read("schedstat").split()
        return (int(fields[1]), int(fields[2])) if len(fields) == 3 else (0, 0)

    def _read(self, name: str) -> bytes:
        with self.life:
            if not self.alive or not hasattr(os, "pread"):
                return b""
            try:
                if name not in self._files:
                    self._files[name] = os.open(f"/proc/self/task/{self.tid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
                return os.pread(self._files[name], 512, 0)
            except OSError:  # this kernel has no such file, or it is forbidden, or descriptors ran out
                return b""
