"""The client process: `clients.py PORT CLIENTS BLOCKERS ROUNDS LIMIT`, on asyncio's own loop, whoever serves.

An innocent client asks ROUNDS times, about once a second: it connects, sends a line, waits for its echo and the end of
the connection, and notes how long that took. A blocker sends `block` once, some time in the first three seconds.
What has no answer after LIMIT seconds counts with the time it has waited. A line of JSON every second, the last one is
the result.
"""

import asyncio
import contextlib
import json
import random
import sys
import time

import child


class Tally:
    """What the clients have seen so far; all of it belongs to the one loop of this process."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.latencies: list[float] = []
        self.pending: dict[int, float] = {}  # client: since when it waits
        self.blocks = 0
        self.errors = 0
        self.end = self.begin

    def progress(self) -> dict[str, float]:
        now = time.perf_counter()
        return {
            "seconds": now - self.begin,
            "answered": len(self.latencies),
            "blocks": self.blocks,
            "oldest": now - min(self.pending.values(), default=now),
        }

    def result(self) -> dict[str, float]:
        now = time.perf_counter()
        ordered = sorted(self.latencies + [now - since for since in self.pending.values()]) or [0.0]
        return {
            **self.progress(),
            "throughput": len(self.latencies) / max(self.end - self.begin, 0.001),
            "p50": ordered[len(ordered) // 2],
            "p99": ordered[int(len(ordered) * 0.99)],
            "max": ordered[-1],
            "unanswered": len(self.pending),
            "errors": self.errors,
        }


async def ask(port: int, text: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(text)
        if await reader.read() != text:
            raise ConnectionError("not what was sent")
    finally:
        writer.close()


async def innocent(key: int, port: int, rounds: int, tally: Tally, chance: random.Random) -> None:
    for number in range(rounds):
        await asyncio.sleep(chance.uniform(0.8, 1.2) if number else chance.uniform(0, 1))
        tally.pending[key] = begin = time.perf_counter()
        try:
            await ask(port, b"hello\n")
        except OSError:
            tally.errors += 1
        else:
            tally.end = time.perf_counter()
            tally.latencies.append(tally.end - begin)
        del tally.pending[key]


async def blocker(port: int, tally: Tally, chance: random.Random) -> None:
    await asyncio.sleep(chance.uniform(0.5, 3))
    try:
        await ask(port, b"block\n")
    except OSError:
        tally.errors += 1
    tally.blocks += 1


async def show(tally: Tally) -> None:
    while True:
        await asyncio.sleep(1)
        print(json.dumps(tally.progress()), flush=True)


async def main(port: int, clients: int, blockers: int, rounds: int, limit: float) -> None:
    tally, chance = Tally(), random.Random(4)
    shown = asyncio.create_task(show(tally))
    tasks = [asyncio.create_task(innocent(key, port, rounds, tally, chance)) for key in range(clients - blockers)]
    tasks += [asyncio.create_task(blocker(port, tally, chance)) for _ in range(blockers)]
    _, late = await asyncio.wait(tasks, timeout=limit)
    shown.cancel()
    print(json.dumps(tally.result()), flush=True)
    for task in late:
        task.cancel()
    await asyncio.wait(tasks)


if __name__ == "__main__":
    child.live_with_parent()
    child.raise_descriptor_limit()
    port, clients, blockers, rounds = map(int, sys.argv[1:5])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(port, clients, blockers, rounds, float(sys.argv[5])))
