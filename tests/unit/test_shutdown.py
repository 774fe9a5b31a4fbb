"""How a run ends: signals, exit codes, stuck threads, forks, leaks."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from unit_helpers import (
    LONG,
    Program,
    collected,
    eventually,
    eventually_in_thread,
    forever,
    hear,
    in_strand,
    open_fds,
    plait_threads,
    raises,
    value,
)

import plait
from plait._rt import pool as pool_module
from plait._rt.ground.here import here
from plait._rt.pool import Pool
from plait._rt.watch.monitor import Monitor

Start = Callable[..., Program]

HEAD = """
import asyncio, os, signal, sys, threading, time
import plait

def say(*words):
    print(*words, flush=True)

"""


# Ctrl-C


@pytest.mark.parametrize("place", ["idle", "busy strands", "computing", "blocked", "asyncio inside"])
def test_ctrl_c(program: Start, place: str) -> None:
    """The main task is cancelled, cleans up, and KeyboardInterrupt comes out of run; wherever the main strand is."""
    here = {
        "idle": "await plait.Event().wait()",
        "busy strands": "spinners = [plait.spawn(spin()) for _ in range(4)]; await spinners[0]",
        "computing": "while True:\n            for _ in range(1000): pass\n            await asyncio.sleep(0)",
        "blocked": "while True:\n            time.sleep(0.05)\n            await plait.checkpoint()",
        "asyncio inside": "await asyncio.gather(asyncio.sleep(100), plait.spawn(plait.sleep(100)))",
    }[place]
    started = program(f"""{HEAD}
async def spin():
    while True:
        await plait.checkpoint()

async def main():
    try:
        asyncio.get_running_loop().call_later(0.01, say, "ready")
        {here}
    except asyncio.CancelledError:
        await plait.sleep(0.001)
        say("cleaned up")
        raise

try:
    plait.run(main())
except KeyboardInterrupt:
    say("interrupted", [t.name for t in threading.enumerate() if t.name.startswith("plait")])
    raise
""")
    assert started.line() == "ready"
    started.send(signal.SIGINT)
    code, out, err = started.end()
    assert out.splitlines() == ["cleaned up", "interrupted []"], err
    assert code in (-signal.SIGINT, 128 + signal.SIGINT)
    assert "KeyboardInterrupt" in err


def test_second_ctrl_c_ends_a_main_task_that_refuses(program: Start) -> None:
    started = program(f"""{HEAD}
async def main():
    say("ready")
    try:
        await plait.Event().wait()
    except asyncio.CancelledError:
        say("refused")
    await plait.Event().wait()

plait.run(main())
""")
    assert started.line() == "ready"
    time.sleep(0.05)
    started.send(signal.SIGINT)
    assert started.line() == "refused"
    started.send(signal.SIGINT)
    code, _, err = started.end()
    assert code in (-signal.SIGINT, 128 + signal.SIGINT), err


def test_second_ctrl_c_ends_a_main_strand_that_computes(program: Start) -> None:
    started = program(f"""{HEAD}
async def main():
    plait.spawn(plait.sleep(0))
    say("ready")
    while True:
        pass

plait.run(main())
""")
    assert started.line() == "ready"
    for _ in range(2):
        time.sleep(0.05)
        started.send(signal.SIGINT)
    code, _, err = started.end()
    assert code in (-signal.SIGINT, 128 + signal.SIGINT), err
    assert "in main" in err  # raised in the user's frame


def test_ctrl_c_with_asyncios_runner(program: Start) -> None:
    started = program(f"""{HEAD}
async def main():
    asyncio.get_running_loop().call_later(0.01, say, "ready")
    await plait.spawn(plait.sleep(100))

with asyncio.Runner(loop_factory=plait.new_event_loop) as runner:
    runner.run(main())
""")
    assert started.line() == "ready"
    started.send(signal.SIGINT)
    code, _, err = started.end()
    assert code in (-signal.SIGINT, 128 + signal.SIGINT), err


def test_interrupts_lose_no_task(program: Start) -> None:
    """KeyboardInterrupt is raised in user frames only: after a storm of signals every task is done, or goes on."""
    code, out, err = program(f"""{HEAD}
import random
random.seed(1)
counts = [0] * 50
tasks, mains = [], []
asked = sent = 0

