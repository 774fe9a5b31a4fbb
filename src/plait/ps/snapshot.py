"""Snapshot: what the threads and tasks of some runtimes do just now, as plain data.

It is made on a thread of its own while everybody goes on, so it is no instant of the program's: a task may have moved on
between two lines of it. What is suspended is read by whoever has the turn of its strand, for otherwise it might be resumed
under the reader's eyes, which a free-threaded build doesn't survive:

    an idle strand     we take the turn (strand.py), read, and give it back
    a busy one         is asked: a look is posted to it (and wakes it, if it sleeps at a poller of its own)
    a stuck one        doesn't get to the look in time. Under a GIL it is read all the same. Without one: a strand with its own
                       thread has the look in front of all that it will run, where it waits until we have read (all but what
                       it runs now); of a pooled one we tell only where its tasks begin
    what runs          is told by its thread's stack (capture.py)
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from asyncio import Handle, current_task
from collections.abc import Sequence
from types import CodeType
from typing import Any

from plait._rt.ground.clock import Clock
from plait._rt.ground.code_origin import is_librarys, is_plaits
from plait._rt.strand.carrier import Carrier
from plait._rt.strand.strand import Strand
from plait._rt.strand.thread_strand import ThreadStrand
from plait._rt.task.call_graph import awaiter_of, set_of
from plait._rt.task.join import Join
from plait._rt.task.registry import registered_tasks, unlisted_tasks
from plait._rt.task.task import Task, task_of
from plait._rt.task.waiter import Waiter
from plait.diagnose.capture import FREE_THREADED, Frame, stack_of
from plait.diagnose.step import callback_name, inside

FORMAT = 1
PATIENCE = 0.1  # seconds for busy strands to come to their looks, all together
MOST_FRAMES = 200  # of one coroutine
_TRIES = 3  # to get a thread's stack


def snapshot(pools: list[Any]) -> dict[str, Any]:
    """All of it; numbers stand for tasks, in all runtimes together."""
    numbers = _Numbers()
    return {
        "format": FORMAT,
        "pid": os.getpid(),
        "python": sys.version.split()[0],
        "free_threaded": FREE_THREADED,
        "runtimes": [_runtime(pool, numbers) for pool in pools],
    }


class _Numbers:
    """One for each task. It keeps the tasks: an id is used again when its object is gone."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, Any]] = {}
        self._next = itertools.count(1)

    def of(self, task: Any) -> int:
        """The number of task."""
        if id(task) not in self._known:
            self._known[id(task)] = next(self._next), task
        return self._known[id(task)][0]


class _Running:
    """A thread in the middle of a turn."""

    def __init__(self, carrier: Carrier, strand: Strand) -> None:
        self.task = _task_in(carrier, strand)
        self.thread = carrier.name
        self.what = None if self.task is not None else _callback_in(carrier)
        stack = next(filter(None, (stack_of(carrier.probe) for _ in range(_TRIES))), [])
        moved_on = _task_in(carrier, strand) is not self.task
        self.stack = [] if moved_on else inside(stack)[::-1]  # outermost first


def _runtime(pool: Any, numbers: _Numbers) -> dict[str, Any]:
    running = {carrier: _Running(carrier, turn[0]) for carrier, turn in list(pool.turns())}
    known = _read_all(_tasks_by_strand(pool, numbers), numbers)
    for each in running.values():
        if each.task in known:
            known[each.task].update(state="running", thread=each.thread, waits_for=None)
            known[each.task]["stack"] = _told(each.stack) or known[each.task]["stack"]
    return {
        "name": repr(pool.main),
        "queued": pool.queued(),
        "threads": [_thread(pool, carrier, running.get(carrier), numbers) for carrier in _carriers(pool)],
        "tasks": sorted(known.values(), key=lambda told: told["number"]),
    }


# Threads


def _carriers(pool: Any) -> list[Carrier]:
    """The main strand's first, the workers last."""
    there = [carrier for carrier in pool.carriers() if carrier.pooled or carrier.home is not None]
    return sorted(there, key=lambda carrier: carrier.pooled)


