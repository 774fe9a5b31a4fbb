"""anyio on its asyncio backend."""

from __future__ import annotations

import time
from typing import Any

import pytest
from library_helpers import ROUNDS, abandoned, library, many, rounds, run, uses

import plait

anyio = library("anyio")
anyio_thread = library("anyio.to_thread", "anyio")
anyio_from_thread = library("anyio.from_thread", "anyio")


async def pipeline(number: int) -> None:
    """Producers, a bounded stream and a consumer in a task group."""
    send, receive = anyio.create_memory_object_stream(3)
    found: list[int] = []

    async def produce(stream: Any, base: int) -> None:
        async with stream:
            for n in range(5):
                await stream.send(base + n)

    async def consume() -> None:
        async with receive:
            async for item in receive:
                found.append(item)

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        async with send:
            for base in (0, 100, number * 1000):
                group.start_soon(produce, send.clone(), base)
    assert sorted(found) == sorted(base + n for base in (0, 100, number * 1000) for n in range(5))


async def scopes(_number: int) -> None:
    """Cancel scopes, nested and shielded."""
    with anyio.move_on_after(0.001) as outer:
        await anyio.sleep(60)
    assert outer.cancelled_caught
    reached = []
    try:
        with anyio.fail_after(0.001):
            try:
                await anyio.sleep(60)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.001)
                    reached.append(True)
    except TimeoutError:
        reached.append(True)
    assert reached == [True, True]
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        await anyio.sleep(0)
        group.cancel_scope.cancel()


async def locks(_number: int) -> None:
    """Its locks, events and limiters, within a strand."""
    lock, event, semaphore = anyio.Lock(), anyio.Event(), anyio.Semaphore(2)
    inside = []

    async def work(n: int) -> None:
        await event.wait()
        async with semaphore, lock:
            assert not inside
            inside.append(n)
            await anyio.sleep(0)
            inside.remove(n)

    async with anyio.create_task_group() as group:
        for n in range(4):
            group.start_soon(work, n)
        event.set()


async def threads(number: int) -> None:
    """Out to a thread, and back into the strand."""

    async def double(n: int) -> int:
        await anyio.sleep(0)
        return 2 * n

    def blocking(n: int) -> int:
        time.sleep(0.0005)
        return anyio_from_thread.run(double, n) + 1  # type: ignore[no-any-return]

    assert await anyio_thread.run_sync(blocking, number) == 2 * number + 1


async def sockets(number: int) -> None:
    """A listener, a connection, an echo."""

    async def echo(stream: Any) -> None:
        async with stream:
            async for chunk in stream:
                await stream.send(chunk)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener:
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            body = bytes([number % 256]) * 70_000
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                async with anyio.create_task_group() as sending:
                    sending.start_soon(stream.send, body)
                    got = b""
                    while len(got) < len(body):
                        got += await stream.receive()
                assert got == body
            group.cancel_scope.cancel()


async def everything(number: int) -> None:
    """One round."""
    for part in (pipeline, scopes, locks, threads):
        await part(number)
    if number % 5 == 0:
        await sockets(number)


@uses
def test_everything(use: str) -> None:
    async def main() -> None:
        await many(use, lambda number: rounds(lambda n: everything(number * ROUNDS + n)))

    run(use, main)


@uses
def test_a_process(use: str) -> None:
    async def main() -> None:
        async def work(number: int) -> None:
            done = await anyio.run_process(["printf", "%d", str(number)])
            assert done.stdout == b"%d" % number

        await many(use, work)

    run(use, main)


@uses
@pytest.mark.complains(
    "Task exception was never retrieved",  # of a task that lost its cancel
    "run_async_from_thread",  # cancelled, it fails with concurrent.futures.CancelledError, on any loop
)
def test_the_end_in_the_middle(use: str) -> None:
    async def main() -> None:
        await abandoned(use, everything, loses_cancels=True)

    run(use, main)


def test_anyio_run() -> None:
    """anyio.run with plait's loop, and strands under it."""

    async def main() -> None:
        await everything(1)
        await many("spawned", everything)
        assert plait.current_strand()

    anyio.run(main, backend_options={"loop_factory": plait.new_event_loop})
