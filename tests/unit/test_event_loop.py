"""plait's loop as a class, as asyncio's current loop, and as garbage."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import warnings
import weakref
from typing import Any

import pytest
from unit_helpers import collected, eventually_in_thread, in_plait, open_fds, plait_threads, tls_contexts, value

import plait


def test_a_class_can_be_named() -> None:
    """As Scrapy does with ASYNCIO_EVENT_LOOP."""
    loop = plait.EventLoop()
    try:
        assert type(plait.new_event_loop()) is plait.EventLoop  # dropped: collected, with a warning
        assert isinstance(loop, plait.EventLoop)
        assert loop.run_until_complete(value(3)) == 3
    finally:
        loop.close()
        with pytest.warns(ResourceWarning, match="unclosed event loop"):
            gc.collect()
    with pytest.raises(ValueError, match="workers"):
        plait.EventLoop(workers=0)


def current() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return asyncio.get_event_loop_policy().get_event_loop()


def test_the_policy_knows_the_main_strand_and_forgets_it() -> None:
    async def main() -> Any:
        assert current() is asyncio.get_running_loop()
        return current()

    async def asyncios() -> None:
        pass

    def after() -> Any:
        try:
            return current()
        except RuntimeError as error:
            return str(error)

    asyncio.run(asyncios())
    expected = after()
    plait.run(main())
    assert after() == expected
    with plait.Runner() as runner:
        assert runner.run(main()) is runner.run(main()) is current()
    assert after() == expected


def test_a_loop_factory_of_the_programs_own_is_left_alone() -> None:
    with plait.Runner(loop_factory=asyncio.new_event_loop) as runner:
        assert not isinstance(runner.get_loop(), plait.EventLoop)
        runner.run(value(1))


@in_plait
async def test_the_default_executors_threads_are_named_as_asyncios() -> None:
    def name() -> str:
        return threading.current_thread().name

    loop = asyncio.get_running_loop()
    assert {await loop.run_in_executor(None, name), await plait.to_thread(name)} == {"asyncio_0"}


@pytest.mark.parametrize("run", [False, True])
def test_a_dropped_loop_is_collected(run: bool) -> None:
    async def main() -> None:
        await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_later(60, print)

    gc.collect()
    before, threads = open_fds(), plait_threads()
    loop = plait.new_event_loop()
    task = loop.create_task(value(1)) if not run else None
    if run:
        loop.run_until_complete(main())
    reference = weakref.ref(loop)
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop, task
        eventually_in_thread(lambda: collected(reference))  # its monitor looks now and then
    eventually_in_thread(lambda: plait_threads() == threads and open_fds() == before)


@in_plait
async def test_start_tls_of_a_connection_that_is_lost_gives_none() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    _, context = tls_contexts()
    reader, writer = await asyncio.open_connection(sock=ours)
    await reader.read()
    loop = asyncio.get_running_loop()
    try:
        started = await loop.start_tls(writer.transport, asyncio.Protocol(), context, server_hostname="localhost")
    except OSError:  # asyncio's, by version
        return
    assert started is None


@pytest.mark.parametrize("end", ["local", "c_task", "future"])
def test_a_run_that_was_interrupted_at_its_end_does_not_stop_the_next(end: str) -> None:
    """What it waited for was done, and told nobody yet."""

    async def interrupts() -> None:
        raise KeyboardInterrupt

    async def ends() -> None:
        interrupting.append(loop.create_task(interrupts()))
        done.set_result(None)

    async def main() -> int:
        await asyncio.sleep(0.01)
        return 5

    interrupting: list[Any] = []
    loop = plait.new_event_loop()
    done = loop.create_future()
    try:
        future: Any = ends()
        if end == "c_task":
            future = asyncio.Task(future, loop=loop)
        elif end == "future":
            interrupting.append(loop.create_task(future))
            future = done
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(future)
        assert loop.run_until_complete(main()) == 5
    finally:
        loop.close()


def test_a_dropped_loop_whose_pipe_was_closed_first_is_closed() -> None:
    """The collector finalises what it drops in any order."""
    before = open_fds()
    loop: Any = plait.new_event_loop()
    loop._ssock.close()
    loop.close()
    assert loop.is_closed()
    assert not open_fds() - before
