"""Handles of call_soon, call_later and call_at: they are, and print themselves, as asyncio's."""

from __future__ import annotations

import asyncio
import contextvars
import re
from collections.abc import Callable
from typing import Any

import pytest
from unit_helpers import everywhere, in_plait

import plait

WHERE: contextvars.ContextVar[str] = contextvars.ContextVar("WHERE")


def nothing(*_args: object) -> None:
    """A callback."""


async def as_asyncio_makes_them(debug: bool) -> list[Any]:
    """What can be seen of handles of each kind, pending and cancelled."""
    loop = asyncio.get_running_loop()
    loop.set_debug(debug)
    made: tuple[Callable[[], asyncio.Handle], ...] = (
        lambda: loop.call_soon(nothing, 1, "two"),
        lambda: loop.call_later(3600, nothing),
        lambda: loop.call_at(loop.time() + 3600, nothing, 3),
    )
    seen: list[Any] = []
    for make in made:
        handle = make()
        for _ in range(2):
            text = re.sub(r"when=\S+?(?=[ >])|:\d+|0x\w+", "", repr(handle))
            seen.append((handle.cancelled(), text, isinstance(handle, asyncio.TimerHandle)))
            handle.cancel()
            handle.cancel()
    loop.set_debug(False)
    return seen


@pytest.mark.parametrize("debug", [False, True])
def test_they_look_like_asyncios(debug: bool) -> None:
    assert plait.run(as_asyncio_makes_them(debug)) == asyncio.run(as_asyncio_makes_them(debug))


@everywhere
async def test_a_callback_runs_in_the_context_of_who_asked() -> None:
    loop = asyncio.get_running_loop()
    seen: list[tuple[str, object]] = []
    ended = loop.create_future()
    other = contextvars.copy_context()
    other.run(WHERE.set, "other")
    WHERE.set("here")
    loop.call_soon(lambda: seen.append(("soon", WHERE.get())))
    loop.call_soon(lambda: seen.append(("soon", WHERE.get())), context=other)
    loop.call_later(0, lambda: seen.append(("later", WHERE.get())))
    loop.call_later(0, lambda: (seen.append(("later", WHERE.get())), ended.set_result(None)), context=other)
    WHERE.set("changed")
    await ended
    assert sorted(seen) == [("later", "here"), ("later", "other"), ("soon", "here"), ("soon", "other")]


@in_plait()
async def test_a_timer_cancelled_twice_counts_once() -> None:
    loop: Any = asyncio.get_running_loop()
    before = loop._timers.cancelled
    timer = loop.call_later(3600, nothing)
    timer.cancel()
    timer.cancel()
    assert loop._timers.cancelled == before + 1
    assert (timer._callback, timer._args) == (None, None)


@in_plait()
async def test_one_cancelled_in_debug_mode_can_still_be_printed() -> None:
    """It was made before, without what debug mode keeps."""
    loop = asyncio.get_running_loop()
    timer = loop.call_later(3600, nothing)
    loop.set_debug(True)
    timer.cancel()
    assert "nothing" in repr(timer)
    loop.set_debug(False)
