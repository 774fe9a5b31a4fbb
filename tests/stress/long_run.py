"""The long run: for STRESS_MINUTES (30) strands send each other numbered messages in every way there is, while others block,
compute, cancel, set timers, make garbage and start and end pinned strands.

    python tests/stress/long_run.py [--seconds S] [--json FILE]     one run, on this Python
    python tests/stress/long_run.py --table FILE...                 the table of docs/reliability.md from such files

Asserted at the end: every message sent was received or accounted for, none twice (long_run_routes.py); nothing was logged as an
error; memory, threads, descriptors, tasks and timers are flat (`Flat`); nothing is left behind. PLAIT_SEED repeats the dice.
A message that is under way for more than STUCK seconds ends the run, and so does a program that stands still (all stacks are
printed). `make test` runs some seconds of it, `make stress` all.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import faulthandler
import gc
import json
import logging
import os
import platform
import random
import signal
import statistics
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import long_run_routes as routes

import plait

STUCK = 60.0  # seconds that a message may take: far above what a busy machine does to it
HANG = 180.0  # seconds without a sample after which all stacks are printed and the process ends
PROGRESS = 30.0
MAX_POOL_THREADS = 64
TROUBLE_AT_ONCE = 12  # blockers, hogs and the like
WARM_UP = 0.2  # of the time: caches fill, threads start, memory finds its level


@dataclass(frozen=True)
class Flat:
    """How far a median of the last third may be above the one of the first third, after the warm-up."""

    factor: float
    more: float

    def holds(self, first: float, last: float) -> bool:
        return last <= first * self.factor + self.more


# Memory: the allocators' own unevenness. Threads: the pool keeps spares for the next hand-off, more or fewer as the dice have
# it, and the monitor up to three descriptors a thread. Tasks and timers: what the routes have at the moment.
FLAT = {
    "rss_kb": Flat(1.05, 2048),
    "threads": Flat(1.0, 6),
    "fds": Flat(1.0, 18),
    "tasks": Flat(1.1, 10),
    "timers": Flat(1.1, 200),
}
# The pool's, to_thread's (for five routes, those whose caller was cancelled, and the canceller), pinned ones, main, monitor
MAX_THREADS = MAX_POOL_THREADS + 40


class Told(list[str]):
    """What is wrong, told at once: the run may not come to its end."""

    def append(self, what: str) -> None:
        super().append(what)
        os.write(2, f"{_build()}: {what}\n".encode(errors="replace"))  # (not by print: it may be a finaliser that complains)


class Run:
    """One run: its routes, its dice, its figures."""

    def __init__(self, seed: int, seconds: float) -> None:
        self.seed, self.seconds = seed, seconds
        self.stopping = self.drained = False
        self.began = time.monotonic()
        self.port = 0
        self.routes: list[routes.Route] = []
        self.victims: dict[str, Any] = {}  # the tasks that may be cancelled, by name
        self.counters: list[collections.Counter[str]] = []
        self.samples: list[dict[str, float]] = []
        self.wrong = Told()
        self.stats: plait.Stats | None = None
        self.receiving: plait.Strand

    def dice(self, name: str) -> random.Random:
        """Dice of one's own: they are not shared between threads."""
        return random.Random(f"{self.seed} {name}")

    def counter(self) -> collections.Counter[str]:
        """A counter of one's own, added to the others' at the end."""
        self.counters.append(collections.Counter())
        return self.counters[-1]

    def total(self, name: str) -> int:
        return sum(counter[name] for counter in self.counters)

    def messages(self) -> dict[str, int]:
        ledgers = [route.ledger for route in self.routes]
        return {
            "sent": sum(ledger.sent for ledger in ledgers),
            "received": sum(ledger.received for ledger in ledgers),
            "accounted": sum(ledger.accounted for ledger in ledgers),
            "late": sum(ledger.late for ledger in ledgers),
            "open": sum(len(ledger.open) for ledger in ledgers),
        }

    # The program

    async def main(self) -> None:
        main, one, two = plait.current_strand(), plait.Strand(name="one"), plait.Strand(name="two")
        pinned = plait.Strand(name="pinned", pinned=True)
        self.receiving = one
        server = await plait.start_server(self.echo, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.make_routes([None, None, one, two, main, pinned], [one, two, main, pinned])
        async with plait.TaskGroup() as group:
            for route in self.routes:
                name = route.ledger.name
                group.create_task(self.keep(f"{name} sender", route.sender_home, route.send, "stopping"))
                group.create_task(self.keep(f"{name} receiver", route.receiver_home, route.receive, "drained"))
            group.create_task(self.cancel_some())
            group.create_task(self.make_trouble([one, two, main, pinned]))
            await self.watch()
            await self.drain()
        for route in self.routes:
            route.close()
        server.close()
        self.look_for_wrong(time.monotonic())
        self.stats = plait.stats()

    def make_routes(self, homes: list[routes.Home], strands: list[plait.Strand]) -> None:
        """Five of each kind, from anywhere to anywhere."""
        dice = self.dice("homes")
        for kind in (routes.Mailbox, routes.Garbage, routes.Children, routes.Threads, routes.Timers, routes.Tcp, routes.Pair):
            for number in range(5):
                self.routes.append(kind(self, f"{kind.__name__} {number}", dice.choice(homes), dice.choice(homes)))
        for number in range(5):
            self.routes.append(routes.Queue(self, f"Queue {number}", dice.choice(homes), dice.choice(strands)))

    async def keep(self, name: str, home: routes.Home, end: Callable[[], Coroutine[Any, Any, None]], until: str) -> None:
        """Run one end of a route, and start it again when it was cancelled."""
        while not getattr(self, until):
            task = plait.spawn(end()) if home is None else home.spawn(end())
            self.victims[name] = task
            if self.drained:  # said first, and only then `drain` looks for whom to cancel: one of the two sees the other
                task.cancel()
            await asyncio.wait({task})  # type: ignore[type-var]
            if not task.cancelled():
                task.result()  # raises what it raised

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection of the server; some block in the middle."""
        dice, count = random.Random(), collections.Counter[str]()  # (not kept: there are thousands of these)
        try:
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
                if dice.randrange(400) == 0:
                    await routes.pause(dice, count)
        except ConnectionError:
            pass  # a client that was cancelled
        finally:
            writer.close()

    # Trouble

    async def cancel_some(self) -> None:
        """Cancel senders and receivers at random, from a strand or from a thread that knows no loop."""
        dice, count = self.dice("cancels"), self.counter()
        while not self.stopping:
            for _ in range(dice.randrange(1, 4)):
                task = self.victims[dice.choice(sorted(self.victims))]
                count["cancels"] += 1
                await (plait.to_thread(task.cancel) if dice.randrange(4) == 0 else _call(task.cancel))
            await plait.sleep(dice.random() * 0.1)

    async def make_trouble(self, homes: list[plait.Strand]) -> None:
        """Block, compute and collect, in strands of their own and sometimes in those that others live in."""
        dice, count = self.dice("trouble"), self.counter()
        free = asyncio.Semaphore(TROUBLE_AT_ONCE)
        tasks: set[Any] = set()

        def done(task: Any) -> None:
            tasks.discard(task)
            free.release()

        while not self.stopping:
            await free.acquire()
            elsewhere = dice.randrange(8) == 0
            what = self.trouble(dice, count, 0.05 if elsewhere else 1.0)
            task = dice.choice(homes).spawn(_call(what)) if elsewhere else plait.spawn(_call(what))
            tasks.add(task)
            task.add_done_callback(done)
            await asyncio.sleep(dice.random() * 0.3)
        await asyncio.gather(*tasks)

    def trouble(self, dice: random.Random, count: collections.Counter[str], part: float) -> Callable[[], object]:
        """One thing that a task should not do; a part of its time where many would wait for it."""
        kind = dice.choices(("blocks", "hogs", "collections", "threads of its own"), (10, 4, 2, 1))[0]
        count[kind] += 1
        if kind == "blocks":
            seconds = dice.uniform(0.002, 0.300) * part
            return lambda: time.sleep(seconds)
        if kind == "hogs":
            seconds = dice.uniform(0.002, 0.200) * part
            return lambda: routes.compute(seconds)
        if kind == "collections":
            generation = dice.randrange(3)
            return lambda: gc.collect(generation)
        return lambda: threading.Thread(target=time.sleep, args=(0.01,), daemon=True).start()

    # Watching

    async def watch(self) -> None:
        """Sample until the time is over, or a message is stuck."""
        every = min(5.0, self.seconds / 40)
        told = self.began
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self.end_early)
        while (now := time.monotonic()) - self.began < self.seconds and not self.wrong:
            faulthandler.dump_traceback_later(HANG, exit=True)
            self.samples.append({"at": now - self.began, **usage()})
            self.look_for_wrong(now)
            if now - told >= PROGRESS:
                told = now
                print(self.progress(), flush=True)
            await asyncio.sleep(every)

    def end_early(self) -> None:
        """With the figures of the time that it ran."""
        self.seconds = min(self.seconds, time.monotonic() - self.began)

    def look_for_wrong(self, now: float) -> None:
        for route in self.routes:
            for each in route.ledger.wrong[:]:
                if each not in self.wrong:
                    self.wrong.append(each)
            oldest = route.ledger.oldest()
            if oldest is not None and now - oldest[1] > STUCK:
                self.wrong.append(f"{route.ledger.name}: message {oldest[0]} is under way for {now - oldest[1]:.0f} s")

    def progress(self) -> str:
        stats, sample, messages = plait.stats(), self.samples[-1], self.messages()
        return (
            f"{_build()} {sample['at']:5.0f} s: {messages['sent']:,} sent, {messages['open']} under way, "
            f"{messages['accounted']:,} accounted, {self.total('cancels'):,} cancels, {stats.handoffs:,} hand-offs, "
            f"{stats.steals:,} steals, {sample['rss_kb'] / 1024:.1f} MB, {sample['threads']:.0f} threads, "
            f"{sample['fds']:.0f} fds, {sample['tasks']:.0f} tasks, {sample['timers']:.0f} timers"
        )

    async def drain(self) -> None:
        """Nothing is sent any more; what is under way gets STUCK seconds to arrive. Then the receivers end."""
        self.stopping = True
        until = time.monotonic() + STUCK
        while time.monotonic() < until and (self.messages()["open"] or self.sending()):
            gc.collect()  # some are delivered by finalisers
            await asyncio.sleep(0.05)
        self.drained = True
        for task in self.victims.values():
            task.cancel()

    def sending(self) -> bool:
        return any(not task.done() for name, task in list(self.victims.items()) if name.endswith("sender"))


async def _call(function: Callable[[], object]) -> None:
    function()


def usage() -> dict[str, float]:
    """What must stay flat."""
    stats = plait.stats()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return {
        "rss_kb": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        "threads": len(os.listdir("/proc/self/task")),
        "fds": len(os.listdir("/proc/self/fd")),
        "tasks": stats.tasks,
        "timers": stats.timers,
    }


class Complaints(logging.Handler):
    """Whatever plait or asyncio log as an error is one. (Not the stall reports: stalls are what we make.)"""

    def __init__(self, wrong: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.wrong = wrong

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "plait.stalls":
            self.wrong.append(f"logged by {record.name}: {self.format(record)}")


def complain_to(wrong: list[str]) -> None:
    logging.basicConfig(handlers=[Complaints(wrong)], force=True)
    logging.getLogger("plait.stalls").addHandler(logging.NullHandler())
    sys.unraisablehook = lambda raised: wrong.append(f"unraisable: {raised.exc_value!r} in {raised.object!r}")
    threading.excepthook = lambda raised: wrong.append(f"in a thread: {raised.exc_value!r}")


# The verdict


def thirds(samples: list[dict[str, float]], seconds: float, what: str) -> tuple[float, float]:
    """The medians of the first and the last third after the warm-up."""
    values = [sample[what] for sample in samples if sample["at"] >= seconds * WARM_UP] or [samples[-1][what]]
    third = max(1, len(values) // 3)
    return statistics.median(values[:third]), statistics.median(values[-third:])


def figures(run: Run) -> dict[str, Any]:
    stats = run.stats
    flat = {what: thirds(run.samples, run.seconds, what) for what in FLAT} if run.samples else {}
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "version": platform.python_version(),
        "build": _build(),
        "seed": run.seed,
        "minutes": round(run.seconds / 60, 2),
        **run.messages(),
        "by kind": by_kind(run),
        **{name: run.total(name) for name in sorted({name for counter in run.counters for name in counter})},
        "handoffs": stats.handoffs if stats else 0,
        "steals": stats.steals if stats else 0,
        "stalls": stats.stalls if stats else 0,
        "steps": stats.steps if stats else 0,
        "first and last third": flat,
        "most": {what: max(sample[what] for sample in run.samples) for what in FLAT} if run.samples else {},
    }


def by_kind(run: Run) -> dict[str, int]:
    kinds: collections.Counter[str] = collections.Counter()
    for route in run.routes:
        kinds[type(route).__name__] += route.ledger.received
    return dict(kinds)


def verdict(run: Run, found: dict[str, Any]) -> list[str]:
    """All that is wrong."""
    wrong = list(run.wrong)
    for route in run.routes:
        ledger = route.ledger
        if ledger.open or ledger.sent != ledger.received + ledger.accounted:
            wrong.append(
                f"{ledger.name}: {ledger.sent} sent, {ledger.received} received, {ledger.accounted} accounted; "
                f"missing: {sorted(ledger.open)[:20]}"
            )
    for kind, received in found["by kind"].items():
        if not received:
            wrong.append(f"no message at all went by {kind}")
    if run.seconds >= 60:  # the first seconds are all warm-up
        for what, (first, last) in found["first and last third"].items():
            if not FLAT[what].holds(first, last):
                wrong.append(f"{what} is not flat: {first} in the first third, {last} in the last")
    if found["most"] and found["most"]["threads"] > MAX_THREADS:
        wrong.append(f"{found['most']['threads']} threads, more than {MAX_THREADS}")
    return wrong


def left_behind(fds: dict[str, str]) -> list[str]:
    """Threads and descriptors that the run leaves; fds is what was open before. (Plait keeps one for its stall reports' stacks,
    for good, and idle threads of to_thread end in their time.)"""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        gc.collect()
        threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("plait")]
        more = {fd: what for fd, what in descriptors().items() if fds.get(fd) != what and "plait-stacks" not in what}
        if not threads and not more:
            return []
        time.sleep(0.05)
    return [f"left behind: threads {threads}, descriptors {more}"]


def descriptors() -> dict[str, str]:
    """What each is open on."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            pass  # the listing's own
    return found


def one_run(seed: int, seconds: float) -> tuple[dict[str, Any], list[str]]:
    run = Run(seed, seconds)
    complain_to(run.wrong)
    fds = descriptors()
    try:
        plait.run(run.main(), max_threads=MAX_POOL_THREADS, on_stall=lambda stall: None)
    except Exception as error:
        run.wrong.append(f"raised: {error!r} {getattr(error, 'exceptions', '')}")
    faulthandler.cancel_dump_traceback_later()
    found = figures(run)
    return found, verdict(run, found) + left_behind(fds)


def _build() -> str:
    free = sysconfig.get_config_var("Py_GIL_DISABLED") and not getattr(sys, "_is_gil_enabled", lambda: True)()
    return platform.python_version() + ("t" if free else "")


# The table


def table(files: list[str]) -> str:
    """Of docs/reliability.md."""
    runs = []
    for name in files:
        with open(name) as file:
            runs.append(json.load(file))
    rows = [("", [run["build"] for run in runs]), *((name, [_text(row(run)) for run in runs]) for name, row in ROWS.items())]
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    return "\n".join([lines[0], "|---|" + "---|" * len(runs), *lines[1:]])


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _pair(what: str, divisor: int = 1) -> Callable[[dict[str, Any]], str]:
    def text(run: dict[str, Any]) -> str:
        first, last = (value / divisor for value in run["first and last third"][what])
        return f"{first:.4g} / {last:.4g} / {run['most'][what] / divisor:.4g}"

    return text


def _named(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda run: run.get(name, 0)


ROWS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ended (UTC)": lambda run: run["date"].removesuffix("+00:00").replace("T", " "),
    "minutes": _named("minutes"),
    "seed": lambda run: str(run["seed"]),
    "messages sent": _named("sent"),
    "received": _named("received"),
    "accounted for: cancelled before receipt": _named("accounted"),
    "lost, or received twice": lambda run: run["sent"] - run["received"] - run["accounted"] + len(run["wrong"]),
    "tasks cancelled": _named("cancels"),
    "steps that blocked, 2 to 300 ms": _named("blocks"),
    "steps that computed, 1 to 200 ms": _named("hogs"),
    "timers set": _named("timers"),
    "timers cancelled": _named("timers cancelled"),
    "TCP connections": _named("connections"),
    "calls of to_thread": _named("to_thread"),
    "pinned strands started and ended": _named("pinned strands"),
    "garbage cycles with a finaliser": _named("cycles"),
    "calls of gc.collect": _named("collections"),
    "hand-offs": _named("handoffs"),
    "steals": _named("steals"),
    "stalls reported": _named("stalls"),
    "memory, MB: first third / last third / most": _pair("rss_kb", 1024),
    "threads": _pair("threads"),
    "descriptors": _pair("fds"),
    "pending tasks": _pair("tasks"),
    "pending timers": _pair("timers"),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("STRESS_MINUTES", 30)) * 60)
    parser.add_argument("--json", help="write the figures there")
    parser.add_argument("--table", nargs="+", metavar="FILE", help="print the table of these figures, and run nothing")
    return parser.parse_args()


def main() -> int:
    options = parse()
    if options.table:
        print(table(options.table))
        return 0
    seed = int(os.environ.get("PLAIT_SEED", time.time_ns() % 1_000_000))
    print(f"{_build()} PLAIT_SEED={seed}, {options.seconds:.0f} s", flush=True)
    found, wrong = one_run(seed, options.seconds)
    found["wrong"] = wrong
    print(json.dumps(found), flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(found, file, indent=1)
    for each in wrong:
        print(f"WRONG (PLAIT_SEED={seed}): {each}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
