"""Blocking sites: places that are known to block, so that the processor can be given away before they do it again.

A point is a suspension point: where a coroutine was when it was resumed for a step that then blocked, or computed for long. It
is named by the innermost frame of the user's on the coroutine's stack, its code and instruction: a library's would flag
everybody who awaits through it. Finding it takes a walk down the stack, so it is done only for suspects: tasks whose
outermost code was caught once.

    first time caught      the code of the task becomes suspect
    from then on           its tasks' steps note their point (worker.py)
    caught with a point    the point scores; with two it is known
    a point with a score   its steps are timed: a short one halves the score
    a known point          the processor is given away before the step

So nothing is learned from one sighting, what a place stopped doing is forgotten, and one where only some of the steps are long
(a handler of requests) is not learned: the others would wait behind them. (Waiting for the GIL looks like waiting for a lock:
on a GIL build the monitor tells neither here.)

Ownership: dictionaries changed an entry at a time, from any thread; a count that is lost between two threads costs a sighting.
"""

from __future__ import annotations

import math
from types import CodeType, CoroutineType
from typing import Any

from plait._rt.ground.code_origin import is_installed, is_librarys, is_plaits

KNOWN = 2.0
MOST = 8.0
FORGOTTEN = 0.25
LONG = 0.001  # seconds; a step that takes less did not block
COMPUTED = 0.0025  # seconds on a core; a step that takes less does not compute for long, however long it waited for the GIL
MANY = 1000  # suspects and points; programs that make code as they run don't grow them for ever

Point = tuple[CodeType, int]

_is_users: dict[CodeType, bool] = {}


class BlockingSites:
    """What one pool knows."""

    __slots__ = ("_computing", "_scores", "suspects")

    def __init__(self) -> None:
        self.suspects: dict[CodeType, None] = {}
        self._scores: dict[Point, float] = {}
        self._computing: dict[Point, float] = {}  # and for how long it did last; infinite if that isn't known yet

    def suspect(self, code: CodeType) -> None:
        """From now on the steps of tasks of that outermost code note their points."""
        if len(self.suspects) >= MANY or len(self._scores) >= MANY:
            self.suspects.clear()
            self._scores.clear()
            self._computing.clear()
        self.suspects[code] = None

    def caught(self, code: CodeType, point: Point | None, computes: bool) -> None:
        """A task of that outermost code was stuck in a step; point is where it was resumed, None if that was not noted."""
        self.suspect(code)
        if point is not None:
            self._scores[point] = min(self._score(point) + 1.0, MOST)
            if computes:
                self._computing.setdefault(point, math.inf)
            else:
                self._computing.pop(point, None)

    def has_score(self, point: Point) -> bool:
        """Is a step from there to be timed?"""
        return point in self._scores

    def is_known(self, point: Point) -> bool:
        """Is the processor to be given away before a step from there?"""
        return self._score(point) >= KNOWN

    def _score(self, point: Point) -> float:
        """Its score. (Not by `get`: docs/design.md, "What CPython decides for us".)"""
        try:
            return self._scores[point]
        except KeyError:
            return 0.0

    def computes(self, point: Point) -> bool:
        """Does a step from there compute, as opposed to block?"""
        return point in self._computing

    def last(self, point: Point) -> float:
        """For how long a step from there computed last, in seconds; infinite if nobody knows."""
        try:
            return self._computing[point]
        except KeyError:
            return math.inf

    def took(self, point: Point, seconds: float, computed: float) -> None:
        """A step from a point with a score took so long, so much of it on a core."""
        computes, score = point in self._computing, self._score(point)
        if (computed < COMPUTED) if computes else (seconds < LONG):
            score /= 2
        elif score >= KNOWN:
            score = min(score + 1.0, MOST)
        if score < FORGOTTEN:
            self._scores.pop(point, None)
            self._computing.pop(point, None)
            return
        self._scores[point] = score
        if computes:
            self._computing[point] = computed


def start_of(code: CodeType) -> Point:
    """Where a coroutine is that has yet to start."""
    return code, -1


def point_of(coro: CoroutineType[Any, Any, Any]) -> Point:
    """Where coro is suspended: its innermost frame that is the user's (its own if none is)."""
    code, lasti = coro.cr_code, coro.cr_frame.f_lasti if coro.cr_frame is not None else -1
    inner = coro.cr_await
    while isinstance(inner, CoroutineType):
        frame = inner.cr_frame
        if frame is not None and _users(inner.cr_code):
            code, lasti = inner.cr_code, frame.f_lasti
        inner = inner.cr_await
    return code, lasti


def _users(code: CodeType) -> bool:
    try:
        return _is_users[code]
    except KeyError:
        if len(_is_users) >= MANY:
            _is_users.clear()
        found = _is_users[code] = not any(of(code.co_filename) for of in (is_plaits, is_librarys, is_installed))
        return found