async def count(number):
    while True:
        counts[number] += 1
        await (plait.checkpoint() if number % 2 else asyncio.sleep(0))

async def main():
    global asked
    mains.append(asyncio.current_task())
    if not tasks:
        tasks.extend(asyncio.create_task(count(n)) for n in range(50))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    asked += 1
    while sent < min(asked, ROUNDS):  # a run that was interrupted before its main began leaves that to the next
        try:
            await plait.sleep(0.0005)
        except asyncio.CancelledError:
            pass

async def check():
    before = list(counts)
    for _ in range(5):
        await asyncio.sleep(0)
    for number, task in enumerate(tasks):
        assert task.done() or counts[number] > before[number], (number, task)

def send():
    global sent
    for _ in range(ROUNDS):
        while sent == asked:
            time.sleep(0.0001)
        for _ in range(2):  # the first cancels, the second raises
            time.sleep(random.random() * 0.001)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.001)
        sent += 1

ROUNDS = 300
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
thread = threading.Thread(target=send, daemon=True)
interrupts = 0
with plait.Runner() as runner:
    thread.start()
    for _ in range(ROUNDS):
        try:
            try:
                runner.run(main())
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        except (KeyboardInterrupt, RuntimeError):  # "Event loop stopped": a run that was done when it was interrupted
            interrupts += 1
        while sent < asked:
            time.sleep(0.0001)
    thread.join()
    runner.run(check())
    for task in tasks + mains:
        if task.done() and not task.cancelled():
            assert isinstance(task.exception(), KeyboardInterrupt | None), task
    say("interrupts", interrupts > ROUNDS // 3, "goes on", sum(not task.done() for task in tasks) > 0)
""").end()
    assert (code, out) == (0, "interrupts True goes on True\n"), err


def test_sigterm_ends_the_process_as_in_asyncio(program: Start) -> None:
    started = program(f"""{HEAD}
async def main():
    plait.spawn(plait.sleep(100))
    say("ready")
    await plait.Event().wait()
plait.run(main())
""")
    assert started.line() == "ready"
    started.send(signal.SIGTERM)
    assert started.end()[0] == -signal.SIGTERM


def test_signal_handlers_run_in_the_main_strand(program: Start) -> None:
    started = program(f"""{HEAD}
async def main():
    loop = asyncio.get_running_loop()
    ended = plait.Event()
    def handler():
        say("main strand", plait.current_strand() is loop, asyncio.current_task())
        ended.set()
    loop.add_signal_handler(signal.SIGTERM, handler)
    try:
        await plait.spawn(add())
    except (ValueError, RuntimeError):
        say("refused elsewhere")
    task = plait.spawn(ended.wait())
    await asyncio.sleep(0.05)
    say("ready")
    await task
    assert loop.remove_signal_handler(signal.SIGTERM)
    say(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)

async def add():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, say)

plait.run(main())
""")
    assert started.line() == "refused elsewhere"
    assert started.line() == "ready"
    started.send(signal.SIGTERM)
    code, out, err = started.end()
    assert (code, out.splitlines()) == (0, ["main strand True None", "True"]), err


def test_ctrl_c_after_a_signal_handler_was_removed(program: Start) -> None:
    started = program(f"""{HEAD}
async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, say)
    loop.remove_signal_handler(signal.SIGUSR1)
    assert signal.set_wakeup_fd(-1) != -1, "a signal just before the poll would not end it"
    say("ready")
plait.run(main())
""")
    code, out, err = started.end()
    assert (code, out) == (0, "ready\n"), err


def test_the_users_sigint_handler_is_left_alone() -> None:
    previous = signal.signal(signal.SIGINT, lambda *_: None)
    try:

        async def main() -> Any:
            return signal.getsignal(signal.SIGINT)

        mine = signal.getsignal(signal.SIGINT)
        assert plait.run(main()) is mine
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, previous)
    plait.run(value(1))
    assert signal.getsignal(signal.SIGINT) is previous
    assert signal.set_wakeup_fd(-1) == -1


# Exit codes


@pytest.mark.parametrize("where", ["main", "spawned", "strand", "pinned", "callback", "pooled callback"])
def test_exit_codes(program: Start, where: str) -> None:
    stop = {
        "main": "sys.exit(7)",
        "spawned": "await plait.spawn(leave())",
        "strand": "await plait.Strand().call(leave())",
        "pinned": "await plait.Strand(pinned=True).call(leave())",
        "callback": "asyncio.get_running_loop().call_soon(sys.exit, 7)",
        "pooled callback": "plait.Strand().call_soon_threadsafe(sys.exit, 7)",
    }[where]
    code, out, err = program(f"""{HEAD}
