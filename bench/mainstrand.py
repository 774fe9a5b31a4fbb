"""An unmodified asyncio program on plait's main strand against asyncio's own loop (and uvloop): seconds for the work.

The programs know nothing of plait; the loop factory of `asyncio.Runner` is all that differs.
switch     1,000 tasks, `await asyncio.sleep(0)`
timers     1,000 tasks, each sleeping 50 times for 0.1 ms: timers come due faster than they are served
timeouts   100 tasks, 600 times `async with asyncio.timeout(60)` around a yield: a timer set and cancelled
queue      100 pairs over an `asyncio.Queue(10)`, 3,000 items each
echo       50 connections to an `asyncio.start_server` in the same loop, 400 messages of 64 bytes there and back
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from bench import common


async def each(count: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(work())


async def switch(scale: float) -> None:
    async def work() -> None:
        for _ in range(int(300 * scale)):
            await asyncio.sleep(0)

    await each(1000, work)


async def timers(scale: float) -> None:
    async def work() -> None:
        for _ in range(int(50 * scale)):
            await asyncio.sleep(0.0001)

    await each(1000, work)


async def timeouts(scale: float) -> None:
    async def work() -> None:
        for _ in range(int(600 * scale)):
            async with asyncio.timeout(60):
                await asyncio.sleep(0)

    await each(100, work)


async def queue(scale: float) -> None:
    async def work() -> None:
        items: asyncio.Queue[int] = asyncio.Queue(10)
        count = int(3000 * scale)

        async def produce() -> None:
            for i in range(count):
                await items.put(i)

        producer = asyncio.create_task(produce())
        for _ in range(count):
            await items.get()
        await producer

    await each(100, work)


async def echo(scale: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(int(400 * scale)):
            writer.write(b"x" * 64)
            await reader.readexactly(64)
        writer.close()
        await writer.wait_closed()

    async with server:
        await each(50, work)


PROGRAMS: dict[str, Callable[[float], Coroutine[Any, Any, None]]] = {
    "switch": switch,
    "timers": timers,
    "timeouts": timeouts,
    "queue": queue,
    "echo": echo,
}


def main() -> None:
    args = common.program_arguments(__doc__, PROGRAMS, "switch")
    with asyncio.Runner(loop_factory=common.loop_factory(args.peer)) as runner:
        common.emit(runner.run(common.timed(PROGRAMS[args.program], args.scale)))


if __name__ == "__main__":
    main()
