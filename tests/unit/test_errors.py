"""What belongs to one strand and is used from another, and other mistakes: the message says what to do."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from unit_helpers import LONG, eventually, everywhere, in_plait, in_strand, other_strand, value

import plait


async def connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, socket.socket]:
    """A stream of the calling strand, and its other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=ours)
    return reader, writer, theirs


OFF_STRAND: dict[str, Callable[[Any], Any]] = {
    "write": lambda transport: transport.write(b"x"),
    "writelines": lambda transport: transport.writelines([b"x"]),
    "write_eof": lambda transport: transport.write_eof(),
    "close": lambda transport: transport.close(),
}


@pytest.mark.parametrize("use", OFF_STRAND)
@pytest.mark.parametrize("where", ["main", "pooled", "pinned"])
def test_a_transport_used_off_its_strand(where: str, use: str) -> None:
    async def main() -> None:
        async def own() -> None:
            _, writer, theirs = await connected()

            def misuse() -> None:
                with pytest.raises(plait.WrongStrand, match=r"strand\.call"):
                    OFF_STRAND[use](writer.transport)

            await other_strand(misuse)
            await plait.to_thread(misuse)
            await plait.Strand(pinned=True).call(called(misuse))
            writer.write(b"ours")  # nothing is corrupted: it goes on
            await writer.drain()
            assert theirs.recv(100) == b"ours"
            writer.close()
            await writer.wait_closed()
            theirs.close()

        await in_strand(where, own())

    plait.run(main())


async def called(function: Callable[[], None]) -> None:
    function()


@in_plait
async def test_a_datagram_transport_used_off_its_strand() -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )

    def misuse() -> None:
        with pytest.raises(plait.WrongStrand, match=r"strand\.call"):
            transport.sendto(b"x", ("127.0.0.1", 9))
        with pytest.raises(plait.WrongStrand, match=r"strand\.call"):
            transport.close()

    await other_strand(misuse)
    transport.close()


@in_plait
async def test_a_pipe_used_off_its_strand() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=subprocess.PIPE)
    stdin = process.stdin
    assert stdin is not None

    def misuse() -> None:
        with pytest.raises(plait.WrongStrand, match=r"strand\.call"):
            stdin.write(b"x\n")
        with pytest.raises(plait.WrongStrand, match=r"strand\.call"):
            stdin.close()

    try:
        await other_strand(misuse)
    finally:
        stdin.write(b"\n")
        assert await asyncio.wait_for(process.wait(), LONG) == 0


@in_plait
async def test_call_puts_it_right() -> None:
    async def write() -> None:
        writer.write(b"by call")
        await writer.drain()

    _, writer, theirs = await connected()
    await plait.spawn(plait.current_strand().call(write()))
    assert theirs.recv(100) == b"by call"
    writer.close()
    theirs.close()


@in_plait
async def test_a_writer_collected_elsewhere_is_closed_at_home(recwarn: pytest.WarningsRecorder) -> None:
    """StreamWriter closes itself when it is collected (since 3.13), on whichever thread that happens."""

    class Finaliser:
        def __del__(self) -> None:
            self.close()

        def close(self) -> None:
            transport.close()

    _, writer, theirs = await connected()
    transport = writer.transport
    left = [Finaliser()]
    await other_strand(left.clear)
    await eventually(transport.is_closing)
    theirs.close()


# Things of asyncio's that two strands share


@in_plait
async def test_a_lock_of_two_strands_is_refused() -> None:
    async def contend() -> None:
        async with lock:
            pass

    lock = asyncio.Lock()
    await lock.acquire()
    with pytest.raises(plait.WrongStrand, match=r"strand\.call"):
        await plait.spawn(contend())
    lock.release()


@in_plait
async def test_a_queue_of_two_strands_is_refused() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    queue.put_nowait(7)
    with pytest.raises(plait.WrongStrand, match=r"strand\.call"):
        await plait.spawn(queue.get())
    assert queue.get_nowait() == 7


