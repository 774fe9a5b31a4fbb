"""A deterministic scheduler for real threads that run the real code.

Each actor is a thread that runs only while it holds the baton. It is traced (`sys.settrace`, which is per thread on both
builds), and before every line, or every bytecode, of the traced files it may pass the baton on: the seed decides where and
to whom. So a seed is a schedule, and a failing one can be run again: `PLAIT_SEED=n`.

Three ways of deciding, for a race may want many switches or one long delay:
    coins       at each point the baton moves with a probability that the schedule drew first
    priorities  the runnable actor of the highest priority runs; at a few points drawn first it falls to the lowest
                (Burckhardt et al., "A randomized scheduler with probabilistic guarantees of finding bugs", 2010)
    one late    as coins, but at one of its points one actor stops until all others have come to rest

What would block a thread (locks, epoll, sleeping) blocks an actor here: `wait` gives the baton away until its condition holds
or, when nobody can run, the clock has been set forward to its deadline.
"""

from __future__ import annotations

import gc
import math
import os
import random
import sys
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from types import FrameType
from typing import Any

import plait

LIMIT = 60_000  # points a schedule may pass before it counts as a livelock
_SOURCE = os.path.dirname(os.path.abspath(plait.__file__))
_local = threading.local()


class Killed(BaseException):
    """Raised in actors when the schedule is over."""


class Stuck(AssertionError):
    """Nobody can run, or nobody comes to an end."""


def seeds(default: int = 200) -> range:
    """The seeds to try: PLAIT_SEED one, PLAIT_SEEDS so many."""
    if "PLAIT_SEED" in os.environ:
        seed = int(os.environ["PLAIT_SEED"])
        return range(seed, seed + 1)
    return range(int(os.environ.get("PLAIT_SEEDS", default)))


