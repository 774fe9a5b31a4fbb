"""Parking against waking (I1, I2), and timers against sleepers."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from plait._rt.io.timers import LOOK_AGAIN
from plait._rt.watch.monitor import Monitor

from .baton import seeds
from .rig import SCHEDULING, Item, rig

PARKING = (SCHEDULING, ("_rt/sched/parking.py",), ("_rt/sched/parking.py", "_rt/sched/scheduler.py"))


def _parked_once(r: Any) -> None:
    parked = r.pool.parking.parked
    assert len(set(parked)) == len(parked), "I1: a worker is in `parked` twice"


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_park_against_notify(workers: int) -> None:
    """Work that was published is found by somebody, and no worker is owed two wakes or is parked twice.

    Mutations caught: `park` does not rescan; `inject` notifies before it appends; `_leave` does not take the wake it is owed;
    whether a worker sits at the poller is asked after it was popped.
    """
    for seed in seeds():
        with rig(seed, PARKING[seed % 3], workers) as r:
            r.schedule.always = lambda r=r: _parked_once(r)  # type: ignore[misc]
            strands = [r.strand() for _ in range(6)]
            log: list[str] = []

            def post(poster: int, r: Any = r, strands: Any = strands, log: Any = log) -> None:
                for number in range(3):
                    r.pause()
                    strand = strands[(poster * 3 + number) % 6]
                    strand._post(Item(r, strand, f"{poster}.{number}", log))

            def events(r: Any = r) -> None:
                for _ in range(4):
                    r.pause()
                    r.pool.poller.wake()  # who sits at the poller leaves by itself

            r.actor("events", events)
            for poster in range(3):
                r.actor(f"poster{poster}", lambda poster=poster: post(poster))  # type: ignore[misc]
            r.run()
            r.expect(len(log) == 9, f"ran {log}")
            r.check_quiet(*strands)
            parked = r.pool.parking.parked
            r.expect(len(parked) == workers, f"parked at the end: {len(parked)} of {workers}")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_finaliser_posts_while_its_worker_parks(workers: int) -> None:
    """The collector runs it anywhere, also between the last look at the queues and the sleep.

    Mutation caught: `park` leaves `here.worker` as it is, so `schedule` queues on the processor of a worker that goes to sleep.
    """
    for seed in seeds():
        with rig(seed, PARKING[seed % 3], workers) as r:
            strand, log = r.strand(), []  # type: ignore[var-annotated]
            at, posted = r.rng.randrange(120), []  # type: ignore[var-annotated]

            def collect(r: Any = r, strand: Any = strand, at: int = at, posted: Any = posted, log: Any = log) -> None:
                name = threading.current_thread().name
                if r.schedule.points >= at and name.startswith("actor-worker") and not posted:
                    posted.append(name)
                    strand._post(Item(r, strand, "the finaliser's", log))

            def wake(r: Any = r, posted: Any = posted) -> None:
                while not posted:
                    r.pool.poller.wake()
                    r.schedule.wait(lambda: False, 0.01)

            r.schedule.coin, r.schedule.falls, r.schedule.always = 1.0, None, collect
            r.actor("waker", wake)
            r.run()
            r.expect(log == ["the finaliser's"], f"ran {log}")
            r.check_quiet(strand)


def test_stopping_wakes_everybody() -> None:
    """`stopping`, then notify_all: every worker ends, however far it got with parking.

    Mutation caught: `has_work` does not look at `stopping`.
    """
    for seed in seeds(100):
        with rig(seed, PARKING[seed % 3], 3) as r:

            def stop(r: Any = r) -> None:
                r.pool.stopping = True
                r.pool.parking.notify_all()

            r.actor("stopper", stop)
            for actor in r.schedule.actors:
                actor.daemon = False  # the workers must come to an end, else it is a deadlock
            r.run()


TIMING = ((*SCHEDULING, "_rt/io/timers.py"), ("_rt/sched/parking.py",), ("_rt/io/timers.py", "_rt/sched/parking.py"))


class Timer:
    """What a timer of a strand looks like to the heap."""

    def __init__(self, r: Any, strand: Any, when: float, log: list[tuple[float, float]]) -> None:
        self.r, self._loop, self._when, self.log = r, strand, when, log
        self._cancelled = False

    def _run(self) -> None:
        if not self._cancelled:
            self.log.append((self._when, self.r.schedule.now))


@pytest.mark.parametrize("workers", [1, 2])
def test_timer_against_sleep(workers: int) -> None:
    """A timer is run once, not before its time, and nobody oversleeps it: at its time at the latest somebody is awake.

    Mutations caught: `park` asks for the deadline before it publishes how long it sleeps; `_add_timer` looks before it adds;
    another worker's park writes `sleeps_until`; `deadline` takes a heap that is being filled for an empty one.
    """
    for seed in seeds(300):
        with rig(seed, TIMING[seed % 3], workers) as r:
            strand = r.strand()
            log: list[tuple[float, float]] = []
            wanted: list[float] = []

            def add(name: int, r: Any = r, strand: Any = strand, log: Any = log, wanted: Any = wanted) -> None:
                for _ in range(3):
                    r.pause()
                    when = r.schedule.now + r.rng.choice((1, 5, 50)) + name / 10
                    timer = Timer(r, strand, when, log)
                    strand._add_timer(timer)
                    if r.rng.random() < 0.3:
                        strand._post(Item(r, strand, "x", []))
                    if r.rng.random() < 0.2:
                        timer._cancelled = True
                        strand._timers.cancelled += 1
                    else:
                        wanted.append(when)

            for name in range(2):
                r.actor(f"adder{name}", lambda name=name: add(name))  # type: ignore[misc]
            r.run()
            r.expect(sorted(when for when, _ in log) == sorted(wanted), f"wanted {sorted(wanted)}, ran {sorted(log)}")
            for when, ran in log:
                r.expect(when <= ran, f"{when} ran early, at {ran}")
                r.expect(ran <= when, f"{when} ran late, at {ran}: slept through")
            r.check_quiet(strand)


LEFT_ALONE = ("timer of its own", "timer", "descriptor", "post")


class Block:
    """A queue item that blocks its worker; before that, it sets a timer."""

    def __init__(self, r: Any, strand: Any, timer: Any) -> None:
        self.r, self.strand, self.timer, self.until = r, strand, timer, r.schedule.now + 100.0

    def _run(self) -> None:
        if self.timer is not None:
            self.timer._loop._add_timer(self.timer)
        self.r.schedule.wait(lambda: False, self.until - self.r.schedule.now)


@pytest.mark.parametrize("what", LEFT_ALONE)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_what_becomes_due_beside_a_stuck_worker(workers: int, what: str) -> None:
    """While a worker blocks, whatever it did before (set the timer, took the wake-up, sat at the poller), what becomes due for
    other strands is run at once, or when the monitor has looked twice.

    Mutations caught: a worker that holds a processor adds a timer and wakes nobody; the monitor asks only for queues; an
    empty seat at the poller counts as nothing to do.
    """
    for seed in seeds(100):
        with rig(seed, (*TIMING, ("_rt/strand/strand.py", "_rt/sched/parking.py"))[seed % 4], workers) as r:
            blocked, innocent = r.strand(), r.strand()
            monitor, log = Monitor(r.pool, None), []  # type: ignore[var-annotated]
            due = r.schedule.now + 4.0
            timer = Timer(r, innocent, due, log)
            ours, theirs = socket.socketpair()

            def make_due(
                r: Any = r, innocent: Any = innocent, theirs: Any = theirs, due: float = due, timer: Any = timer
            ) -> None:
                r.schedule.wait(lambda: False, 2.0)
                if what == "timer":
                    innocent._add_timer(timer)
                r.schedule.wait(lambda: False, due - r.schedule.now)
                if what == "descriptor":
                    theirs.send(b"x")
                elif what == "post":
                    innocent._post(timer)

            def look(r: Any = r, monitor: Any = monitor) -> None:
                for _ in range(12):
                    r.schedule.wait(lambda: False, 0.5)
                    for worker in list(r.pool.workers):
                        if (
                            worker.running is not None
                            and worker.proc is not None
                            and monitor.handoffs.something_waits(worker.proc)
                        ):
                            r.pool.handoff.give(worker)

            def read(r: Any = r, log: Any = log, ours: Any = ours, due: float = due) -> None:
                ours.recv(1)
                log.append((due, r.schedule.now))

            if what == "descriptor":
                innocent._add_reader(ours, read)
            blocked._post(Block(r, blocked, timer if what == "timer of its own" else None))
            r.actor("maker", make_due)
            r.actor("monitor", look)
            r.run()
            r.expect(len(log) == 1 and log[0][1] <= due + 1.0, f"due at {due}: {log}")
            innocent._remove_reader(ours)
            ours.close()
            theirs.close()


def test_timer_for_sleepers() -> None:
    """Workers come to rest in any order; a timer added after that wakes one of them in time.

    Mutation caught: a worker that does not sit at the poller writes `sleeps_until` all the same.
    """
    for seed in seeds(600):
        with rig(seed, ("_rt/sched/parking.py",), 2) as r:
            strand = r.strand()
            log: list[tuple[float, float]] = []

            def add(r: Any = r, strand: Any = strand, log: Any = log) -> None:
                for number in range(3):
                    r.schedule.wait(lambda: False, 1.0)
                    when = r.schedule.now + 2.0
                    strand._add_timer(Timer(r, strand, when, log))
                    if number < 2:
                        r.schedule.wait(lambda: False, 3.0)
                        r.pool.parking.notify()
                        r.pool.parking.notify()

            r.actor("adder", add)
            r.run()
            r.expect(len(log) == 3 and all(when == ran for when, ran in log), f"(due, ran): {log}")


def test_deadline_against_due() -> None:
    """While a timer is pending nobody is told that there is none, whoever else looks at the heap.

    Mutation caught: `deadline` looks whether there are any before it has the heap's turn.
    """
    for seed in seeds():
        with rig(seed, ("_rt/io/timers.py",)) as r:
            strand, heap, told = r.strand(), r.pool.timers, []
            heap.add(Timer(r, strand, 2000.0, []))
            for name in range(2):
                r.actor(f"due{name}", lambda: heap.due(1000.0))
            r.actor("deadline", lambda: told.append(heap.deadline(1000.0)))
            r.run()
            r.expect(told[0] in (1000.0 + LOOK_AGAIN, 2000.0), f"deadline() said {told[0]}")


def test_one_wake_for_each_pop() -> None:
    """Whoever is popped from `parked` gets one wake, in the place where it slept, though it leaves and parks again meanwhile.

    Mutation caught: whether the worker sits at the poller is asked of the worker after it was popped.
    """
    for seed in seeds(600):
        with rig(seed, ("_rt/sched/parking.py",), 2) as r:
            parking = r.pool.parking
            r.schedule.always = lambda r=r: _parked_once(r)  # type: ignore[misc]

            def wake(parking: Any = parking, r: Any = r) -> None:
                for _ in range(2):
                    r.schedule.wait(lambda: parking.parked, 1.0)
                    parking.notify()

            def event(r: Any = r) -> None:
                for _ in range(6):
                    r.schedule.point()
                    r.pool.poller.wake()

            for name in range(2):
                r.actor(f"waker{name}", wake)
            r.actor("events", event)
            r.run()
            r.expect(len(parking.parked) == 2, f"parked {len(parking.parked)} of 2")
            r.expect(all(w.bell.locked() for w in r.workers), "a bell rings for nobody")