def _thread(pool: Any, carrier: Carrier, running: _Running | None, numbers: _Numbers) -> dict[str, Any]:
    home = carrier.home
    if running is not None:
        state = "running"
    elif home is not None:
        state = "idle" if home.is_running() else "not running"
    else:
        state = "spare" if carrier in pool.spares else "idle"
    return {
        "thread": carrier.name,
        "strand": None if home is None else _strand_name(home),
        "processor": None if carrier.proc is None else carrier.proc.number,
        "state": state,
        "task": numbers.of(running.task) if running is not None and running.task is not None else None,
        "callback": running.what if running is not None else None,
        "stack": _told(running.stack) if running is not None else [],
    }


def _task_in(carrier: Carrier, strand: Strand) -> Any:
    """The task whose step carrier makes: plait's, or asyncio's own, whose steps are callbacks."""
    task = carrier.task()
    return task if task is not None or _callback_in(carrier) is None else current_task(strand)  # type: ignore[arg-type]


def _callback_in(carrier: Carrier) -> str | None:
    item = carrier.item
    return callback_name(item) if isinstance(item, Handle | Task) and task_of(item) is None else None


# Tasks


def _tasks_by_strand(pool: Any, numbers: _Numbers) -> dict[Strand | None, list[Any]]:
    """The tasks of a runtime that are not done, the main strand's first; None has those that no worker has started yet."""
    found: dict[Any, None] = dict.fromkeys((*registered_tasks(), *unlisted_tasks(), *pool.all_tasks()))
    by_strand: dict[Strand | None, list[Any]] = {pool.main: []}
    for task in found:
        strand = task._home if isinstance(task, Task) else task.get_loop()
        ours = strand is None or (isinstance(strand, Strand) and strand._pool is pool)
        if ours and not task.done():
            by_strand.setdefault(strand, []).append(task)
    for task in itertools.chain.from_iterable(by_strand.values()):
        numbers.of(task)
    return by_strand


def _read_all(tasks: dict[Strand | None, list[Any]], numbers: _Numbers) -> dict[Any, dict[str, Any]]:
    known: dict[Any, dict[str, Any]] = {}
    looks = []
    for strand, theirs in tasks.items():
        if not theirs:
            continue
        look = _Look(strand, theirs, numbers)
        if strand is None or not look.take_turn():
            looks.append(look)
            look.post()
        known.update(look.found)
    until = Clock.monotonic() + PATIENCE
    for look in looks:
        known.update(look.result(until))
    return known


class _Look:
    """A reading of one strand's tasks, by the holder of its turn."""

    def __init__(self, strand: Strand | None, tasks: list[Any], numbers: _Numbers) -> None:
        self._strand, self._tasks, self._numbers = strand, tasks, numbers
        self._reading = threading.Lock()  # held while the tasks are read, by either side
        self._done = threading.Event()
        self._late = False
        self.found: dict[Any, dict[str, Any]] = {}

    def take_turn(self) -> bool:
        """Read now, if the strand is idle."""
        strand: Any = self._strand
        return bool(strand._run_if_idle(self._take))

    def _take(self) -> None:
        self.found = self._read()

    def post(self) -> None:
        """Have it read by the strand."""
        strand: Any = self._strand
        if isinstance(strand, ThreadStrand):
            strand._ready.appendleft(self)  # type: ignore[attr-defined]
            if strand._parked:
                strand._ring()
        elif strand is not None:
            strand._post(self)

    def _run(self) -> None:
        """As an item of the strand's queue."""
        with self._reading:
            if self._late:
                return
            try:
                self.found = self._read()
            except Exception:  # no concern of the strand's: who asked will read, fail, and say so
                return
            self._done.set()

    def result(self, until: float) -> dict[Any, dict[str, Any]]:
        """What was found; if nobody comes to look, what can be said from outside."""
        if self._strand is not None and self._strand.is_running():
            self._done.wait(max(0.0, until - Clock.monotonic()))
        with self._reading:
            if not self._done.is_set():
                self._late = True
                self.found, self._tasks = self._read(self._hidden()), []  # the look may stand in the queue for long
            return self.found

    def _hidden(self) -> list[Any]:
        """The tasks that may be resumed while we read."""
        strand = self._strand
        if not FREE_THREADED:
            return []
        return [_task_in(strand.carrier, strand)] if isinstance(strand, ThreadStrand) else self._tasks

    def _read(self, hidden: Sequence[Any] = ()) -> dict[Any, dict[str, Any]]:
        shallow = set(map(id, hidden))
        tasks = [task for task in self._tasks if not task.done()]
        return {task: _task(task, self._strand, id(task) not in shallow, self._numbers) for task in tasks}


