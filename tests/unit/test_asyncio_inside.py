"""Inside a strand asyncio holds: the main one, a spawned task's, a pooled and a pinned one."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from unit_helpers import LONG, eventually, everywhere, forever, in_plait, in_strand, raises, value

import plait

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


# Who and where am I


@everywhere
async def test_loop_task_and_context_in_every_step() -> None:
    async def look(number: int) -> None:
        variable.set(str(number))
        for _ in range(10):
            assert asyncio.get_running_loop() is loop
            assert plait.current_strand() is loop
            assert asyncio.current_task() is tasks[number]
            assert variable.get() == str(number)
            await (plait.checkpoint() if number % 2 else asyncio.sleep(0))

    loop = asyncio.get_running_loop()
    mine = asyncio.current_task()
    tasks = [asyncio.create_task(look(number)) for number in range(5)]
    await asyncio.gather(*tasks)
    assert asyncio.current_task() is mine
    assert variable.get() == "unset"


def test_a_strand_that_runs_on_another_thread_each_step() -> None:
    """A blocker holds each worker that the strand ran on, so that it must go on elsewhere."""
    rounds = 12
    go = threading.Event()

    async def block() -> None:
        held.set()
        go.wait(LONG)

    async def wander() -> set[int]:
        idents = set()
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        lock = asyncio.Lock()
        variable.set("mine")
        for _ in range(rounds):
            idents.add(threading.get_ident())
            held.clear()
            plait.spawn(block())
            async with asyncio.timeout(LONG), lock:
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(0))
                await held.wait()
                await asyncio.sleep(0.001)
            assert asyncio.current_task() is task
            assert asyncio.get_running_loop() is loop
            assert variable.get() == "mine"
        return idents

    held = plait.Event()

    async def main() -> None:
        try:
            assert len(await plait.Strand().call(wander())) >= rounds // 2
        finally:
            go.set()

    plait.run(main(), workers=1)


@everywhere
async def test_callbacks_have_no_current_task() -> None:
    loop = asyncio.get_running_loop()
    seen: list[Any] = []

    def look(*_: Any) -> None:
        seen.append((asyncio.current_task(), asyncio.get_running_loop() is loop))

    ours, theirs = socket.socketpair()
    theirs.send(b"x")
    loop.call_soon(look)
    loop.call_soon_threadsafe(look)
    loop.call_later(0.001, look)
    loop.add_reader(ours, look)
    loop.add_writer(ours, look)
    future = loop.create_future()
    future.add_done_callback(look)
    future.set_result(None)
    local = asyncio.create_task(value(1))
    local.add_done_callback(look)
    await plait.to_thread(loop.call_soon_threadsafe, look)
    await eventually(lambda: len(seen) >= 8)
    loop.remove_reader(ours)
    loop.remove_writer(ours)
    assert set(seen) == {(None, True)}
    assert asyncio.current_task() is not None
    ours.close()
    theirs.close()


@everywhere
async def test_callbacks_have_their_context() -> None:
    loop = asyncio.get_running_loop()
    seen: list[str] = []
    context = contextvars.Context()
    context.run(variable.set, "given")
    variable.set("mine")
    loop.call_soon(lambda: seen.append(variable.get()), context=context)
    loop.call_soon(lambda: seen.append(variable.get()))
    loop.call_later(0, lambda: seen.append(variable.get()), context=context)  # type: ignore[call-arg, unused-ignore]
    variable.set("later")
    await eventually(lambda: len(seen) == 3)
    assert sorted(seen) == ["given", "given", "mine"]


@everywhere
async def test_all_tasks_are_the_strands() -> None:
    mine, there = asyncio.create_task(forever()), plait.spawn(forever())
    assert mine in asyncio.all_tasks()
    assert there not in asyncio.all_tasks()
    mine.cancel()


@everywhere
async def test_task_factory() -> None:
    def factory(loop: Any, coro: Any, **options: Any) -> Any:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    made: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    task = asyncio.create_task(value(3), name="from the factory")
    assert await task == 3
    assert task.get_name() == "from the factory"
    assert len(made) == 1
    loop.set_task_factory(None)


# Combinators


@everywhere
async def test_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.002) as limit:
            await asyncio.sleep(1000)
    assert limit.expired()
    async with asyncio.timeout(LONG):
        await asyncio.sleep(0.001)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout_at(asyncio.get_running_loop().time() - 1):
            await plait.sleep(1000)
    async with asyncio.timeout(LONG) as outer:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await plait.sleep(1000)
        outer.reschedule(None)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@everywhere
async def test_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0.001, number)) for number in range(5)]
    assert [task.result() for task in tasks] == list(range(5))
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            sibling = group.create_task(asyncio.sleep(1000))
            group.create_task(raises(ValueError("mine")))
    assert str(caught.value.exceptions[0]) == "mine"
    assert sibling.cancelled()


@everywhere
async def test_gather_wait_and_friends() -> None:
    assert await asyncio.gather(*[asyncio.sleep(0.001 * number, number) for number in range(4)]) == [0, 1, 2, 3]
    never = asyncio.create_task(forever())
    done, pending = await asyncio.wait([never, asyncio.create_task(value(1))], return_when=asyncio.FIRST_COMPLETED)
    assert (len(done), pending) == (1, {never})
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(never), 0.001)
    assert not never.done()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(never, 0.001)
    assert never.cancelled()
    found = [await each for each in asyncio.as_completed([asyncio.sleep(0.02, "late"), asyncio.sleep(0.001, "early")])]
    assert found == ["early", "late"]


# Locks and queues


@everywhere
async def test_locks() -> None:
    lock, event, condition, semaphore = asyncio.Lock(), asyncio.Event(), asyncio.Condition(), asyncio.Semaphore(2)
    barrier = asyncio.Barrier(3)
    inside = most = 0

    async def work() -> None:
        nonlocal inside, most
        await event.wait()
        async with lock:
            await asyncio.sleep(0)
        async with semaphore:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.001)
            inside -= 1
        async with barrier:
            pass
        async with condition:
            await condition.wait_for(lambda: ready)

    ready = False
    tasks = [asyncio.create_task(work()) for _ in range(6)]
    await asyncio.sleep(0.001)
    event.set()
    await eventually(lambda: len(condition._waiters) == 6)  # type: ignore[attr-defined]
    async with condition:
        ready = True
        condition.notify_all()
    await asyncio.wait_for(asyncio.gather(*tasks), LONG)
    assert most == 2


@everywhere
async def test_queues() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(2)

    async def produce() -> None:
        for number in range(50):
            await queue.put(number)

    async def consume() -> list[int]:
        found = []
        for _ in range(50):
            found.append(await queue.get())
            queue.task_done()
        return found

    producer, consumer = asyncio.create_task(produce()), asyncio.create_task(consume())
    assert await asyncio.wait_for(consumer, LONG) == list(range(50))
    await producer
    await queue.join()


# Threads


@everywhere
async def test_executors() -> None:
    loop = asyncio.get_running_loop()
    here = threading.get_ident()
    assert await loop.run_in_executor(None, threading.get_ident) != here
    with ThreadPoolExecutor(1) as executor:
        assert await loop.run_in_executor(executor, threading.get_ident) != here
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(None, lambda: 1 / 0)


@everywhere
async def test_to_thread() -> None:
    def look(add: int, *, to: int) -> tuple[int, str, int]:
        seen = variable.get()
        variable.set("thread's")
        return add + to, seen, threading.get_ident()

    variable.set("caller's")
    for to_thread in (plait.to_thread, asyncio.to_thread):
        total, seen, ident = await to_thread(look, 1, to=2)
        assert (total, seen) == (3, "caller's")
        assert ident != threading.get_ident()
    assert variable.get() == "caller's"
    with pytest.raises(ZeroDivisionError):
        await plait.to_thread(lambda: 1 / 0)


@everywhere
async def test_a_cancelled_to_thread_goes_on_and_its_result_is_dropped() -> None:
    go, ended = threading.Event(), threading.Event()

    def work() -> int:
        go.wait(LONG)
        ended.set()
        return 1

    task = asyncio.create_task(plait.to_thread(work))
    await eventually(lambda: task.get_coro().cr_await is not None)  # type: ignore[union-attr]
    await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await eventually(ended.is_set)


@in_plait
async def test_to_thread_is_one_elastic_pool() -> None:
    """As many calls as there are at a time, from whichever strand."""
    barrier = threading.Barrier(40, timeout=LONG)
    calls = [in_strand(where, plait.to_thread(barrier.wait)) for where in ("main", "spawned", "pooled", "pinned") * 10]
    assert sorted(await asyncio.gather(*calls)) == list(range(40))


@in_plait
async def test_names_are_looked_up_behind_hundreds_of_slow_calls() -> None:
    go = threading.Event()
    slow = [asyncio.create_task(plait.to_thread(go.wait, LONG)) for _ in range(300)]
    await asyncio.sleep(0.01)
    loop = asyncio.get_running_loop()
    try:
        assert await asyncio.wait_for(loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM), LONG)
        assert await asyncio.wait_for(loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV), LONG)
    finally:
        go.set()
    assert all(await asyncio.gather(*slow))


@everywhere
async def test_run_coroutine_threadsafe() -> None:
    loop = asyncio.get_running_loop()

    def from_a_thread() -> Any:
        return asyncio.run_coroutine_threadsafe(asyncio.sleep(0.001, "ran"), loop).result(LONG)

    assert await plait.to_thread(from_a_thread) == "ran"


# Descriptors


@everywhere
async def test_readers_are_level_triggered() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    got: list[bytes] = []
    loop.add_reader(ours, lambda: got.append(ours.recv(1)))
    theirs.send(b"abcdef")
    await eventually(lambda: len(got) == 6)
    theirs.send(b"gh")
    await eventually(lambda: len(got) == 8)
    assert b"".join(got) == b"abcdefgh"
    assert loop.remove_reader(ours)
    assert not loop.remove_reader(ours)
    theirs.send(b"i")
    await asyncio.sleep(0.01)
    assert len(got) == 8
    ours.close()
    theirs.close()


@everywhere
async def test_reader_and_writer_of_one_descriptor() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    calls: list[str] = []

    def write() -> None:
        calls.append("write")
        if calls.count("write") == 3:
            loop.remove_writer(ours)

    loop.add_reader(ours, lambda: calls.append("read " + ours.recv(10).decode()))
    loop.add_writer(ours, write)
    await eventually(lambda: calls.count("write") == 3)
    theirs.send(b"x")
    await eventually(lambda: "read x" in calls)
    loop.add_reader(ours, lambda: calls.append("other " + ours.recv(10).decode()))  # replaces the first
    theirs.send(b"y")
    await eventually(lambda: "other y" in calls)
    await asyncio.sleep(0.005)
    assert calls.count("write") == 3
    loop.remove_reader(ours)
    ours.close()
    theirs.close()


@in_plait(workers=2)
async def test_one_descriptor_serves_two_strands() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    got: list[bytes] = []
    wrote = threading.Event()
    reading, writing = plait.Strand(), plait.Strand()

    async def read() -> None:
        asyncio.get_running_loop().add_reader(ours, lambda: got.append(ours.recv(1)))

    async def write() -> None:
        loop = asyncio.get_running_loop()
        loop.add_writer(ours, lambda: (wrote.set(), loop.remove_writer(ours)))

    await reading.call(read())
    await writing.call(write())
    theirs.send(b"abc")
    await eventually(lambda: wrote.is_set() and len(got) == 3)
    await writing.call(write())
    theirs.send(b"def")
    await eventually(lambda: len(got) == 6)

    async def stop() -> bool:
        return asyncio.get_running_loop().remove_reader(ours)

    assert not await writing.call(stop())  # it is the other strand's
    assert await reading.call(stop())
    ours.close()
    theirs.close()


@everywhere
async def test_a_closed_descriptors_number_comes_back() -> None:
    """Closed without remove_reader, and the number taken by another socket: its events come, the old one's don't."""
    loop = asyncio.get_running_loop()
    got: list[str] = []
    for number in range(5):
        ours, theirs = socket.socketpair()
        loop.add_reader(ours, lambda ours=ours, number=number: got.append(f"{number} {ours.recv(9).decode()}"))
        theirs.send(b"x")
        await eventually(lambda number=number: f"{number} x" in got)  # type: ignore[misc]
        if number % 2:
            loop.remove_reader(ours)
        other, theirs_now = socket.socketpair()
        os.dup2(other.fileno(), ours.fileno())  # (waiting for a number to come back, one may lose it to another thread)
        other.close()
        theirs.close()
        loop.add_reader(ours, lambda ours=ours, number=number: got.append(f"{number} {ours.recv(9).decode()}"))
        theirs_now.send(b"new")
        await eventually(lambda number=number: f"{number} new" in got, 5)  # type: ignore[misc]
        loop.remove_reader(ours)
        ours.close()
        theirs_now.close()


@everywhere
async def test_bad_descriptors_are_refused() -> None:
    loop = asyncio.get_running_loop()
    closed = socket.socket()
    closed.close()
    with pytest.raises(ValueError, match="descriptor"):
        loop.add_reader(closed, print)
    with pytest.raises((ValueError, TypeError, AttributeError)):
        loop.add_reader("file", print)  # type: ignore[arg-type]
    with open(__file__, "rb") as file, pytest.raises(PermissionError):
        loop.add_reader(file, print)  # epoll takes no regular files, as with asyncio
    await asyncio.sleep(0)


@everywhere
async def test_sockets() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        client = socket.socket()
        client.setblocking(False)
        accepting = asyncio.create_task(loop.sock_accept(listening))
        await loop.sock_connect(client, listening.getsockname())
        server, _ = await accepting
        data = os.urandom(1 << 20)
        sending = asyncio.create_task(loop.sock_sendall(client, data))
        received = b""
        while len(received) < len(data):
            received += await loop.sock_recv(server, 1 << 16)
        await sending
        assert received == data
        client.close()
        assert await loop.sock_recv(server, 10) == b""
        server.close()


@everywhere
async def test_streams() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for number in range(5):
                writer.write(b"line %d\n" % number)
                assert await reader.readline() == b"LINE %d\n" % number
            big = b"x" * 60_000 + b"\n"
            writer.write(big)
            await writer.drain()
            assert await reader.readline() == big.upper()
            writer.close()
            await writer.wait_closed()


@everywhere
async def test_unix_streams(tmp_path: Path) -> None:
    async def hello(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    path = str(tmp_path / "socket")
    async with await asyncio.start_unix_server(hello, path):
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()


@everywhere
async def test_datagrams() -> None:
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            self.transport.sendto(data.upper(), address)

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, _address: Any) -> None:
            got.put_nowait(data)

    got: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    client, _ = await loop.create_datagram_endpoint(Client, remote_addr=server.get_extra_info("sockname"))
    for number in range(3):
        client.sendto(b"ping %d" % number)
        assert await asyncio.wait_for(got.get(), LONG) == b"PING %d" % number
    client.close()
    server.close()


@everywhere
async def test_pipes() -> None:
    loop = asyncio.get_running_loop()
    read_end, write_end = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb"))
    writing, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(write_end, "wb"))
    writing.write(b"through the pipe")
    writing.close()
    assert await asyncio.wait_for(reader.read(), LONG) == b"through the pipe"
    transport.close()


@everywhere
async def test_subprocesses() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import sys; print(input()[::-1]); sys.exit(3)",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(b"stressed\n"), LONG)
    assert (out.strip(), process.returncode) == (b"desserts", 3)
    sleeping = await asyncio.create_subprocess_shell("exec sleep 1000")
    sleeping.terminate()
    assert await asyncio.wait_for(sleeping.wait(), LONG) == -15


# C Tasks: other libraries make them


class ByC:
    """Runs coroutines as C `asyncio.Task`s of the running strand."""

    @staticmethod
    def task(coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        assert asyncio.Task.__module__ == "_asyncio"
        return asyncio.Task(coro, loop=asyncio.get_running_loop(), **options)


async def _event() -> Any:
    event = plait.Event()
    asyncio.get_running_loop().call_soon(event.set)
    return await event.wait()


async def _set_event() -> Any:
    event = plait.Event()
    event.set()
    return await event.wait()


async def _group() -> Any:
    async with plait.TaskGroup() as group:
        tasks = [group.create_task(value(True)) for _ in range(3)]
    return all(task.result() for task in tasks)


async def _server() -> Any:
    async with await plait.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.close()
        return await reader.read() == b""


async def _checkpoints() -> Any:
    for _ in range(5):
        await plait.checkpoint()
    return True


AWAITABLES: dict[str, Callable[[], Awaitable[Any]]] = {
    "spawned": lambda: plait.spawn(value(True)),
    "spawned, later": lambda: plait.spawn(plait.sleep(0.002, True)),
    "event": _event,
    "set event": _set_event,
    "sleep": lambda: plait.sleep(0.001, True),
    "sleep 0": lambda: plait.sleep(0, True),
    "checkpoint": _checkpoints,
    "call": lambda: plait.Strand().call(value(True)),
    "pinned call": lambda: plait.Strand(pinned=True).call(value(True)),
    "own call": lambda: plait.current_strand().call(value(True)),
    "strand.spawn": lambda: plait.Strand().spawn(value(True)),
    "group": _group,
    "to_thread": lambda: plait.to_thread(bool, 1),
    "server": _server,
    "local task": lambda: asyncio.create_task(value(True)),
}


async def awaits(name: str) -> Any:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    result = await AWAITABLES[name]()
    assert asyncio.current_task() is task
    assert asyncio.get_running_loop() is loop
    return result


@pytest.mark.parametrize("name", AWAITABLES)
@everywhere
async def test_a_c_task_awaits_everything_of_plaits(name: str) -> None:
    assert await asyncio.wait_for(ByC.task(awaits(name)), LONG) is True
    assert asyncio.current_task() is not None


@pytest.mark.parametrize("name", AWAITABLES)
@everywhere
async def test_plaits_own_tasks_await_everything_of_plaits(name: str) -> None:
    assert await asyncio.wait_for(asyncio.create_task(awaits(name)), LONG) is True
    assert await asyncio.wait_for(plait.spawn(awaits(name)), LONG) is True


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
@pytest.mark.parametrize("name", AWAITABLES)
@everywhere
async def test_an_eager_task_awaits_everything_of_plaits(name: str) -> None:
    mine = asyncio.current_task()
    task = ByC.task(awaits(name), eager_start=True)
    assert asyncio.current_task() is mine
    assert await asyncio.wait_for(task, LONG) is True


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
@everywhere
async def test_eager_task_factory() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
    done = asyncio.create_task(value(1))
    assert done.done()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(0.001, 2))
    assert (await done, await task) == (1, 2)
    loop.set_task_factory(None)


@everywhere
async def test_a_c_task_is_cancelled_while_it_waits() -> None:
    event = plait.Event()
    for wait in (event.wait, lambda: plait.sleep(1000), lambda: plait.spawn(forever()), lambda: plait.Strand().call(forever())):

        async def waits(wait: Any = wait) -> Any:
            return await wait()

        task = ByC.task(waits())
        await asyncio.sleep(0.001)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, LONG)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await ByC.task(waits())


@everywhere
async def test_c_tasks_and_plaits_take_turns() -> None:
    async def look(make: Any) -> None:
        for _ in range(10):
            assert asyncio.current_task() is tasks[make]
            await asyncio.sleep(0)

    tasks: dict[Any, Any] = {}
    for number in range(6):
        make = (ByC.task if number % 2 else asyncio.create_task, number)
        tasks[make] = make[0](look(make))  # type: ignore[operator]
    await asyncio.gather(*tasks.values())


@in_plait(workers=2)
async def test_c_tasks_await_tasks_of_other_strands() -> None:
    async def wait() -> Any:
        return await ByC.task(_awaits(task))

    async def _awaits(awaitable: Any) -> Any:
        return await awaitable

    task = plait.spawn(plait.sleep(0.005, "shared"))
    assert await asyncio.gather(*[plait.spawn(wait()) for _ in range(10)]) == ["shared"] * 10