@in_plait
async def test_a_future_resolved_by_another_strand_keeps_its_callbacks(caplog: pytest.LogCaptureFixture) -> None:
    """`call_soon` off-strand never raises, else the future would be done and its callbacks lost."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    seen: list[Any] = []
    future.add_done_callback(lambda _: seen.append(plait.current_strand()))
    await other_strand(lambda: future.set_result(3))
    await asyncio.sleep(0)  # the other strand may have been so fast that nothing here waited yet
    assert await asyncio.wait_for(future, LONG) == 3
    assert seen == [plait.current_strand()]
    assert "another" in caplog.text or "used from" in caplog.text


@in_plait
async def test_a_place_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    strand = plait.Strand()
    calls: list[int] = []
    for number in range(5):
        strand.call_soon(calls.append, number)
    await eventually(lambda: len(calls) == 5)
    assert len([record for record in caplog.records if "used from" in record.getMessage()]) == 1


@everywhere
async def test_asyncios_primitives_bound_to_another_strand_raise() -> None:
    async def wait(event: asyncio.Event) -> None:
        await event.wait()

    event = asyncio.Event()
    mine = asyncio.create_task(event.wait())
    await asyncio.sleep(0)  # now it is bound to this strand
    with pytest.raises(plait.WrongStrand, match=r"plait\.Event"):
        await plait.spawn(wait(event))
    event.set()
    await mine


# In place of a foreign future


@everywhere
async def test_foreign_futures_in_asyncios_combinators() -> None:
    """`gather`, `wait_for` and `shield` of another strand's future raise, in one way or another, and never hang."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def combine(how: Any) -> None:
        await asyncio.wait_for(how(future), LONG)

    for how in (asyncio.gather, asyncio.shield, lambda future: future):
        with pytest.raises((RuntimeError, ValueError)):
            await plait.spawn(combine(how))
    future.cancel()


# Callbacks that raise, and other mistakes


@everywhere
async def test_a_raising_callback_is_reported_and_the_strand_goes_on() -> None:
    loop = asyncio.get_running_loop()
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    loop.call_soon(lambda: 1 / 0)
    loop.call_later(0.001, lambda: 1 / 0)
    await eventually(lambda: len(problems) == 2)
    assert all(isinstance(problem["exception"], ZeroDivisionError) for problem in problems)
    assert await plait.spawn(value(1)) == 1


@everywhere
async def test_a_raising_exception_handler_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def handler(_loop: Any, _context: Any) -> None:
        raise ValueError("in the handler")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    await eventually(lambda: "in the handler" in caplog.text)
    assert await plait.spawn(value(1)) == 1


@in_plait
async def test_bad_arguments() -> None:
    strand = plait.Strand()
    for wrong in (None, 42, "coro", value):
        with pytest.raises(TypeError, match="coroutine"):
            strand.spawn(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="coroutine"):
            await strand.call(wrong)  # type: ignore[arg-type]
    coro = value(1)
    with pytest.raises(TypeError):
        plait.spawn(coro, nickname="x")  # type: ignore[call-arg]
    with pytest.raises((TypeError, AttributeError)):
        plait.spawn(coro, context="here")  # type: ignore[arg-type]
    coro.close()
    with pytest.raises(TypeError):
        await plait.to_thread(None)  # type: ignore[arg-type]


def test_a_function_given_for_its_coroutine_says_to_call_it() -> None:
    for start in (plait.run, lambda main: plait.Runner().run(main)):
        with pytest.raises(TypeError, match=r"\(call it: value\(\.\.\.\), not value\)"):
            start(value)


@in_plait
async def test_what_is_no_function_and_no_number_is_named() -> None:
    with pytest.raises(TypeError, match=r"plait\.sleep takes a number of seconds, got '1'"):
        await plait.sleep("1")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="a function was expected, got 3"):
        await plait.to_thread(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a function was expected, got 3"):
        await plait.start_server(3, "127.0.0.1", 0)  # type: ignore[arg-type]


def test_names_of_the_errors() -> None:
    assert issubclass(plait.WrongStrand, RuntimeError)
    assert issubclass(plait.StuckThreads, RuntimeWarning)