def _task(task: Any, strand: Strand | None, deep: bool, numbers: _Numbers) -> dict[str, Any]:
    waits = task._waiting_for if isinstance(task, Task) else task._fut_waiter if deep else None
    calls = _calls(task.get_coro(), deep)
    return {
        "number": numbers.of(task),
        "name": task.get_name(),
        "kind": type(task).__name__ if isinstance(task, Task) else "asyncio.Task",
        "strand": None if strand is None else _strand_name(strand),
        "state": "queued" if waits is None else "waiting",
        "thread": None,
        "waits_for": None if waits is None else _what(waits, calls),
        "spawned_at": getattr(task, "spawn_site", None),
        "stack": _told([frame for frame, _ in calls]),
        "awaited_by": sorted(numbers.of(awaiter) for awaiter in _awaiters(task, deep)),
    }


def _strand_name(strand: Strand) -> str:
    return "main" if strand._pool.main is strand else repr(strand)


def _calls(coro: Any, deep: bool) -> list[tuple[Frame, str]]:
    """A suspended coroutine's calls, outermost first, each with its full name; not deep: the first."""
    calls: list[tuple[Frame, str]] = []
    while coro is not None and len(calls) < MOST_FRAMES:
        kind = next((kind for kind in ("cr", "gi", "ag") if isinstance(getattr(coro, f"{kind}_code", None), CodeType)), None)
        if kind is None:  # no coroutine of the interpreter's
            break
        code: CodeType = getattr(coro, f"{kind}_code")
        frame = getattr(coro, f"{kind}_frame") if deep else None
        line = code.co_firstlineno if frame is None else frame.f_lineno or code.co_firstlineno
        module = "" if frame is None else f"{frame.f_globals.get('__name__', '')}".partition(".")[0] + "."
        calls.append((Frame(code.co_filename, line, code.co_name), f"{module}{code.co_qualname}"))
        coro = getattr(coro, f"{kind}_yieldfrom" if kind == "gi" else f"{kind}_await") if deep else None
    return calls


def _what(waits: Any, calls: list[tuple[Frame, str]]) -> str:
    """What a task waits for, in a word: a task, or the library's function that the user's code awaits, or a bare future."""
    if isinstance(waits, Join):
        return f"task {waits._task.get_name()}"
    if isinstance(waits, Waiter):
        return waits.what
    inner = itertools.takewhile(lambda call: not _is_users(call[0]), reversed(calls))
    names = [name for _, name in inner]
    return names[-1] if names else f"{type(waits).__module__.strip('_')}.{type(waits).__qualname__}"


def _awaiters(task: Any, deep: bool) -> Any:
    if isinstance(task, Task):
        return task._asyncio_awaited_by or ()
    if not deep:
        return ()
    if hasattr(task, "_asyncio_awaited_by"):  # from 3.14 on
        return task._asyncio_awaited_by or ()
    return set_of(awaiter_of(call) for call, _ in task._callbacks or ()) or ()


def _is_users(frame: Frame) -> bool:
    return not (is_plaits(frame.file) or is_librarys(frame.file))


def _told(stack: list[Frame]) -> list[dict[str, Any]]:
    """The user's frames; all of them where none is the user's."""
    told = [frame for frame in stack if _is_users(frame)] or stack
    return [{"function": frame.function, "file": frame.file, "line": frame.line} for frame in told]
