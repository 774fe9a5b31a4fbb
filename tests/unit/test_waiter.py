"""Waits that were given up: nothing of who waited is kept by what it waited for."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from unit_helpers import collected, eventually, everywhere, in_plait

import plait


class Thing:
    """What a task refers to."""


EVENT = plait.Event()

WAITS: dict[str, Callable[[], Any]] = {
    "sleep": lambda: plait.sleep(3600),
    "sleep with a result": lambda: plait.sleep(3600, Thing()),
    "event": EVENT.wait,
    "asyncio's sleep": lambda: asyncio.sleep(3600),
}


@pytest.mark.parametrize("what", WAITS)
def test_a_task_that_gave_up_is_let_go(what: str) -> None:
    @everywhere
    async def test() -> None:
        kept: list[Any] = []

        async def waits() -> None:
            thing = Thing()
            kept.append(weakref.ref(thing))
            await plait.checkpoint()
            await plait.checkpoint()
            holds = [thing]  # the coroutine is done soon; who keeps the task keeps what it returns
            try:
                await WAITS[what]()
            except asyncio.CancelledError:
                return holds  # type: ignore[return-value]

        async def gives_up(start: Any) -> None:
            task = start(waits())
            kept.append(weakref.ref(task))
            await eventually(lambda: len(kept) > 1 and task._fut_waiter is not None)
            task.cancel()
            await task

        for start in (plait.spawn, asyncio.create_task):
            kept.clear()
            await gives_up(start)
            await eventually(lambda: all(collected(each) for each in kept))

    for where in ("main", "spawned", "pooled", "pinned"):
        test(where=where)


@in_plait
async def test_a_c_task_that_gave_up_is_let_go() -> None:
    """And gets the message of its cancel."""
    c_task: Any = asyncio.Task
    task = c_task(EVENT.wait(), loop=asyncio.get_running_loop())
    kept = weakref.ref(task)
    await asyncio.sleep(0)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    assert raised.value.args in (("enough",), ())  # 3.11 makes a new one
    del task, raised
    await eventually(lambda: collected(kept))


@in_plait
async def test_a_time_out_that_was_not_needed_keeps_nothing() -> None:
    """Its timer stays for a while, and with it the strand that set it."""

    async def waits() -> Any:
        thing = Thing()
        kept.append(weakref.ref(thing))
        await plait.checkpoint()
        await plait.checkpoint()
        async with asyncio.timeout(3600):
            await plait.sleep(0.001)
        return thing

    kept: list[Any] = []
    before = plait.spawn(plait.sleep(3000))  # the first timer would go at the next look
    await plait.spawn(waits())
    await eventually(lambda: collected(kept[0]))
    before.cancel()


@in_plait
async def test_what_is_abandoned_may_still_fire() -> None:
    event, cancelled = plait.Event(), [plait.spawn(plait.sleep(0.01)) for _ in range(50)]
    cancelled += [plait.spawn(event.wait()) for _ in range(50)]
    await asyncio.sleep(0.01)
    for number, task in enumerate(cancelled):
        task.cancel()
        if number == 75:
            event.set()
    await asyncio.wait(cancelled)
    assert await plait.spawn(plait.sleep(0.02, 7)) == 7


@pytest.mark.parametrize("what", WAITS)
def test_a_coroutine_that_is_run_by_hand_can_be_closed(what: str) -> None:
    """Nobody enrolled its wait, so there is nothing to take back."""

    async def waits() -> None:
        await WAITS[what]()

    async def main() -> None:
        coro = waits()
        coro.send(None)
        coro.close()

    plait.run(main())
