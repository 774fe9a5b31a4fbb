"""plait.Event: set and awaited from any strand or thread."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any

import pytest
from unit_helpers import KINDS, LONG, eventually, everywhere, in_plait, in_strand, other_strand

import plait


@everywhere
async def test_set_clear_and_wait() -> None:
    event = plait.Event()
    assert not event.is_set()
    assert "unset" in repr(event)
    event.set()
    event.set()
    assert event.is_set()
    assert await event.wait() is True
    event.clear()
    assert not event.is_set()
    asyncio.get_running_loop().call_soon(event.set)
    assert await event.wait() is True


@everywhere
async def test_waiting_for_a_set_event_does_not_suspend() -> None:
    steps: list[str] = []
    event = plait.Event()
    event.set()
    asyncio.get_running_loop().call_soon(steps.append, "callback")
    await event.wait()
    assert steps == []


def test_made_and_set_outside() -> None:
    event = plait.Event()

    async def main() -> bool:
        return bool(await asyncio.wait_for(plait.spawn(event.wait()), LONG))

    event.set()
    assert plait.run(main()) is True


@everywhere
async def test_set_from_a_thread() -> None:
    for _ in range(20):
        event = plait.Event()
        thread = threading.Thread(target=event.set)
        thread.start()
        assert await asyncio.wait_for(event.wait(), LONG) is True
        thread.join()


@in_plait(workers=2)
async def test_wakes_all_who_wait_wherever_they_are() -> None:
    event = plait.Event()
    tasks = [plait.spawn(in_strand(where, event.wait())) for where in KINDS for _ in range(5)]
    tasks += [plait.Strand().spawn(event.wait())]
    local = asyncio.create_task(event.wait())
    await eventually(lambda: "22 waiting" in repr(event))
    event.set()
    assert await asyncio.gather(local, *tasks) == [True] * 22
    assert "0 waiting" in repr(event)


@in_plait(workers=2)
async def test_a_set_followed_by_clear_wakes_who_waited() -> None:
    for _ in range(50):
        event = plait.Event()
        tasks = [plait.spawn(event.wait()) for _ in range(4)]
        await eventually(lambda event=event: "4 waiting" in repr(event))  # type: ignore[misc]
        event.set()
        event.clear()
        assert await asyncio.wait_for(asyncio.gather(*tasks), LONG) == [True] * 4
        assert not event.is_set()


@in_plait(workers=2)
async def test_no_set_is_slept_through() -> None:
    """Two strands and a thread hand a token round by events; each lost wake-up would be a hang."""
    rounds = 400
    events = [plait.Event() for _ in range(3)]

    async def pass_on(mine: plait.Event, following: plait.Event) -> None:
        for _ in range(rounds):
            await mine.wait()
            mine.clear()
            following.set()

    tasks = [plait.spawn(pass_on(events[number], events[(number + 1) % 3])) for number in range(3)]
    events[0].set()
    await asyncio.wait_for(asyncio.gather(*tasks), LONG)


@everywhere
async def test_a_cancelled_wait_loses_nothing() -> None:
    event = plait.Event()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), 0.001)
    waiting, cancelled = asyncio.create_task(event.wait()), asyncio.create_task(event.wait())
    await asyncio.sleep(0)
    cancelled.cancel()
    event.set()
    assert await waiting is True
    with pytest.raises(asyncio.CancelledError):
        await cancelled


@everywhere
async def test_abandoned_waits_do_not_pile_up() -> None:
    event = plait.Event()
    patient = asyncio.create_task(event.wait())
    for _ in range(300):
        task = asyncio.create_task(event.wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    found = re.search(r"(\d+) waiting", repr(event))
    assert found is not None
    assert int(found[1]) < 100
    event.set()
    assert await patient is True


@everywhere
async def test_a_wait_passes_for_a_coroutine() -> None:
    event = plait.Event()
    waits: list[Any] = [asyncio.create_task(event.wait()), plait.spawn(event.wait()), event.wait(), event.wait()]
    gathered = asyncio.gather(*waits)
    asyncio.get_running_loop().call_soon(event.set)
    assert await gathered == [True] * 4
    assert asyncio.iscoroutine(event.wait())


@in_plait(workers=2)
async def test_sets_race_with_cancels() -> None:
    for _ in range(150):
        event = plait.Event()
        tasks = [plait.spawn(event.wait()) for _ in range(4)]
        setter = plait.spawn(other_strand(event.set))
        for task in tasks[:2]:
            task.cancel()
        assert await asyncio.wait_for(asyncio.gather(*tasks[2:]), LONG) == [True, True]
        done, pending = await asyncio.wait(tasks[:2], timeout=LONG)
        assert not pending
        await setter


@in_plait
async def test_set_in_the_middle_of_a_signal_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    event = plait.Event()
    previous = signal.signal(signal.SIGUSR1, lambda *_: event.set())
    try:
        for _ in range(20):
            event.clear()
            waits = [plait.spawn(event.wait()) for _ in range(3)]
            signal.raise_signal(signal.SIGUSR1)
            await asyncio.wait_for(asyncio.gather(*waits, event.wait()), LONG)
    finally:
        signal.signal(signal.SIGUSR1, previous)


@in_plait
async def test_a_waiter_of_a_loop_that_is_closed_is_in_nobodys_way() -> None:
    event = plait.Event()

    async def gives_up() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(event.wait(), 0.01)

    await plait.to_thread(asyncio.run, gives_up())  # its waiter is still in the queue, in front
    tasks = [plait.spawn(event.wait()) for _ in range(3)]
    await eventually(lambda: "4 waiting" in repr(event))
    event.set()
    for task in tasks:
        assert await asyncio.wait_for(task, LONG) is True
