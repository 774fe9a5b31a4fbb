"""Async generators are finalised in the strand that first iterated them, whoever collects them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from unit_helpers import KINDS, collected, eventually, everywhere, in_plait, in_strand, value

import plait
from plait._rt.asyncio_face import asyncgens


class Numbers:
    """Makes a generator, and knows where its finally ran."""

    def __init__(self) -> None:
        self.ended: list[tuple[Any, Any]] = []

    async def count(self) -> AsyncGenerator[int, None]:
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            await asyncio.sleep(0)
            await plait.checkpoint()
            self.ended.append((plait.current_strand(), asyncio.current_task() is not None))


async def first(generator: AsyncGenerator[int, None]) -> Any:
    assert await anext(generator) == 0
    return plait.current_strand()


@everywhere
async def test_collected_where_it_ran() -> None:
    numbers = Numbers()
    here = await first(numbers.count())
    await eventually(lambda: collected(lambda: None) and numbers.ended)
    assert numbers.ended == [(here, True)]


@pytest.mark.parametrize("collector", KINDS)
@pytest.mark.parametrize("owner", ["main", "pooled", "pinned"])
def test_collected_elsewhere(owner: str, collector: str) -> None:
    async def main() -> None:
        numbers = Numbers()
        strand = plait.current_strand() if owner == "main" else plait.Strand(pinned=owner == "pinned")
        box = [numbers.count()]
        assert await strand.call(first(box[0])) is strand

        async def drop() -> None:
            box.clear()
            gc.collect()

        await in_strand(collector, drop())
        await eventually(lambda: gc.collect() >= 0 and numbers.ended)
        assert numbers.ended == [(strand, True)]

    plait.run(main(), workers=2)


@pytest.mark.parametrize("owner", ["main", "pooled", "pinned"])
def test_open_ones_are_closed_at_the_end_in_their_strand(owner: str) -> None:
    numbers = Numbers()
    kept: list[Any] = []

    async def main() -> None:
        strand = plait.current_strand() if owner == "main" else plait.Strand(pinned=owner == "pinned")
        kept.extend([numbers.count(), strand])
        await strand.call(first(kept[0]))

    plait.run(main())
    assert numbers.ended == [(kept[1], True)]


def test_an_error_while_closing_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def bad() -> AsyncGenerator[int, None]:
        try:
            yield 0
        finally:
            raise ValueError("closing")

    async def main() -> None:
        for where in ("main", "pooled"):
            kept.append(bad())
            await in_strand(where, first(kept[-1]))

    kept: list[Any] = []
    plait.run(main())
    assert caplog.text.count("ValueError: closing") == 2
    assert "an error occurred during closing of asynchronous generator" in caplog.text


@everywhere
async def test_closed_by_hand() -> None:
    numbers = Numbers()
    generator = numbers.count()
    here = await first(generator)
    await generator.aclose()
    assert numbers.ended == [(here, True)]
    with pytest.raises(StopAsyncIteration):
        await anext(generator)


@in_plait(workers=2)
async def test_many_from_many_strands() -> None:
    numbers = Numbers()

    async def leave() -> None:
        await first(numbers.count())

    await asyncio.gather(*[plait.spawn(leave()) for _ in range(200)])
    await eventually(lambda: gc.collect() >= 0 and len(numbers.ended) == 200)


def test_hooks_are_the_users_again_afterwards() -> None:
    import sys

    before = sys.get_asyncgen_hooks()
    plait.run(value(1))
    assert sys.get_asyncgen_hooks() == before


@in_plait
async def test_generators_may_be_collected_in_the_middle_of_a_sweep() -> None:
    """The interpreter's collector runs where memory is taken, up to 3.11, and finalises them there."""

    async def numbers() -> AsyncGenerator[int, None]:
        yield 1

    async def begun() -> AsyncGenerator[int, None]:
        generator = numbers()
        await anext(generator)
        return generator

    kept = [await begun() for _ in range(50)]
    gc.collect()
    thresholds = gc.get_threshold()
    gc.disable()
    try:
        for _ in range(50):
            cycle: list[Any] = [await begun()]
            cycle.append(cycle)
        del cycle
        gc.set_threshold(gc.get_count()[0] + 10)
        gc.enable()
        asyncgens._sweep()
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
    for generator in kept:
        await generator.aclose()


def test_nothing_of_a_run_that_has_ended_is_kept() -> None:
    """Neither for exhausted generators, nor for some that live on."""
    kept: list[Any] = []
    alive: list[Any] = []

    async def one() -> AsyncGenerator[int, None]:
        yield 1

    async def main() -> None:
        kept.append(weakref.ref(plait.current_strand()._pool))
        for where in KINDS:
            numbers = one()
            alive.append(numbers)

            async def iterate(mine: Any = numbers) -> None:
                assert [number async for number in one()] == [1]
                await anext(mine)

            await in_strand(where, iterate())

    before = len(asyncgens._homes)
    plait.run(main())
    assert len(asyncgens._homes) <= before
    assert collected(kept[0])


@everywhere
async def test_a_loops_own_generators_can_be_read() -> None:
    """As asyncio's `loop._asyncgens`: WeakSet, of this strand's only."""
    mine, others, never = Numbers().count(), Numbers().count(), Numbers().count()
    await first(mine)
    await plait.Strand().call(first(others))
    loop: Any = asyncio.get_running_loop()
    assert set(loop._asyncgens) == {mine}
    assert len(loop._asyncgens) == 1 and never not in loop._asyncgens
    await mine.aclose()
    await others.aclose()


@pytest.mark.parametrize("where", ["spawned", "pooled"])
def test_a_strand_closes_its_own_generators_when_asked(where: str) -> None:
    async def main() -> None:
        numbers, others = Numbers(), Numbers()
        generator, other = numbers.count(), others.count()
        await first(other)

        async def close() -> None:
            await first(generator)
            await asyncio.get_running_loop().shutdown_asyncgens()
            assert len(numbers.ended) == 1

        await in_strand(where, close())
        assert not others.ended
        await other.aclose()

    plait.run(main())


@in_plait
async def test_strands_of_exhausted_generators_are_let_go() -> None:
    """When some more generators were begun, anywhere."""

    async def one() -> AsyncGenerator[int, None]:
        yield 1

    async def exhaust() -> None:
        kept.append(weakref.ref(plait.current_strand()))
        assert [number async for number in one()] == [1]

    kept: list[Any] = []
    await plait.Strand().call(exhaust())
    others = [one() for _ in range(4 * asyncgens._sweep_at)]
    for other in others:
        assert [number async for number in other] == [1]
    await eventually(lambda: collected(kept[0]))


def test_another_loop_in_a_step_of_ours() -> None:
    """Such as a test framework's, which sets its own hooks, or none."""

    class Loop:
        """Not asyncio's either."""

    async def one() -> AsyncGenerator[int, None]:
        yield 1

    async def main() -> None:
        for other in (None, Loop()):
            generator, ours = one(), asyncio.get_running_loop()
            asyncio._set_running_loop(other)  # type: ignore[arg-type]
            try:
                with pytest.raises(StopIteration):
                    anext(generator).__await__().send(None)  # type: ignore[attr-defined]
            finally:
                asyncio._set_running_loop(ours)
            assert not any(reference() is generator for reference, _ in asyncgens._homes.values())
            del generator

    plait.run(main())