async def leave():
    sys.exit(7)

started = plait.Event()

async def main():
    other = plait.spawn(clean_up())
    await started.wait()
    {stop}
    await plait.Event().wait()

async def clean_up():
    try:
        started.set()
        await plait.Event().wait()
    finally:
        say("cleaned up")

plait.run(main())
""").end()
    assert (code, out) == (7, "cleaned up\n"), err
    assert "Traceback" not in err


@pytest.mark.parametrize("source", ["raise ValueError('mine')", "await plait.spawn(fail())"])
def test_an_exception_exits_with_one(program: Start, source: str) -> None:
    code, _, err = program(f"""{HEAD}
async def fail():
    raise ValueError('mine')
async def main():
    {source}
plait.run(main())
""").end()
    assert code == 1
    assert err.rstrip().endswith("ValueError: mine")
    assert "never retrieved" not in err


# Cancelling what is left


def test_all_strands_are_cancelled_and_waited_for() -> None:
    started: list[str] = []
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            started.append(name)
            await forever()
        finally:
            await plait.sleep(0.005)
            ended.append(name)

    names = ["spawned", "pooled", "pinned", "local", "local in pooled", "local in pinned"]

    async def local(strand: plait.Strand) -> None:
        async def make() -> None:
            kept.append(asyncio.create_task(work("local in " + kinds[strand])))

        await strand.call(make())

    kept: list[Any] = []
    kinds: dict[plait.Strand, str] = {}

    async def main() -> None:
        pooled, pinned = plait.Strand(), plait.Strand(pinned=True)
        kinds.update({pooled: "pooled", pinned: "pinned"})
        kept.append(asyncio.create_task(work("local")))
        plait.spawn(work("spawned"))
        for strand, name in kinds.items():
            strand.spawn(work(name))
            await local(strand)
        await eventually(lambda: len(started) == len(names))

    plait.run(main())
    assert sorted(ended) == sorted(names)


def test_tasks_spawned_while_the_run_ends_are_cancelled_too() -> None:
    ended: list[str] = []

    async def late() -> None:
        try:
            await forever()
        finally:
            ended.append("late")

    async def spawns() -> None:
        try:
            await forever()
        finally:
            plait.spawn(late())
            await plait.sleep(0.001)
            ended.append("spawner")

    async def main() -> None:
        task = plait.spawn(spawns())
        await eventually(lambda: task.get_coro().cr_await is not None)

    plait.run(main())
    assert "spawner" in ended
    assert plait_threads() == []


def test_shutdown_while_strands_churn() -> None:
    """Strands that make tasks all the time while the run ends."""
    seen = plait.Event()

    async def churn() -> None:
        while True:
            await asyncio.gather(*[asyncio.create_task(value(number)) for number in range(10)])
            await plait.spawn(value(1))
            seen.set()

    async def main() -> None:
        tasks.extend(plait.spawn(churn()) for _ in range(10))
        await seen.wait()

    for _ in range(5):
        tasks: list[plait.Task[Any]] = []
        seen.clear()
        plait.run(main(), workers=2)
        assert all(task.done() for task in tasks)


def test_an_error_while_cancelling_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        try:
            await forever()
        finally:
            raise ValueError("while cancelling")

    async def main() -> None:
        task = plait.spawn(fail())
        await eventually(lambda: task.get_coro().cr_await is not None)

    plait.run(main())
    gc.collect()
    assert "while cancelling" in caplog.text


def test_an_ended_run_keeps_nothing_of_it() -> None:
    """Not even what the monitor was looking at when it ended, though this thread ran no other loop since."""

    class Payload:
        pass

    def hold(payload: Payload) -> None:
        strand: Any = asyncio.get_running_loop()
        monitor, item = strand._pool.monitor, id(strand.carrier.item)
        eventually_in_thread(lambda: any(watch.number == item for watch in monitor._watches.values()))
        monitor._look = monitor._glance = lambda *_: True  # it looks no more: that stays what it saw last
        held.append(weakref.ref(payload))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        held.append(weakref.ref(loop))
        await plait.spawn(value(None))
        loop.call_soon(hold, Payload())
        await asyncio.sleep(0)

    held: list[weakref.ref[Any]] = []
    plait.run(main())
    assert [collected(each) for each in held] == [True, True]


def test_threads_that_leave_early_are_waited_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may see that the runtime stops before who stops it counts the workers."""
    ended = threading.Event()
    worker_ended, stop = Pool.worker_ended, Monitor.stop

    def slowly(pool: Pool, worker: Any) -> None:
        worker_ended(pool, worker)
        ended.set()
        time.sleep(0.05)  # still a thread

    def after_a_worker(monitor: Monitor) -> None:
        monitor._pool.parking.notify_all()
        assert ended.wait(LONG)
        stop(monitor)

    monkeypatch.setattr(Pool, "worker_ended", slowly)
    monkeypatch.setattr(Monitor, "stop", after_a_worker)
    plait.run(in_strand("spawned", value(None)), workers=1)
    assert plait_threads() == []


