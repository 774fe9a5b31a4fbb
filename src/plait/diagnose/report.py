"""The stall report: which steps are told of, when, and as what (stall.py; how: teller.py).

A step that lasts longer than 0.1 s is reported while it lasts, as a warning; after 0.5 s again, as an error; and when it has
ended, with its duration. A place is reported once a minute: what it does in between is counted, and said in one line after the
minute or at the end. With PLAIT_STALLS=json each report is one line of JSON.

The monitor finds out what happens, in about a millisecond: it has others to see to.

Ownership: all is the monitor's.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from plait._rt.ground.clock import Clock
from plait._rt.ground.code_origin import is_librarys, is_plaits
from plait._rt.ground.run_queue import items_of
from plait._rt.watch.stall_policy import ERROR_AFTER
from plait.diagnose import garbage
from plait.diagnose.capture import FREE_THREADED, Frame, calls_if_native, calls_of, frames_of, stack_of
from plait.diagnose.stall import Stall
from plait.diagnose.step import call_of, callback_name, code_of, innermost_user_frame, inside, own_frame, unwrapped
from plait.diagnose.teller import Teller
from plait.diagnose.verdict import OTHERS_DOING, Verdict, calls_a_wait, holder_of, judge

MINUTE = 60.0
SURE = 3  # stacks of tasks of one kind that led to the same place: then the place of others is taken for granted
ASKED = 20  # times, before a thread that gets no core is left alone


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
        self._places: dict[Any, _Place] = {}
        self._open: dict[Any, tuple[_Place, Stall, bool]] = {}  # watch -> its place, the last report, whether it was said
        self._sightings: dict[Any, list[_Place]] = {}  # kind of task and stall -> where the last ones were
        self._summary_at: float | None = None
        self._teller = Teller(on_stall)

    def anew(self) -> Reporter:
        """One as this was made."""
        return Reporter(self._teller.on_stall)

    def start(self) -> None:
        """The monitor begins."""
        garbage.watch()

    def finish(self, pool: Any, watches: Iterable[Any]) -> None:
        """The monitor ends; what watches are of may go on."""
        garbage.unwatch()
        for watch in watches:
            self.ended(watch, "unfinished" if watch.item_is_under_way() else "ended")
        self.summarise(at_end=True)
        self._teller.finish()

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
        seen = self._sightings.setdefault((code_of(task), str(_site_of(watch.strand, task)), verdict.kind), [])
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
            self._teller.say(stall, place.at, _level(stall))
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
        self._teller.say(stall, place.at, logging.ERROR)

    def ended(self, watch: Any, state: str = "ended") -> None:
        """It is over, or the run is."""
        if watch not in self._open:
            return
        place, stall, said = self._open.pop(watch)
        seconds = watch.lasted()
        stall = dataclasses.replace(stall, seconds=seconds, state=state, handed_off_after=watch.handed_off)
        if said:
            self._teller.say(stall, place.at, _level(stall))
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
        at = innermost_user_frame(stack) or own_frame(task) or next(iter(inside(stack)), None)
        if at is None or is_plaits(at.file):
            return None
        call = callback_name(what) if task is None and is_librarys(at.file) else None
        if verdict.kind == "starved" and calls_a_wait(stack, call_of(stack, at, verdict.kind)):
            verdict = Verdict("lock")
        if verdict.kind == "lock":
            verdict = Verdict("lock", holder_of(watch.probe.ident, call_of(stack, at, verdict.kind)))
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
        busy = Counter(function for function in map(unwrapped, list(lane.running.values())) if hasattr(function, "__code__"))
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
        self._teller.say(stall, None, _level(stall))

    def summarise(self, at_end: bool = False) -> None:
        """Say what was only counted, of the places whose minute is over; of all at the end."""
        now = Clock.monotonic()
        self._summary_at = None
        for place in self._places.values():
            if place.unsaid and place.worst is not None:
                if at_end or now - place.said_at >= MINUTE:
                    stall = dataclasses.replace(place.worst, state="again", times=place.unsaid)
                    place.unsaid, place.worst, place.said_at = 0, None, now
                    self._teller.say(stall, place.at, logging.WARNING)
                else:
                    self._summary_at = min(self._summary_at or math.inf, place.said_at + MINUTE)

    def due_in(self) -> float | None:
        """Seconds until there is something to summarise; None if there is nothing."""
        return None if self._summary_at is None else max(0.0, self._summary_at - Clock.monotonic())


def _level(stall: Stall) -> int:
    return logging.ERROR if stall.seconds >= ERROR_AFTER else logging.WARNING


def _task_of(watch: Any) -> Any:
    return watch.caught[1] if watch.caught else watch.carrier.task()


def _site_of(strand: Any, task: Any) -> str | None:
    """Where the task was spawned; a connection's strand knows where its server was started."""
    site = getattr(task, "spawn_site", None) or strand.__dict__.get("_site")
    return None if site is None else str(site)
