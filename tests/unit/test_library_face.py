"""What libraries read of a task beyond asyncio's documented interface (found by tests/libraries)."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from unit_helpers import everywhere, forever, value

import plait


@everywhere
async def test_callbacks_are_listed_as_asyncio_lists_them() -> None:
    """anyio looks in `_callbacks`, pairs of function and context, for the one that run_until_complete adds."""

    def callback(_task: object) -> None:
        pass

    for task in (asyncio.create_task(value(1)), plait.spawn(forever())):
        assert not task._callbacks
        task.add_done_callback(callback)
        [(function, context)] = task._callbacks
        assert function is callback
        assert context is not None
        task.cancel()


@pytest.mark.parametrize(
    "eager", [False, pytest.param(True, marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="3.12"))]
)
@pytest.mark.parametrize("pinned", [False, True])
def test_the_end_cancels_tasks_that_asyncio_made(eager: bool, pinned: bool) -> None:
    """aiohttp's server makes an asyncio.Task for each connection, an eager one from 3.12 on."""
    events = []

    async def connection() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0.001)
            events.append("cancelled")

    async def serve(started: plait.Event) -> None:
        options: Any = {"eager_start": True} if eager else {}
        c_task = asyncio.Task(connection(), loop=asyncio.get_running_loop(), **options)
        await asyncio.sleep(0.001)
        events.append(c_task)
        started.set()

    async def main() -> None:
        started = plait.Event()
        strand = plait.Strand(pinned=pinned)
        await strand.call(serve(started))
        await started.wait()

    unmade = asyncio.Task.__new__(asyncio.Task)  # what asks for all tasks may find it too
    plait.run(main())
    del unmade
    assert events[1:] == ["cancelled"]
    assert events[0].cancelled()