@pytest.mark.parametrize("where", ["main", "spawned", "pooled", "pinned"])
def test_tasks_that_never_started_end_quietly(where: str) -> None:
    async def spawn_and_leave() -> None:
        for _ in range(200):
            plait.spawn(value(1))

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "was never awaited"
        plait.run(in_strand(where, spawn_and_leave()))
        gc.collect()


def test_a_coroutine_never_awaited_is_warned_of_as_ever() -> None:
    async def main() -> None:
        value(1)
        plait.sleep(0)
        gc.collect()

    with pytest.warns(RuntimeWarning, match="never awaited"):
        plait.run(main())


def test_to_thread_is_waited_for_at_the_end() -> None:
    ended = threading.Event()
    running = threading.Event()

    def work() -> None:
        running.set()
        time.sleep(0.05)
        ended.set()

    async def main() -> None:
        kept.append(asyncio.create_task(plait.to_thread(work)))
        await eventually(running.is_set)

    kept: list[Any] = []
    plait.run(main())
    assert ended.is_set()
    eventually_in_thread(lambda: plait_threads() == [])


# Stuck threads


@pytest.mark.parametrize("where", ["spawned", "pooled", "pinned"])
def test_a_stuck_thread_is_named_and_left(where: str) -> None:
    """The step lasts until we say so."""
    go = threading.Event()
    stuck = threading.Event()

    async def stuck_here() -> None:
        stuck.set()
        go.wait(LONG)

    async def main() -> None:
        if where == "spawned":
            plait.spawn(stuck_here(), name="the stuck one")
        else:
            plait.Strand(pinned=where == "pinned").spawn(stuck_here(), name="the stuck one")
        await eventually(stuck.is_set)

    try:
        with pytest.warns(plait.StuckThreads) as caught:
            started = time.monotonic()
            plait.run(main(), workers=1, shutdown_grace=0.5)
        assert time.monotonic() - started < LONG - 5
        assert not go.is_set()
    finally:
        go.set()
    (warning,) = caught
    assert "stuck_here" in str(warning.message)
    assert __file__ in str(warning.message)
    assert "the stuck one" in str(warning.message)
    eventually_in_thread(lambda: plait_threads() == [])  # it ends with its step, and nothing else happens


# Mistakes


def test_use_after_close() -> None:
    async def main() -> dict[str, Callable[[], Any]]:
        event = plait.Event()
        strand = plait.Strand()
        task = plait.spawn(value(3))
        await task
        loop = asyncio.get_running_loop()
        uses.update(event=event, strand=strand, task=task, loop=loop)
        return {
            "call_soon": lambda: strand.call_soon(print),
            "call_later": lambda: strand.call_later(1, print),
            "add_reader": lambda: strand.add_reader(0, print),
            "spawn": lambda: strand.spawn(coro),
            "loop.call_soon_threadsafe": lambda: loop.call_soon_threadsafe(print),
            "loop.create_task": lambda: loop.create_task(coro),
            "loop.run_forever": loop.run_forever,
            "run_in_executor": lambda: strand.run_in_executor(None, print),
        }

    uses: dict[str, Any] = {}
    coro = value(1)
    for name, use in plait.run(main()).items():
        with pytest.raises(RuntimeError, match="closed|shutdown"):
            use()
            pytest.fail(name)
    coro.close()
    uses["event"].set()  # what doesn't need the loop goes on
    assert uses["task"].result() == 3
    assert uses["loop"].is_closed()


