"""The stall report: a `Stall` for `on_stall`, and what the logger `plait.stalls` says.

A step that lasts longer than 0.1 s is reported while it lasts, as a warning; after 0.5 s again, as an error; and when it has
ended, with its duration. A place is reported once a minute: what it does in between is counted, and said in one line after the
minute or at the end. With PLAIT_STALLS=json each report is one line of JSON.

The monitor finds out what happens, in about a millisecond: it has others to see to. What takes longer (the source, the advice,
log handlers, `on_stall`) is done by a thread that lives while there is something to tell.

Ownership: all is the monitor's, but `_to_tell` and `_teller`, which `_lock` guards; nothing of the user's runs under it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import linecache
import logging
import math
import os
import threading
from asyncio import Handle
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from plait._rt.ground.clock import Clock
from plait._rt.ground.code_origin import is_installed, is_librarys, is_plaits
from plait._rt.ground.run_queue import items_of
from plait._rt.ground.threads import Thread
from plait._rt.task.task import Task
from plait.diagnose import garbage
from plait.diagnose.advice import advise
from plait.diagnose.capture import FREE_THREADED, Frame, calls_if_native, calls_of, frames_of, stack_of
from plait.diagnose.line import call_at
from plait.diagnose.logger import kept_logger
from plait.diagnose.verdict import OTHERS_DOING, Verdict, calls_a_wait, holder_of, judge

logger = kept_logger("plait.stalls")
kept_logger("plait")

MINUTE = 60.0
ERROR_AFTER = 0.5  # seconds; so long must it be, too, for a report of what is not the step's doing
SURE = 3  # stacks of tasks of one kind that led to the same place: then the place of others is taken for granted
ASKED = 20  # times, before a thread that gets no core is left alone
TELLING = 2.0  # seconds that the end of the run waits for slow log handlers and `on_stall`
_SAID = {
    "blocked": "has blocked its thread",
    "cpu": "has computed without a pause",
    "lock": "has waited for a lock",
    "gil": "kept the GIL, and all other threads waiting,",
    "gc": "was held up by the garbage collector",
    "starved": "has waited for the GIL, which other threads have,",
    "host": "has waited for a core of the machine, which is overloaded,",
    "executor": "keeps all threads of the executor busy; calls have waited",
}


@dataclass(frozen=True, slots=True)
class Stall:
    """A step that lasts too long: what `on_stall` is called with. `str(stall)` is what the logger says, `as_json()` a line.

    Frozen, so any thread may keep and read it. It has strings, numbers and frames, nothing of the program's.
    """

    file: str
    """The innermost place outside the standard library, plait and installed packages (if there is one)."""
    line: int
    function: str
    call: str | None
    """The call that doesn't return, as the source names it (`time.sleep`, `with lock`); None if that can't be told."""
    kind: str
    """The verdict: "blocked", "cpu", "lock", "gil", "gc", "starved", "host" or "executor" (docs/reports.md)."""
    detail: str
    """The system call, or who holds the lock, where known; else ""."""
    seconds: float
    """How long the step has lasted so far, or lasted in all; with "again" the longest of those not reported."""
    state: str
    """"began": it lasts, first report (after 0.1 s). "goes on": it lasts (after 0.5 s). "ended". "unfinished": it lasts, and
    the run ends. "again": a summary of what was not reported."""
    times: int
    """How often this place has stalled, this time included; with "again" how often it was not reported."""
    task: str
    """The task's name, or what else runs."""
    spawned_at: str | None
    """Where the task was spawned, "file:line in function"; None for a callback, and a task that was not spawned."""
    strand: str
    """The strand's repr; "" for the executor."""
    handed_off_after: float | None
    """Seconds until the processor went to another worker; 0.0 if it was given away before the step, because this place stalled
    before; None if it was not handed off, or not yet."""
    waiting: int
    """What waits behind it: strands that wait for a worker; in a strand with its own thread, items of that strand; for the
    executor, calls."""
    advice: str | None
    """What to write instead; None where nothing is known."""
    stack: tuple[Frame, ...]
    """The whole stack, innermost first: frames with `file`, `line`, `function`, and `position` where it is known; () for the
    executor."""

    def __str__(self) -> str:
        named = f" {self.call}" if self.call else ""
        head = f"{self.file}:{self.line}{named}"
        if self.state == "ended":
            return f"{head} is done after {_ms(self.seconds)}, in {self.function}() ({self.kind})"
        if self.state == "unfinished":
            lasts = f"is not done after {_ms(self.seconds)}, and the run ends"
            return f"{head} {lasts}, in {self.function}() ({self.kind})"
        if self.state == "again":
            return f"{head} stalled {self.times} times more, {_ms(self.seconds)} at worst, in {self.function}() ({self.kind})"
        detail = f" ({self.detail})" if self.detail else ""
        lines = [f"{head} {_SAID[self.kind]} for {_ms(self.seconds)}, in {self.function}(){detail}"]
        lines.append(f"  task {self.task}" + (f", spawned at {self.spawned_at}" if self.spawned_at else ""))
        lines.append(f"  {self._others()}" + (f"; stall number {self.times} of this place" if self.times > 1 else ""))
        if self.advice:
            lines.append(f"  instead: {self.advice}")
        source = linecache.getline(self.file, self.line).strip()
        if source:
            lines.append(f"  > {source}")
        return "\n".join(lines)

    def _others(self) -> str:
        if self.handed_off_after == 0.0:
            return "others go on: its processor was given away before, for it stalled here before"
        if self.handed_off_after is not None:
            return f"others go on: its processor was handed off after {self.handed_off_after * 1e3:.1f} ms"
        if self.strand.startswith(("<ThreadStrand", "<EventLoop")):
            return f"everything else in this strand waits: it keeps its thread ({self.waiting} waiting now)"
        return f"not handed off: {self.waiting} strand(s) wait"

    def as_json(self) -> str:
        """One line of JSON with these fields; the stack as "file:line function"."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["stack"] = [f"{frame.file}:{frame.line} {frame.function}" for frame in self.stack]
        return json.dumps(fields)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f} ms"


@dataclass(slots=True)
class _Place:
    """What is known of one place."""

    times: int = 0
    said_at: float = -MINUTE  # the last report
    error_at: float = -MINUTE
    unsaid: int = 0
    worst: Stall | None = None  # of those not said
    last: Stall | None = None
    at: Frame | None = None


class Reporter:
    """Makes the reports of one runtime."""

    def __init__(self, on_stall: Callable[[Stall], object] | None) -> None:
        garbage.loop_is_made()
        self._on_stall = on_stall
        self._places: dict[Any, _Place] = {}
        self._open: dict[Any, tuple[_Place, Stall, bool]] = {}  # watch -> its place, the last report, whether it was said
        self._sightings: dict[Any, list[_Place]] = {}  # kind of task and stall -> where the last ones were
        self._json = os.environ.get("PLAIT_STALLS") == "json"
        self._summary_at: float | None = None
        self._lock = threading.Lock()
        self._to_tell: deque[tuple[Stall, Frame | None, int]] = deque()
        self._teller: threading.Thread | None = None

    def anew(self) -> Reporter:
        """One as this was made."""
        return Reporter(self._on_stall)

    def start(self) -> None:
        """The monitor begins."""
        garbage.watch()

    def finish(self, pool: Any, watches: Iterable[Any]) -> None:
        """The monitor ends; what watches are of may go on."""
        garbage.unwatch()
        for watch in watches:
            self.ended(watch, "unfinished" if watch.item_is_under_way() else "ended")
        self.summarise(at_end=True)
        teller = self._teller
        if teller is not None:
            teller.join(TELLING)

    def catch(self, pool: Any) -> dict[Any, Any]:
        """Turn, stack and task of all that runs, on a GIL build before anybody can go on; the caller has just got the GIL."""
        if FREE_THREADED:
            return {}
        caught = {each: (turn, calls_of(each.probe.ident), each.task()) for each, turn in pool.turns()}
        return {each: found for each, found in caught.items() if found[1]}

    def began(self, pool: Any, watch: Any) -> bool:
        """The step of watch lasts longer than 0.1 s; False if it is not to blame so far, or has ended meanwhile."""
        now = Clock.monotonic()
        verdict = judge(watch, now)
        early = now - watch.since - watch.excused < ERROR_AFTER
        if early and verdict.kind in OTHERS_DOING and (FREE_THREADED or verdict.kind == "host"):
            return False
        task = _task_of(watch)
        seen = self._sightings.setdefault((_code_of(task), str(_site_of(watch.strand, task)), verdict.kind), [])
        place = seen[0] if len(seen) == SURE and now - seen[0].said_at < MINUTE else None
        if place is not None and place.last is not None and watch.item_is_under_way():
            place.times += 1
            self._open[watch] = place, dataclasses.replace(place.last, times=place.times), False
            return True
        found = self._look(pool, watch, task, verdict)
        if found is None or (early and found[1].kind in OTHERS_DOING):
            return False
        place, stall = found
        place.times += 1
        stall = place.last = dataclasses.replace(stall, times=place.times)
        if seen and seen[0] is not place:
            seen.clear()
        if len(seen) < SURE:
            seen.append(place)
        said = now - place.said_at >= MINUTE
        self._open[watch] = place, stall, said
        if said:
            self.summarise()
            place.said_at = now
            self._say(stall, place.at, _level(stall))
            if stall.seconds >= ERROR_AFTER:
                place.error_at = now
        return True

    def goes_on(self, pool: Any, watch: Any) -> None:
        """It lasts longer than 0.5 s. It may be elsewhere by now, or for another reason."""
        if watch not in self._open:
            return
        now = Clock.monotonic()
        place, stall, _ = self._open[watch]
        if now - place.error_at < MINUTE:
            return
        found = self._look(pool, watch, _task_of(watch), judge(watch, now))
        if found is not None and found[1].kind not in OTHERS_DOING:
            if found[0] is not place:
                place = found[0]
                place.times += 1
            stall = dataclasses.replace(found[1], times=place.times)
        stall = dataclasses.replace(stall, seconds=watch.lasted(), state="goes on", handed_off_after=watch.handed_off)
        place.last = stall
        place.said_at = place.error_at = now
        self._open[watch] = place, stall, True
        self._say(stall, place.at, logging.ERROR)

    def ended(self, watch: Any, state: str = "ended") -> None:
        """It is over, or the run is."""
        if watch not in self._open:
            return
        place, stall, said = self._open.pop(watch)
        seconds = watch.lasted()
        stall = dataclasses.replace(stall, seconds=seconds, state=state, handed_off_after=watch.handed_off)
        if said:
            self._say(stall, place.at, _level(stall))
        else:
            place.unsaid += 1
            if place.worst is None or seconds > place.worst.seconds:
                place.worst = stall
            if self._summary_at is None:
                self._summary_at = place.said_at + MINUTE

    def place_of(self, probe: Any) -> str:
        """Where the thread of probe is: the innermost place of the user's, as far as that can be told."""
        for _ in range(ASKED):
            stack = stack_of(probe)
            if stack:
                break
            Clock.sleep(0.001)
        at = innermost_user_frame(stack) or next(iter(stack), None)
        return f"{at.file}:{at.line} in {at.function}" if at is not None else "an unknown place"

    def _look(self, pool: Any, watch: Any, task: Any, verdict: Verdict) -> tuple[_Place, Stall] | None:
        """Where it is and what it does there; None if nothing can be said, or it has ended meanwhile."""
        caught, watch.caught = watch.caught, None
        calls = garbage.calls_since(watch.probe.ident, watch.since) if verdict.kind == "gc" else []
        calls = calls or (caught[0] if caught else [])
        native = calls_if_native(watch.probe) if verdict.kind == "cpu" and not (calls or FREE_THREADED) else []
        calls = calls or native
        stack = frames_of(calls) if calls else stack_of(watch.probe)
        if not stack and Clock.monotonic() - watch.since < ERROR_AFTER:
            return None  # no answer yet
        what = watch.carrier.item
        at = innermost_user_frame(stack) or _own_frame(task) or next(iter(inside(stack)), None)
        if at is None or is_plaits(at.file):
            return None
        call = callback_name(what) if task is None and is_librarys(at.file) else None
        if verdict.kind == "starved" and calls_a_wait(stack, _call_of(stack, at, verdict.kind)):
            verdict = Verdict("lock")
        if verdict.kind == "lock":
            verdict = Verdict("lock", holder_of(watch.probe.ident, _call_of(stack, at, verdict.kind)))
        name = task.get_name() if task is not None else f"callback {callback_name(what)}"
        own = not watch.carrier.pooled
        waiting = sum(item is not watch for item in items_of(watch.strand._ready)) if own else pool.queued()
        if not caught and not watch.item_is_under_way():
            return None
        place = self._places.setdefault((at.file, at.line, at.function, verdict.kind), _Place())
        unsure = verdict.kind == "cpu" and not (caught or native or FREE_THREADED) and at is stack[0]
        place.at = dataclasses.replace(at, position=None) if unsure else at  # it may have just come out of the call it seems in
        return place, Stall(
            file=at.file, line=at.line, function=at.function, call=call, kind=verdict.kind, detail=verdict.detail,
            seconds=watch.lasted(), state="began", times=0, task=name,
            spawned_at=_site_of(watch.strand, task), strand=repr(watch.strand), handed_off_after=watch.handed_off,
            waiting=waiting, advice=None, stack=tuple(stack),
        )  # fmt: skip

    def executor_is_full(self, lane: Any, waited: float) -> None:
        """Calls have waited so long for a thread of lane, and all of its threads are busy."""
        busy = Counter(function for function in map(_unwrapped, list(lane.running.values())) if hasattr(function, "__code__"))
        if not busy:
            return
        function, count = busy.most_common(1)[0]
        code = function.__code__
        place = self._places.setdefault((code, "executor"), _Place())
        place.times += 1
        now = Clock.monotonic()
        if now - place.said_at < MINUTE:
            return
        place.said_at = now
        stall = Stall(
            file=code.co_filename, line=code.co_firstlineno, function=function.__name__, call=None, kind="executor",
            detail=f"{count} of {len(lane.running)} busy threads run it", seconds=waited, state="began", times=place.times,
            task=lane.name, spawned_at=None, strand="", handed_off_after=None, waiting=lane.waiting(),
            advice=None, stack=(),
        )  # fmt: skip
        self._say(stall, None, _level(stall))

    def summarise(self, at_end: bool = False) -> None:
        """Say what was only counted, of the places whose minute is over; of all at the end."""
        now = Clock.monotonic()
        self._summary_at = None
        for place in self._places.values():
            if place.unsaid and place.worst is not None:
                if at_end or now - place.said_at >= MINUTE:
                    stall = dataclasses.replace(place.worst, state="again", times=place.unsaid)
                    place.unsaid, place.worst, place.said_at = 0, None, now
                    self._say(stall, place.at, logging.WARNING)
                else:
                    self._summary_at = min(self._summary_at or math.inf, place.said_at + MINUTE)

    def due_in(self) -> float | None:
        """Seconds until there is something to summarise; None if there is nothing."""
        return None if self._summary_at is None else max(0.0, self._summary_at - Clock.monotonic())

    # Telling

    def _say(self, stall: Stall, at: Frame | None, level: int) -> None:
        """Have it told."""
        with self._lock:
            self._to_tell.append((stall, at, level))
            teller = None
            if self._teller is None:
                teller = self._teller = Thread("plait-reports", self._tell)
        if teller is not None:
            try:
                teller.start()
            except RuntimeError:  # the system gives no more threads
                self._tell()

    def _tell(self) -> None:
        while True:
            with self._lock:
                if not self._to_tell:
                    self._teller = None
                    return
                stall, at, level = self._to_tell.popleft()
            try:
                self._tell_one(stall, at, level)
            except Exception:
                logger.exception("plait failed to report a stall")

    def _tell_one(self, stall: Stall, at: Frame | None, level: int) -> None:
        call = stall.call or (_call_of(stall.stack, at, stall.kind, stall.detail) if at is not None else None)
        stall = dataclasses.replace(stall, call=call, advice=advise(stall.stack, call, stall.kind, FREE_THREADED))
        logger.log(level, "%s", stall.as_json() if self._json else stall)
        if self._on_stall is not None:
            try:
                self._on_stall(stall)
            except Exception:
                logger.exception("on_stall raised")


