"""SharedPoller: add, remove, poll and the return of a descriptor's number (P1-P4)."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from plait._rt.io.poller import READ, Poller, ReadyHandle, SharedPoller

from .baton import Schedule, seeds
from .rig import SELECTOR, rig

FILES = ("_rt/io/poller.py", "_rt/sched/parking.py", *(["_rt/io/selectors_poller.py"] if SELECTOR else []))


def test_level_triggered() -> None:
    """A reader is called until everything was read, by two workers, while another reader comes and goes on the same descriptor.

    Mutations caught: a handle that ran is not armed again; `add` does not arm; one strand's remove takes the other's handle.
    """
    for seed in seeds():
        with rig(seed, FILES, 2) as r:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            first, second = r.strand(), r.strand()
            got: list[bytes] = []

            def read(ours: Any = ours, got: Any = got) -> None:
                try:
                    got.append(ours.recv(1))
                except BlockingIOError:
                    pass

            def come_and_go(r: Any = r, ours: Any = ours, second: Any = second) -> None:
                for _ in range(2):
                    second._add_reader(ours, lambda: None)
                    r.schedule.point()
                    second._remove_reader(ours)

            def write(r: Any = r, theirs: Any = theirs) -> None:
                for part in (b"ab", b"cd"):
                    r.pause()
                    theirs.send(part)

            first._add_reader(ours, read)
            r.actor("writer", write)
            r.actor("other", come_and_go)
            r.run()
            r.expect(b"".join(got) == b"abcd", f"got {got}")
            r.check_quiet(first, second)
            first._remove_reader(ours)
            ours.close()
            theirs.close()


def test_number_comes_back() -> None:
    """A descriptor is removed and closed, and its number comes back for another file, while polls are under way: the new
    reader is called for the new file's data, all of it, and not for the old file's.

    Mutations caught: `add` registers without looking whether the old entry lives; events of a poll that began before the
    entry are delivered; an event that is not delivered does not arm again.
    """
    for seed in seeds():
        with rig(seed, (*FILES, "_rt/strand/strand.py")[seed % 2 :], 2) as r:
            strand = r.strand()
            calls: list[str] = []

            pipes: list[int] = []

            def open_first(strand: Any = strand, calls: Any = calls, pipes: Any = pipes) -> None:
                pipes += os.pipe()
                os.set_blocking(pipes[0], False)
                strand._add_reader(pipes[0], lambda: (calls.append("old"), read_all(pipes[0])))  # else it is called for ever
                os.write(pipes[1], b"x")

            def reopen(r: Any = r, strand: Any = strand, calls: Any = calls, pipes: Any = pipes) -> None:
                old = pipes[0]
                if r.rng.random() < 0.7:
                    strand._remove_reader(old)
                for fd in pipes:
                    os.close(fd)
                pipes[:] = os.pipe()
                assert pipes[0] == old
                calls.append("reopened")
                os.set_blocking(old, False)
                strand._add_reader(old, lambda: calls.append(read_all(old)))

            def act(r: Any = r, strand: Any = strand, calls: Any = calls, pipes: Any = pipes) -> None:
                strand.call_soon_threadsafe(open_first)
                strand.call_soon_threadsafe(reopen)
                r.schedule.wait(lambda: "reopened" in calls)
                r.pause()
                calls.append("written")
                os.write(pipes[1], b"y")
                r.schedule.wait(lambda: calls[-1] == "new", 5.0)

            r.actor("writer", act)
            r.run()
            strand._remove_reader(pipes[0])
            for fd in pipes:
                os.close(fd)
            after = calls[calls.index("reopened") :]
            r.expect("old" not in after, f"{calls}")
            r.expect(after == ["reopened", "written", "new"], f"{calls}")


def read_all(fd: int) -> str:
    """What a reader was called for."""
    try:
        return "new" if os.read(fd, 9) else "end"
    except BlockingIOError:
        return "nothing"


def test_finaliser_in_a_poll() -> None:
    """A finaliser that the collector runs anywhere inside a poll removes the reader that has an event (P1).

    Mutation caught: `_arm_or_forget` takes it for granted that the entry is still listed.
    """
    for seed in seeds(60):
        with rig(seed, FILES) as r:
            ours, theirs = socket.socketpair()
            strand = r.strand()
            poller = r.pool.poller
            handle = ReadyHandle(lambda: None, (), strand, None)
            poller.add(ours.fileno(), READ, handle)
            theirs.send(b"x")
            at = r.rng.randrange(40)

            def poll(r: Any = r, poller: Any = poller) -> None:
                poller.poll(0)
                poller.poll(0)

            def collect(r: Any = r, poller: Any = poller, at: int = at, ours: Any = ours, strand: Any = strand) -> None:
                if r.schedule.points >= at and poller._entries:
                    poller.remove(ours.fileno(), READ, strand)

            r.schedule.coin, r.schedule.falls = 1.0, None
            r.schedule.always = collect
            r.actor("poller", poll)
            r.run()
            ours.close()
            theirs.close()


def test_ring_against_close() -> None:
    """Who rings the bell of a poller that is being closed doesn't write to the file that gets the bell's number next.

    Mutations caught: `close` closes the bell's descriptors itself; `wake` has the bell's number, and not the bell.
    """
    for seed in seeds():
        schedule = Schedule(seed, ("_rt/io/poller.py", "_rt/io/epoll.py", "_rt/io/selectors_poller.py"))
        poller = (SharedPoller, Poller)[seed % 2](SELECTOR)
        next_files: list[int] = []

        def close(poller: Any = poller, next_files: Any = next_files, schedule: Any = schedule) -> None:
            poller.close()
            next_files += [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]
            schedule.point()

        for _ in range(2):
            schedule.actor("ringer", poller.wake)
        schedule.actor("closer", close)
        try:
            schedule.run()
            for fd in next_files:
                with pytest.raises(BlockingIOError):
                    os.eventfd_read(fd)
        finally:
            for fd in next_files:
                os.close(fd)
