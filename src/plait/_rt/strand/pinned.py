"""PinnedStrand: a strand with a thread of its own, which ends with `aclose`, or when nobody refers to the strand any more.

Ownership
    A `Seat` is what the thread has, and what the pool lists. `held` is a dict of one entry, the strand, or of none: who wakes
    the thread puts it in, the thread takes it out.
    Everything else as in thread_strand.py.

Invariants
    N1  The thread refers to the strand while it runs it, and while a timer or a descriptor of the strand waits. Before it
        sleeps without either it empties `held`, then announces itself (`_parked`), then looks whether something is queued;
        only then it lets go of the strand.
    N2  Who posts queues first and looks at `_parked` after, and puts the strand into `held` before it wakes the thread. So a
        strand that has something to do is referred to by its thread, or is about to be. Before that it takes the announcement
        back, not after: the thread may empty `held` in between and sleep, and would then be announced as awake.
    N3  A strand that nobody refers to is given to its thread once more by its `__del__`, since other finalisers of the same
        garbage may still post to it. The thread runs what they did, lets go of it again, and looks now and then whether it is
        gone. (A weak reference's callback would not do: the collector leaves out those of references that were made while it
        runs finalisers, and before that they come too early.)
"""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING

from plait._rt.asyncio_face import asyncgens
from plait._rt.ground.clock import Clock
from plait._rt.ground.cpython import _set_running_loop
from plait._rt.ground.threads import Thread
from plait._rt.strand.carrier import ThreadCarrier
from plait._rt.strand.strand import Strand
from plait._rt.strand.thread_strand import ThreadStrand
from plait._rt.task.current_task import CURRENT_STAYS, clear_current

if TYPE_CHECKING:
    from plait._rt.io.poller import Poller
    from plait._rt.pool import Pool

FIRST_LOOK, LAST_LOOK = 0.001, 1.0  # seconds between two looks whether a dropped strand is gone: twice as long each time


class Seat(ThreadCarrier):
    """The thread of a pinned strand."""

    __slots__ = ("ended", "held", "thread")

    reference: weakref.ref[PinnedStrand]  # type: ignore[assignment]

    def __init__(self, strand: PinnedStrand, pool: Pool, name: str) -> None:
        super().__init__(strand)
        self.held: dict[None, PinnedStrand] = {None: strand}
        self.ended = Future[None]()
        self.ended.set_running_or_notify_cancel()  # who waits for it may be cancelled, it may not
        self.thread = Thread(name, self._serve, pool)

    @property
    def name(self) -> str:
        return self.thread.name

    def _serve(self, pool: Pool) -> None:
        strand = self.reference()
        assert strand is not None
        probe, poller = self.probe, strand._poller
        probe.begin()
        sys.set_asyncgen_hooks(*asyncgens.hooks)
        try:
            while strand is not None and strand._serve():
                if strand._park():
                    dropped = weakref.ref(strand) if strand._dropped else None
                    strand = None
                    strand = self._sleep(poller, dropped)
                if strand is not None:
                    strand._parked = False
        finally:
            probe.end()
            if strand is not None:
                strand._finish()
            else:
                poller.close()
            self.ended.set_result(None)
            pool.seat_left(self)

    def _sleep(self, poller: Poller, dropped: weakref.ref[PinnedStrand] | None) -> PinnedStrand | None:
        """Until there is something to do: the strand; or until a dropped one is gone: None."""
        pause = FIRST_LOOK
        while True:
            poller.poll(None if dropped is None else pause)
            strand = self.held.pop(None, None)
            if strand is not None or (dropped is not None and dropped() is None):
                return strand
            pause = min(2 * pause, LAST_LOOK)


