"""Timers: the near ones in a heap, the others in lists that are not sorted yet.

Ownership
    `_incoming` is the only part that any thread may touch: `add` appends to it, the atomic step; who looks takes what was
    there, `batch = incoming[:n]` and `del incoming[:n]`. Everything else belongs to whoever holds `_turn`, which is taken
    without waiting: a finaliser that the garbage collector runs in the middle of `due` may add a timer, and
    nothing deadlocks. A holder's rival loses nothing by going away: the holder is awake and will look again.

Invariants
    N1  `_heap` has the timers due before `_bounds[0]`; `_far[i]` those due from `_bounds[i]` on and before `_bounds[i + 1]`.
        The deadline alone decides where a timer goes, and every list is in the order of arrival. So equal deadlines stay
        together and in order.
    N2  At the end of a look the heap is empty only if `_far` is.
    N3  Cancelled timers are swept out when there are more than 100 of them, and they are half of all, or half of what all
        were when that was asked last. `cancelled` is a hint: two threads may count one between them, and one that was
        cancelled before it was in is counted too.
    N4  What was taken out to be fired is posted in the same turn. So no timer is overtaken by a later one that another thread
        finds meanwhile. It is a share at a time: whoever loses its core in the middle keeps all other timers waiting.

Why not one heap: an entry of a heap is a tuple with a number in it, 96 bytes; a far timer's place in a list is 8. Nor does
it move up and down there: a list is cut in two when it is long (`LONG`), and sorted once, when it is the next one due.
Most timers are time-outs, which are gone before that. A timer that is cancelled before the next look never enters at all.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from heapq import heapify, heappop, heappush
from operator import attrgetter
from threading import Lock
from typing import Any

LONG = 4096
SWEEP_AT_LEAST = 100
LOOK_AGAIN = 0.001  # seconds
SHARE = 64

_when = attrgetter("_when")
_Entry = tuple[float, int, Any]


class Timers:
    """Deadlines. A timer has `_when`, in seconds of the monotonic clock, and `_cancelled`.

    `cancelled` counts those that were cancelled; who cancels one adds 1 to it, on any thread.
    """

    __slots__ = ("_bounds", "_far", "_heap", "_incoming", "_number", "_sweep_at", "_turn", "cancelled")

    def __init__(self) -> None:
        self._incoming: list[Any] = []
        self._heap: list[_Entry] = []
        self._bounds: list[float] = []
        self._far: list[list[Any]] = []
        self._number = 0  # ties go to the older timer, and are never decided by comparing timers
        self.cancelled, self._sweep_at = 0, SWEEP_AT_LEAST
        self._turn = Lock()

    def __len__(self) -> int:
        return len(self._heap) + len(self._incoming) + sum(map(len, list(self._far)))

    def add(self, timer: Any) -> None:
        """From any thread."""
        self._incoming.append(timer)

    def all(self) -> list[Any]:
        """All that are in, cancelled ones too, in no order. It waits for a thread that is looking, but not for long: it may be
        asked by a finaliser that interrupted that look."""
        has_turn = self._turn.acquire(timeout=LOOK_AGAIN)
        try:
            near = [entry[2] for entry in list(self._heap)]
            return [*self._incoming, *near, *(timer for far in list(self._far) for timer in list(far))]
        finally:
            if has_turn:
                self._turn.release()

    def due(self, now: float) -> list[Any]:
        """Take out the timers whose deadline has come, oldest deadline first; none if another thread is looking."""
        if not (self._incoming or self._heap) or not self._turn.acquire(False):
            return []
        try:
            return self._take_out(now, sys.maxsize)
        finally:
            self._turn.release()

    def fire(self, now: float, most: int = sys.maxsize) -> None:
        """Post the timers whose deadline has come to their strands, oldest deadline first, so many at most (N4)."""
        while most > 0 and (self._incoming or self._heap) and self._turn.acquire(False):
            share = min(most, SHARE)
            try:
                found = self._take_out(now, share)
                for timer in found:
                    timer._loop._post(timer)
            finally:
                self._turn.release()
            if len(found) < share:
                return
            most -= share

    def _take_out(self, now: float, most: int) -> list[Any]:
        self._take_in()
        found: list[Any] = []
        while (when := self._first()) is not None and when <= now and len(found) < most:
            found.append(heappop(self._heap)[2])
        return found

    def deadline(self, now: float) -> float | None:
        """The next deadline, or None without one. If another thread is looking: a little after now, which means look again.

        (Not now: the caller would spin until the other is done, and it may have lost its core.)
        """
        if not self._turn.acquire(False):  # first: a timer may be on its way from `_incoming` to the heap
            return now + LOOK_AGAIN
        try:
            self._take_in()
            return self._first()
        finally:
            self._turn.release()

    def _first(self) -> float | None:
        """The deadline of the first timer in the heap that isn't cancelled."""
        while True:
            heap = self._heap
            while heap:
                if not heap[0][2]._cancelled:
                    return heap[0][0]
                heappop(heap)
            if not self._far:
                return None
            self._heap = self._numbered(sorted(self._far[0], key=_when))  # sorted: a heap
            del self._far[0], self._bounds[0]

    def _numbered(self, timers: list[Any]) -> list[_Entry]:
        number = self._number
        self._number += len(timers)
        return [(timer._when, number, timer) for number, timer in enumerate(timers, number)]

    def _take_in(self) -> None:
        incoming = self._incoming
        if incoming:
            count = len(incoming)
            batch = incoming[:count]
            del incoming[:count]
            self._sort_in(batch)
        if self.cancelled > self._sweep_at:
            if self.cancelled * 2 > len(self):
                self._sweep()
            self._sweep_at = max(SWEEP_AT_LEAST, len(self) // 2)

    def _sort_in(self, batch: list[Any]) -> None:
        heap, bounds, far = self._heap, self._bounds, self._far
        for timer in batch:
            if timer._cancelled:
                continue
            when = timer._when
            if bounds and when >= bounds[0]:
                timers = far[bisect_right(bounds, when) - 1]
                timers.append(timer)
                if not len(timers) % LONG:  # not at every one beyond: they may all be due at once
                    self._cut(timers, when)
            else:
                self._number += 1
                heappush(heap, (when, self._number, timer))
                if not len(heap) % LONG:
                    self._cut_heap()

    def _cut(self, timers: list[Any], when: float) -> None:
        """Make two of a long far list, the one where `when` goes, if they are not all due at the same time."""
        index = bisect_right(self._bounds, when) - 1
        middle = _middle([timer._when for timer in timers[:: LONG // 64]])
        if middle > self._bounds[index]:
            self._bounds.insert(index + 1, middle)
            self._far.insert(index + 1, [timer for timer in timers if timer._when >= middle])
            timers[:] = [timer for timer in timers if timer._when < middle]

    def _cut_heap(self) -> None:
        """Make a far list of the later part of a long heap, if they are not all due at the same time."""
        heap = self._heap
        heap.sort()
        cut = bisect_left(heap, (heap[len(heap) // 8][0],))
        if cut:
            self._bounds.insert(0, heap[cut][0])
            self._far.insert(0, [timer for _, _, timer in heap[cut:]])
            del heap[cut:]

    def _sweep(self) -> None:
        self.cancelled = 0  # first: what is cancelled meanwhile may be passed over
        heap = [entry for entry in self._heap if not entry[2]._cancelled]
        heapify(heap)
        kept = [
            (bound, left)
            for bound, timers in zip(self._bounds, self._far, strict=True)
            if (left := [timer for timer in timers if not timer._cancelled])
        ]
        self._bounds, self._far = [bound for bound, _ in kept], [timers for _, timers in kept]
        self._heap = heap
        self._first()  # N2


def _middle(whens: list[float]) -> float:
    return sorted(whens)[len(whens) // 2]