class Actor:
    """One thread of a schedule."""

    def __init__(self, schedule: Schedule, name: str, body: Callable[[], object], daemon: bool) -> None:
        self.schedule, self.name, self.body, self.daemon = schedule, name, body, daemon
        self.baton: SimpleQueue[None] = SimpleQueue()  # (a free-threaded build's lock spins before it waits: 40 sched_yield)
        self.done = False
        self.waits_for: Callable[[], object] | None = None
        self.deadline = math.inf
        self.priority = schedule.rng.random()
        self.in_a_row = 0
        self.own_points = 0
        self.held_back = False
        self.switching = False  # it gives the baton away, or waits for it: a finaliser that runs there is no place for a point
        self.at = "start"
        self.thread = threading.Thread(target=self._main, name=f"actor-{name}", daemon=True)

    def can_run(self) -> bool:
        return not self.done and (self.waits_for is None or bool(self.waits_for()) or self.deadline <= self.schedule.now)

    def _main(self) -> None:
        self.baton.get()
        _local.actor = self
        try:
            if not self.schedule.over:
                sys.settrace(self._called)
                self.body()
        except Killed:
            pass
        except BaseException as error:
            self.schedule.fail(error)
        finally:
            sys.settrace(None)
            self.done = True
            if not self.schedule.over:
                try:
                    self.schedule.leave()
                except BaseException as error:
                    self.schedule.fail(error)

    def _called(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if self.schedule.over or frame.f_code.co_filename not in self.schedule.files:
            return None
        if self.schedule.bytecodes:
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if event in ("line", "opcode") and not self.schedule.over and not self.switching:
            self.at = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
            self.schedule.point()
        return self._stepped


class Schedule:
    """The actors of one seed, and the clock they see."""

    def __init__(self, seed: int, files: Iterable[str], limit: int = LIMIT) -> None:
        self.seed, self.limit = seed, limit
        self.rng = rng = random.Random(seed)
        self.files = {os.path.join(_SOURCE, file) for file in files}
        assert all(map(os.path.isfile, self.files)), f"not all of them are there: {self.files}"
        self.bytecodes = rng.random() < 0.5
        self.coin = rng.choice((0.5, 0.2, 0.05, 0.01))
        reach = int(10 ** rng.uniform(1.3, 3.5))
        self.falls = {rng.randrange(reach) for _ in range(rng.randint(1, 6))} if (way := rng.randrange(3)) == 1 else None
        self.late = (rng.randrange(8), int(10 ** rng.uniform(0, 2.3))) if way == 2 else None
        self.now = 1000.0
        self.actors: list[Actor] = []
        self.always: Callable[[], None] | None = None  # an invariant, looked at wherever the baton moves
        self.points = 0
        self.over = False
        self.error: BaseException | None = None
        self.last: list[str] = []
        self._lowest = 0.0
        self._ended = threading.Event()

    def actor(self, name: str, body: Callable[[], object], daemon: bool = False) -> Actor:
        """Add one; also while the schedule runs. A daemon need not come to an end."""
        actor = Actor(self, name, body, daemon)
        self.actors.append(actor)
        actor.thread.start()
        return actor

    def run(self) -> None:
        """Run until all but daemons are done and nobody can run; raise what failed, with the seed."""
        gc.disable()  # it would come at another point each time, and on 3.11 tracing its finalisers crashes
        try:
            self._pass_on()
            if not self._ended.wait(60):
                self.fail(Stuck("a schedule took a minute"))
        finally:
            gc.enable()
            self.over = True
            for _ in range(100):
                for actor in list(self.actors):
                    if not actor.done:
                        actor.baton.put(None)
                if all(actor.done for actor in self.actors):
                    break
                for actor in list(self.actors):
                    actor.thread.join(0.02)
        if self.error is not None:
            self.error.add_note(self.story())
            raise self.error

    def story(self) -> str:
        """What a report needs: the seed, who stands where, and the last switches."""
        stand = ", ".join(f"{a.name}: {'done' if a.done else ('waits ' if a.waits_for else '') + a.at}" for a in self.actors)
        return f"PLAIT_SEED={self.seed} after {self.points} points; {stand}\nlast switches: {' | '.join(self.last[-40:])}"

    # Called by the actor that holds the baton

    def point(self) -> None:
        """A place where the baton may move."""
        if self.over:
            return
        me = current()
        self.points += 1
        if self.points > self.limit:
            self.fail(Stuck("livelock"))
            raise Killed
        me.own_points += 1
        if self.late is not None and me.own_points == self.late[1] and me is self.actors[self.late[0] % len(self.actors)]:
            me.held_back = True
            self._pass_on(me)
        elif self.falls is not None:
            me.in_a_row += 1
            if self.points in self.falls or me.in_a_row > 3000:
                self._fall(me)
            self._pass_on(me)
        elif self.rng.random() < self.coin:
            self._pass_on(me)

    def wait(self, condition: Callable[[], object], timeout: float | None = None) -> bool:
        """Block until condition holds; False if the time came first."""
        me = current()
        if self.over:
            raise Killed
        me.waits_for, me.deadline = condition, math.inf if timeout is None else self.now + timeout
        self._pass_on(me)
        me.waits_for, me.deadline = None, math.inf
        return bool(condition())

    def fail(self, error: BaseException) -> None:
        """Note the first failure and end the schedule. What fails after its end, when all threads are let go, tells nothing."""
        if self.error is None and not self.over:
            self.error = error
        self.over = True
        self._ended.set()

    def leave(self) -> None:
        """The current actor's thread ends."""
        self._pass_on()

    def _fall(self, actor: Actor) -> None:
        self._lowest -= 1.0
        actor.priority, actor.in_a_row = self._lowest, 0

    def _pass_on(self, me: Actor | None = None) -> None:
        """Give the baton to whom the seed says; return when it is back with me."""
        if me is None:
            self._switch(None)
            return
        me.switching = True
        try:
            self._switch(me)
        finally:
            me.switching = False

    def _switch(self, me: Actor | None) -> None:
        if self.always is not None and self.error is None:
            try:
                self.always()
            except AssertionError as error:
                self.fail(error)
                if me is not None:
                    raise Killed from None
                return
        chosen = self._choose()
        if chosen is None:
            self.over = True
            self._ended.set()
        elif chosen is me:
            return
        else:
            if me is not None:
                self.last.append(f"{me.name} {me.at} > {chosen.name}")
                del self.last[:-40]
            chosen.baton.put(None)
        if me is not None:
            me.baton.get()
            if self.over:
                raise Killed

    def _choose(self) -> Actor | None:
        while True:
            ready = [actor for actor in self.actors if actor.can_run()]
            free = [actor for actor in ready if not actor.held_back]
            if ready and not free:  # before time passes: it could run
                ready[0].held_back = False
                return ready[0]
            ready = free
            if ready:
                if self.falls is not None:
                    return max(ready, key=lambda actor: actor.priority)
                return self.rng.choice(ready)
            later = min((actor.deadline for actor in self.actors if not actor.done), default=math.inf)
            if later < math.inf:
                self.now = max(self.now, later)
                continue
            if any(not actor.done and not actor.daemon for actor in self.actors):
                self.fail(Stuck("deadlock: nobody can run"))
            return None


def current() -> Actor:
    """The actor that is calling."""
    return _local.actor  # type: ignore[no-any-return]


def acting() -> bool:
    """Is the calling thread an actor of a schedule that goes on?"""
    actor = getattr(_local, "actor", None)
    return actor is not None and not actor.schedule.over


class Lock:
    """threading.Lock, or with reentrant=True RLock, for actors."""

    def __init__(self, schedule: Schedule, held: bool = False, reentrant: bool = False) -> None:
        self._schedule, self._reentrant = schedule, reentrant
        self._count = int(held)
        self._owner: Any = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = getattr(_local, "actor", None)
        if self._count and not (self._reentrant and self._owner is me):
            if not blocking:
                return False
            if not acting():
                raise Killed
            if not self._schedule.wait(lambda: not self._count, None if timeout < 0 else timeout):
                return False
        self._count += 1
        self._owner = me
        return True

    def release(self) -> None:
        if not self._count and not self._schedule.over:
            raise RuntimeError("release unlocked lock")
        self._count -= 1

    def locked(self) -> bool:
        return self._count > 0

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
