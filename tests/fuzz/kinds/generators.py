"""Asynchronous generators: closed, dropped, and left open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from fuzz.kinds import inner, leaf
from fuzz.play import Play
from fuzz.program import Node


async def _numbers(play: Play, count: int) -> AsyncGenerator[int, None]:
    try:
        for number in range(count):
            yield number
            await asyncio.sleep(0)
    finally:
        await asyncio.sleep(0)
        play.log("generator closed")


@leaf(lambda dice: (dice.randrange(1, 4),), weight=2)
async def generator(play: Play, count: int) -> list[int]:
    found = []
    numbers = _numbers(play, count)
    try:
        async for number in numbers:
            found.append(number)
            if number == 1:
                break
    finally:
        await numbers.aclose()
    return found


@leaf(weight=1)
async def generator_dropped(play: Play) -> int:
    """Its finaliser has the loop close it."""
    async for number in _numbers(play, 3):
        return number
    return -1


@leaf(weight=1)
async def generator_left(play: Play) -> int:
    """The loop closes it at its end."""
    play.generators.append(numbers := _numbers(play, 3))
    return await anext(numbers)


@inner(lambda dice: (dice.nodes(1, 3),))
async def generator_of(play: Play, nodes: list[Node]) -> list[str]:
    """Cancelled and raising inside."""

    async def results() -> AsyncGenerator[str, None]:
        for each in nodes:
            try:
                yield repr(await play.node(each))
            finally:
                await asyncio.sleep(0)

    return [each async for each in results()]