def test_a_loop_that_is_not_closed_says_so(program: Start) -> None:
    code, _, err = program(f"""{HEAD}
import gc
def leave():
    loop = plait.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
leave()
gc.collect()
""", "-W", "always").end()  # fmt: skip
    assert code == 0
    assert "ResourceWarning: unclosed event loop" in err


def test_the_process_ends_while_a_loop_is_open(program: Start) -> None:
    code, out, err = program(f"""{HEAD}
loop = plait.new_event_loop()
async def main():
    plait.spawn(plait.Event().wait())
    await plait.spawn(plait.sleep(0.001))
loop.run_until_complete(main())
say("leaving")
""", "-W", "ignore").end()  # fmt: skip
    assert (code, out) == (0, "leaving\n"), err
    assert "Fatal" not in err


# fork


FORK = f"""{HEAD}
def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            code = 0
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr, flush=True)
            code = 1
        os._exit(code)
    return pid

def ended(pid):
    until = time.monotonic() + 10
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGABRT)
    os.waitpid(pid, 0)
    return "hangs"

async def add(a, b):
    await plait.checkpoint()
    return a + b

async def child_main():
    tasks = [plait.spawn(add(1, n)) for n in range(10)]
    return sum([await task for task in tasks])

def child_runs():
    assert plait.run(child_main()) == 55

"""


@pytest.mark.parametrize("where", ["main", "spawned", "to_thread"])
def test_a_forked_child_can_run_anew_and_the_parent_goes_on(program: Start, where: str) -> None:
    fork = {
        "main": "pid = in_child(child_runs)",
        "spawned": "pid = await plait.spawn(fork())",
        "to_thread": "pid = await plait.to_thread(in_child, child_runs)",
    }[where]
    code, out, err = program(FORK + f"""
async def fork():
    return in_child(child_runs)

async def main():
    others = [plait.spawn(plait.sleep(0.001 * n)) for n in range(20)]
    for _ in range(3):
        await plait.spawn(add(1, 2))
        {fork}
        assert await plait.to_thread(ended, pid) == 0
        assert await plait.spawn(add(1, 2)) == 3
    for other in others:
        await other
    say("parent goes on")

plait.run(main())
""", "-W", "ignore").end()  # fmt: skip
    assert (code, out) == (0, "parent goes on\n"), err


def test_a_forked_child_inherits_nothing_that_is_the_parents(program: Start) -> None:
    """Neither locks that its threads held, nor what its monitor asked for, nor where its signals are written to."""
    code, out, err = program(FORK + """
import gc
from plait._rt.ground import switch_interval
from plait.diagnose import capture, garbage

def check():
    assert abs(sys.getswitchinterval() - 0.007) < 0.0001, "the switch interval is still lowered"
    assert signal.set_wakeup_fd(-1) == -1, "signals are written to the parent's descriptor"
    assert not garbage._users, "the monitor's"
    assert capture._file is None
    if capture.FREE_THREADED:
        assert capture.stack_of(here.probe), "the turn is the parent's"
    assert here.probe.life.acquire(False), "the monitor held it, and the end of the run would wait for it"
    here.probe.life.release()
    child_runs()

async def main():
    global here
    here = plait.current_strand()
    await plait.spawn(add(1, 2))
    sys.setswitchinterval(0.007)
    switch_interval.lower(here)
    capture.stack_of(here.probe)
    threads = [threading.Thread(target=hold, args=(lock,)) for lock in (here.probe.life, capture._lock)]
    for thread in threads:
        thread.start()
    await asyncio.sleep(0)
    pid = in_child(check)
    let_go.set()
    for thread in threads:
        thread.join()
    assert await plait.to_thread(ended, pid) == 0
    switch_interval.put_back(here)
    say("parent goes on")

let_go = threading.Event()
def hold(lock):
    with lock:
        let_go.wait(20)

plait.run(main())
assert abs(sys.getswitchinterval() - 0.007) < 0.0001
""", "-W", "ignore").end()  # fmt: skip
    assert (code, out) == (0, "parent goes on\n"), err