def _call_of(stack: Sequence[Frame], at: Frame, kind: str, detail: str = "") -> str | None:
    """The call that `at`, one of the stack's frames, is in."""
    depth = next((index for index, frame in enumerate(stack) if _same_line(frame, at)), -1)
    if depth < 0:
        return None  # where a coroutine begins: it runs no line there
    return call_at(at, stack[depth - 1] if depth else None, kind, detail)


def _same_line(one: Frame, other: Frame) -> bool:
    return (one.file, one.line, one.function) == (other.file, other.line, other.function)


def _level(stall: Stall) -> int:
    return logging.ERROR if stall.seconds >= ERROR_AFTER else logging.WARNING


def _task_of(watch: Any) -> Any:
    return watch.caught[1] if watch.caught else watch.carrier.task()


def _code_of(task: Any) -> Any:
    coro = getattr(task, "_coro", None)
    return getattr(coro, "cr_code", None) or getattr(coro, "gi_code", None)


def _own_frame(task: Any) -> Frame | None:
    """Where the task's coroutine begins: its step has no frame any more, or only libraries'."""
    code = _code_of(task)
    return None if code is None or is_plaits(code.co_filename) else Frame(code.co_filename, code.co_firstlineno, code.co_name)


def callback_name(item: Any) -> str:
    """What to call a queue item that is no task's."""
    if isinstance(item, Task):  # it is done (task_of)
        return f"of {item.get_name()}"
    function: Any = _unwrapped(item._callback) if isinstance(item, Handle) else item  # type: ignore[attr-defined]
    return getattr(function, "__qualname__", None) or type(function).__name__