class PinnedStrand(ThreadStrand):
    """A strand of the user's on a thread of its own."""

    __slots__ = ("_dropped", "_idle")

    carrier: Seat
    _idle: bool  # the thread is about to sleep without the strand
    _dropped: bool  # nobody referred to it any more (N3)

    @classmethod
    def start(cls, pool: Pool, name: str | None) -> PinnedStrand:
        """One that runs. RuntimeError if the system gives no more threads."""
        strand = object.__new__(cls)
        strand.set_up(pool, name)
        strand._debug = pool.main._debug  # type: ignore[misc]
        strand._idle = strand._dropped = False
        strand._thread_id = 0  # running from now on, as far as others can tell
        try:
            with pool._starting:  # who closes the pool says so under it, and looks for seats after that
                pool.check_open()
                pool.seats.append(strand.carrier)  # before its thread can leave it
                strand.carrier.thread.start()
        except RuntimeError:
            if strand.carrier in pool.seats:
                pool.seats.remove(strand.carrier)
            strand._finish()
            raise
        return strand

    def _new_carrier(self, name: str | None) -> Seat:
        return Seat(self, self._pool, f"plait-pinned-{name or hex(id(self))}")

    def _serve(self) -> bool:
        """Run until there is nothing to do, then announce that the thread sleeps (N1); False if it was stopped."""
        pool = self._pool
        if pool.watched:
            pool.monitor.wake()
        self._thread_id = threading.get_ident()
        self._set_coroutine_origin_tracking(self._debug)
        _set_running_loop(self)
        try:
            while not self._idle:
                try:
                    self._run_until_stopped()
                    if not self._idle:
                        return False
                except (KeyboardInterrupt, SystemExit) as stop:
                    pool.stop_main(stop)
                    if pool.closed:  # it was stuck, and has been left behind
                        return False
        finally:
            if self._current is not None or not CURRENT_STAYS:
                clear_current(self)
            self.carrier.item = None
            _set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            self._stopping = self._idle = False  # type: ignore[misc]
        return True

    def _park(self) -> bool:
        """Announce that the thread sleeps (N1); False if there is something to do."""
        self.carrier.held.pop(None, None)
        self._parked = True
        return self._has_nothing()

    def _has_nothing(self) -> bool:
        """Is nothing queued, and waits nothing for a time or a descriptor?"""
        return not (self._ready or len(self._poller)) and self._timers.deadline(Clock.monotonic()) is None

    def _look(self) -> None:
        if self._has_nothing() and not self._stopping:
            self._stopping = self._idle = True  # type: ignore[misc]  # what is queued from now on is run once more (`_park`)
        else:
            super()._look()

    def _ring(self) -> None:
        self._parked = False
        self.carrier.held[None] = self  # N2
        self._wake()

    def _finish(self) -> None:
        self._thread_id = None
        ThreadStrand.close(self)
        self.carrier.held.pop(None, None)

    def stop_thread(self) -> None:
        """Have the thread end, after the step it is in."""
        self._post(_Stop(self))

    def has_ended(self, until: float) -> bool:
        """Has the thread ended by then? One that is stuck is left to end with its step."""
        thread = self.carrier.thread
        if thread.ident is not None:  # else Ctrl-C came before it was started
            thread.join(max(0.0, until - Clock.monotonic()))
        return not thread.is_alive()

    async def _end(self) -> None:
        self._post(_Stop(self))
        await asyncio.wrap_future(self.carrier.ended)
        self.carrier.thread.join()  # it has nothing more to do

    def _check_closed(self) -> None:
        if self._closed:
            self._pool.check_open()
            raise RuntimeError(f"{self!r} is closed")

    run_forever = run_until_complete = stop = close = Strand._refuse

    def __del__(self) -> None:
        seat = getattr(self, "carrier", None)
        if seat is not None and not self._closed:
            self._dropped = True
            seat.reference = weakref.ref(self)  # the collector has cleared the other
            self._ring()


class _Stop:
    """Queued to end the thread."""

    __slots__ = ("_strand",)

    def __init__(self, strand: PinnedStrand) -> None:
        self._strand = strand

    def _run(self) -> None:
        ThreadStrand.stop(self._strand)
        self._strand._idle = False  # though it may have been about to sleep