def test_a_forked_childs_signals_are_its_own(program: Start) -> None:
    """The parent's handler isn't called for a signal that the child got."""
    code, out, err = program(FORK + """
got = []

def child():
    signal.raise_signal(signal.SIGUSR1)

async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, got.append, 1)
    pid = in_child(child)
    assert await plait.to_thread(ended, pid) == 0
    await plait.sleep(0.05)
    assert not got
    signal.raise_signal(signal.SIGUSR1)
    await plait.sleep(0.05)
    assert got == [1]
    say("parent goes on")

plait.run(main())
""", "-W", "ignore").end()  # fmt: skip
    assert (code, out) == (0, "parent goes on\n"), err


@pytest.mark.parametrize("spawned", [False, True])
def test_the_executor_of_a_forked_child_has_threads_or_refuses(program: Start, spawned: bool) -> None:
    """A call must not wait for a thread that stayed with the parent."""
    code, out, err = program(FORK + f"""
spawned = {spawned}
async def main():
    if spawned:
        await plait.spawn(add(1, 2))
    assert await plait.to_thread(lambda: 7) == 7  # its thread rests
    strand = asyncio.get_running_loop()
    pid = os.fork()
    if pid == 0:
        try:
            assert strand._blocking_pool().submit(lambda: 7).result(10) == 7 and not spawned
        except RuntimeError as error:
            assert spawned and "forked" in str(error)
        os._exit(0)
    assert await plait.to_thread(ended, pid) == 0
    say("parent goes on")

plait.run(main())
""", "-W", "ignore").end()  # fmt: skip
    assert (code, out) == (0, "parent goes on\n"), err


def test_a_forked_child_is_told_that_the_threads_stayed_behind(program: Start) -> None:
    code, out, err = program(FORK + """
async def main():
    strand = plait.Strand()
    await plait.spawn(add(1, 2))
    def use():
        for use in (lambda: plait.spawn(add(1, 2)), lambda: strand.spawn(add(1, 2)), plait.stats):
            try:
                use()
            except RuntimeError as error:
                assert "fork" in str(error) or "plait.run" in str(error), error
            else:
                raise AssertionError(use)
    assert ended(in_child(use)) == 0
    say("told")

plait.run(main())
""", "-W", "ignore").end()  # fmt: skip
    assert (code, out) == (0, "told\n"), err


def test_multiprocessing_by_fork(program: Start) -> None:
    code, out, err = program(FORK + """
import multiprocessing
def work(connection):
    connection.send(plait.run(child_main()))

async def main():
    await plait.spawn(add(1, 2))
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs,))
    process.start()
    assert await plait.to_thread(ours.poll, 10)
    say(ours.recv())
    await plait.to_thread(process.join, 10)
    say(process.exitcode, await plait.spawn(add(1, 2)))

plait.run(main())
""", "-W", "ignore").end()  # fmt: skip
    assert (code, out) == (0, "55\n0 3\n"), err


# Leaks