def _unwrapped(function: Any) -> Any:
    """What the user gave to the executor: `to_thread` wraps it in `Context.run`."""
    while isinstance(function, functools.partial):
        runs = getattr(function.func, "__name__", "") == "run" and function.args
        function = function.args[0] if runs else function.func
    return function


def _site_of(strand: Any, task: Any) -> str | None:
    """Where the task was spawned; a connection's strand knows where its server was started."""
    site = getattr(task, "spawn_site", None) or strand.__dict__.get("_site")
    return None if site is None else str(site)


_RUNNERS = ("_run_batch", "_run_slowly", "_drain", "start_task", "_run_once")
"""Functions of plait's that run steps: what is outside of them on a stack (who called `plait.run`) is not at fault."""


def inside(stack: list[Frame]) -> list[Frame]:
    """The frames of the step on a thread's stack (innermost first), without plait's."""
    found = []
    for frame in stack:
        if not is_plaits(frame.file):
            found.append(frame)
        elif frame.function in _RUNNERS:
            break
    return found


def innermost_user_frame(stack: list[Frame]) -> Frame | None:
    """The innermost frame of the user's own code in the step; else of an installed package."""
    outside = [frame for frame in inside(stack) if not is_librarys(frame.file)]
    mine = [frame for frame in outside if not is_installed(frame.file)]
    return next(iter(mine or outside), None)