def test_fifty_runs_leak_no_thread_and_no_descriptor() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async def main() -> None:
        go = threading.Event()
        blocker = plait.spawn(plait.to_thread(go.wait, LONG))
        stuck = plait.spawn(block(go))
        await plait.spawn(value(1))
        go.set()
        await asyncio.gather(blocker, stuck)
        await plait.Strand(pinned=True).call(plait.sleep(0))
        async with await plait.start_server(handle, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x\n")
            assert await reader.readline() == b"x\n"
            writer.close()
        plait.spawn(forever())

    async def block(go: threading.Event) -> None:
        go.wait(LONG)

    plait.run(main(), workers=2)
    gc.collect()
    fds, threads = open_fds(), threading.active_count()
    for _ in range(50):
        plait.run(main(), workers=2)
        assert plait_threads() == []
    gc.collect()
    assert open_fds() == fds
    assert threading.active_count() == threads


def test_the_end_cancels_all_tasks_of_a_strand_at_one_moment() -> None:
    """As asyncio's does: no task of it runs between, and sees another cancelled that it waits for, but not itself."""

    async def child(parent: Any) -> None:
        try:
            await forever()
        finally:
            seen.append(parent.cancelling())

    async def parent() -> None:
        children = [asyncio.create_task(child(asyncio.current_task())) for _ in range(500)]
        await plait.sleep(0)
        ready.append(True)
        try:
            while True:
                await plait.checkpoint()
        finally:
            seen.extend(each.cancelling() for each in children)

    async def main() -> None:
        for _ in range(2):
            plait.spawn(parent())
        await eventually(lambda: len(ready) == 2)

    ready: list[bool] = []
    seen: list[int] = []
    plait.run(main(), workers=2)
    assert seen == [1] * 2000


def test_runs_leave_nothing_in_asyncios_tables() -> None:
    async def main() -> None:
        plait.spawn(forever())
        plait.Strand(pinned=True).spawn(forever())
        kept.append(asyncio.create_task(forever()))
        await plait.spawn(value(1))

    kept: list[Any] = []
    plait.run(main())
    assert not [loop for loop in getattr(asyncio.tasks, "_current_tasks", ()) if isinstance(loop, plait.Strand)]


def test_a_first_step_that_ends_while_tasks_are_listed() -> None:
    """Its worker goes on between two reads of what it starts."""

    class Worker:
        """One whose task has ended when it is looked at a second time."""

        def __init__(self, task: Any) -> None:
            self._looks = [task]

        @property
        def starting(self) -> Any:
            return self._looks.pop() if self._looks else None

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        task = plait.spawn(forever())
        loop._pool.workers.append(Worker(task))
        try:
            assert task in loop._pool.all_tasks()
        finally:
            loop._pool.workers.pop()

    plait.run(main())


def test_a_failed_run_leaks_nothing() -> None:
    async def main() -> None:
        plait.spawn(forever())
        plait.Strand(pinned=True).spawn(forever())
        await plait.spawn(raises(ValueError("fail")))

    def run() -> None:
        with pytest.raises(ValueError, match="fail"):
            plait.run(main())

    run()
    gc.collect()
    fds = open_fds()
    for _ in range(5):
        run()
    gc.collect()
    assert open_fds() == fds
    assert plait_threads() == []


def test_a_callback_that_is_stuck_through_the_end_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its descriptor was to be armed again: there is no poller any more, and its number may be another file's."""
    monkeypatch.setattr(pool_module, "JOIN_SECONDS", (0.05, 0.05))
    ours, theirs = socket.socketpair()
    begun, let_go = threading.Event(), threading.Event()
    workers: list[Any] = []

    def callback() -> None:
        workers.append(here.worker)
        begun.set()
        let_go.wait(LONG)

    async def main() -> None:
        async def add() -> None:
            asyncio.get_running_loop().add_reader(ours, callback)

        await plait.Strand().call(add())
        theirs.send(b"x")
        await hear(begun)

    with pytest.warns(plait.StuckThreads):
        plait.run(main())
    let_go.set()
    assert workers[0].ended.wait(LONG)
    assert not caplog.messages
    ours.close()
    theirs.close()


WAKEUP_DESCRIPTOR = """
import asyncio, os, signal, socket, sys, plait

def number_of(fd):  # what is written to fd when a signal comes
    signal.raise_signal(signal.SIGUSR1)
    try:
        return os.read(fd, 9)
    except BlockingIOError:
        return b""

signal.signal(signal.SIGUSR1, lambda *_: None)
async def nothing(): pass

# Somebody's own, while it is open
ours, theirs = socket.socketpair()
theirs.setblocking(False), ours.setblocking(False)
signal.set_wakeup_fd(theirs.fileno())
plait.run(nothing())
assert number_of(ours.fileno()) == bytes([signal.SIGUSR1])

signal.set_wakeup_fd(-1)

# Another loop with signal handlers is closed while this one runs: this one hears of signals all the same
first = plait.new_event_loop()
first.add_signal_handler(signal.SIGUSR2, print)
first.run_until_complete(nothing())
async def closes():
    first.close()
    mine = asyncio.get_running_loop()._csock.fileno()
    assert signal.set_wakeup_fd(mine) == mine
plait.run(closes())
assert signal.set_wakeup_fd(-1) == -1

# At the interpreter's end
import asyncio.unix_events
last = plait.new_event_loop()
last.add_signal_handler(signal.SIGUSR2, print)
last.run_until_complete(nothing())
real, sys.is_finalizing = sys.is_finalizing, lambda: True
import warnings
warnings.simplefilter("ignore")
last.close()
sys.is_finalizing = real
assert signal.set_wakeup_fd(-1) == -1
print("fine")
"""


def test_no_signal_is_written_to_a_file_that_got_a_closed_ones_number(program: Any) -> None:
    code, out, err = program(WAKEUP_DESCRIPTOR).end()
    assert (code, out) == (0, "fine\n"), err
