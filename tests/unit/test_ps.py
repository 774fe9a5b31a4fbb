"""`plait ps`: what a process that runs plait tells of its tasks, to whom, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from unit_helpers import (
    GIL_BUILD,
    LONG,
    Program,
    eventually,
    eventually_in_thread,
    forever,
    hear,
    in_plait,
    open_fds,
    plait_threads,
    value,
)

import plait
from plait import cli
from plait._rt.strand.strand import Strand
from plait._rt.task.task import Task
from plait.ps import client, server
from plait.ps.client import NoAnswer, ask
from plait.ps.tree import tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
SOURCES = Path(plait.__file__).parent.parent
Start = Callable[..., Program]
End = tuple[int, str, str]


def ps(*arguments: Any) -> End:
    """Run `plait ps`: exit code, stdout, stderr."""
    command = [sys.executable, "-m", "plait", "ps", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONG)
    return done.returncode, done.stdout, done.stderr


def ask_until(pid: int, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first answer for which holds(its task entries by name) is true."""
    until = time.monotonic() + LONG
    while True:
        answer = ask(pid, LONG)
        if holds(by_name(answer)):
            return answer
        assert time.monotonic() < until, tree(answer)


def by_name(answer: dict[str, Any]) -> dict[str, Any]:
    return {task["name"]: task for runtime in answer["runtimes"] for task in runtime["tasks"]}


def functions(task: dict[str, Any]) -> list[str]:
    return [frame["function"] for frame in task["stack"]]


def stands_at(task: dict[str, Any], line: int) -> bool:
    return task["state"] == "running" and [frame["line"] for frame in task["stack"]] == [line]


def line_of(source: str, mark: str) -> int:
    return next(number for number, line in enumerate(source.splitlines(), 1) if mark in line)


STUCK = """
import asyncio, os, time, plait

async def blocks():
    await asyncio.sleep(0)
    time.sleep(60)                                            # BLOCKED

async def outer(event):
    await inner(event)                                        # OUTER

async def inner(event):
    await event.wait()                                        # INNER

async def parent(event):
    async with plait.TaskGroup() as group:
        group.create_task(outer(event), name="child")         # CHILD
        await asyncio.create_task(asyncio.sleep(60), name="local")

async def main():
    event = plait.Event()
    plait.spawn(blocks(), name="blocks")                      # SPAWNED
    plait.spawn(parent(event), name="parent")
    plait.Strand(name="db", pinned=True).spawn(outer(event), name="pinned")
    asyncio.create_task(outer(event), name="beside")
    await asyncio.sleep(0)
    asyncio.current_task().set_name("main")
    print("ready", flush=True)
    time.sleep(60)                                            # STUCK

plait.run(main(), workers=2)
"""


def is_stuck(tasks: dict[str, Any]) -> bool:
    wanted = {"blocks", "parent", "child", "local", "pinned", "beside", "main"}
    return (
        wanted <= set(tasks)
        and stands_at(tasks["main"], line_of(STUCK, "STUCK"))
        and stands_at(tasks["blocks"], line_of(STUCK, "BLOCKED"))
        and all(tasks[name]["state"] == "waiting" for name in ("parent", "child", "local", "pinned", "beside"))
    )


def test_a_main_strand_that_is_stuck_and_all_the_others(program: Start) -> None:
    run = program(STUCK)
    assert run.line() == "ready"
    answer = ask_until(run.process.pid, is_stuck)
    assert (answer["pid"], answer["free_threaded"], len(answer["runtimes"])) == (run.process.pid, not GIL_BUILD, 1)
    tasks, threads = by_name(answer), answer["runtimes"][0]["threads"]

    def place(mark: str, function: str) -> dict[str, Any]:
        return {"function": function, "file": str(run.file), "line": line_of(STUCK, mark)}

    main = tasks["main"]
    assert (main["thread"], main["strand"], main["stack"]) == ("MainThread", "main", [place("STUCK", "main")])
    assert (threads[0]["thread"], threads[0]["state"]) == ("MainThread", "running")
    assert (threads[0]["task"], threads[0]["stack"]) == (main["number"], main["stack"])
    blocks = tasks["blocks"]
    assert blocks["thread"].startswith("plait-worker-")
    assert (blocks["kind"], blocks["stack"]) == ("Task", [place("BLOCKED", "blocks")])
    assert blocks["spawned_at"] == f"{run.file}:{line_of(STUCK, 'SPAWNED')} in main"
    assert [each["task"] for each in threads if each["thread"] == blocks["thread"]] == [blocks["number"]]
    for name in ("child", "pinned"):
        assert tasks[name]["waits_for"] == "plait.Event.wait"
        assert tasks[name]["stack"] == [place("OUTER", "outer"), place("INNER", "inner")]
    assert tasks["child"]["awaited_by"] == tasks["local"]["awaited_by"] == [tasks["parent"]["number"]]
    assert (tasks["parent"]["waits_for"], tasks["local"]["kind"]) == ("task local", "LocalTask")
    assert functions(tasks["beside"]) == ["outer", "inner"]


def test_the_tree_and_the_json(program: Start) -> None:
    run = program(STUCK)
    assert run.line() == "ready"
    ask_until(run.process.pid, is_stuck)
    code, out, err = ps(run.process.pid)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"process {run.process.pid}: CPython {sys.version.split()[0]} (")
    assert f"    MainThread (main strand): runs task main at {run.file}:{line_of(STUCK, 'STUCK')} in main" in lines
    at = lines.index("    - parent: waiting for task local")
    assert lines[at + 1].startswith(f"        spawned at {run.file}:")
    below = lines[at + 1 : at + 15]
    assert "      - child: waiting for plait.Event.wait" in below
    assert "      - local: waiting for asyncio.sleep" in below
    assert f"          {run.file}:{line_of(STUCK, 'INNER')} in inner" in below
    code, out, err = ps("--json", run.process.pid)
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert set(answer) == {"format", "pid", "python", "free_threaded", "runtimes"}
    assert set(answer["runtimes"][0]) == {"name", "queued", "threads", "tasks"}
    assert set(answer["runtimes"][0]["threads"][0]) == {
        "thread", "strand", "processor", "state", "task", "callback", "stack"
    }  # fmt: skip
    assert set(answer["runtimes"][0]["tasks"][0]) == {
        "number", "name", "kind", "strand", "state", "thread", "waits_for", "spawned_at", "stack", "awaited_by",
    }  # fmt: skip


def test_a_program_under_plait_run_that_spawns_nothing(tmp_path: Path, program: Start) -> None:
    (tmp_path / "app.py").write_text(
        "import asyncio, time\n"
        "async def main():\n"
        "    asyncio.current_task().set_name('only')\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    run = program(f"import sys\nfrom plait.cli import main\nsys.exit(main(['run', {str(tmp_path / 'app.py')!r}]))\n")
    assert run.line() == "ready"
    ask_until(run.process.pid, lambda tasks: "only" in tasks and stands_at(tasks["only"], 5))


# In this process


async def ask_ourselves() -> dict[str, Any]:
    return await plait.to_thread(ask, os.getpid(), LONG)


def test_tasks_of_asyncios_own() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        own: Any = asyncio.Task
        task = own(forever(), loop=loop, name="c-task")

        async def in_pool() -> Any:
            return own(forever(), loop=asyncio.get_running_loop(), name="pooled")

        pooled = await plait.Strand(name="library").call(in_pool())
        waiting = asyncio.create_task(asyncio.wait({task}), name="waits")
        await plait.spawn(value(1))
        await asyncio.sleep(0)  # the spawned task may have been so fast that nothing here waited yet
        tasks = by_name(await ask_ourselves())
        assert (tasks["c-task"]["kind"], functions(tasks["c-task"])) == ("asyncio.Task", ["forever"])
        assert (tasks["c-task"]["strand"], tasks["c-task"]["state"]) == ("main", "waiting")
        assert tasks["waits"]["waits_for"] == "asyncio.wait"
        assert (tasks["pooled"]["kind"], functions(tasks["pooled"])) == ("asyncio.Task", ["forever"])
        assert "library" in tasks["pooled"]["strand"]
        assert not pooled.done()
        waiting.cancel()
        task.cancel()

    plait.run(main())


def test_coroutines_that_are_not_the_interpreters() -> None:
    class Odd(Coroutine):  # type: ignore[type-arg]
        def __init__(self) -> None:
            self.inner = forever()

        def send(self, value: Any) -> Any:
            return self.inner.send(value)

        def throw(self, *what: Any) -> Any:
            return self.inner.throw(*what)

        def close(self) -> None:
            self.inner.close()

        def __await__(self) -> Any:
            return self

    async def main() -> None:
        task = plait.spawn(Odd(), name="odd")
        waiting = plait.spawn(plait.Event().wait(), name="bare")
        await eventually(lambda: task._waiting_for is not None and waiting._waiting_for is not None)  # on two workers, maybe
        tasks = by_name(await ask_ourselves())
        assert (tasks["odd"]["waits_for"], tasks["odd"]["stack"]) == ("plait.Event.wait", [])
        assert (tasks["bare"]["waits_for"], tasks["bare"]["stack"]) == ("plait.Event.wait", [])
        task.cancel()
        waiting.cancel()

    plait.run(main())


def test_states_of_tasks_in_a_strand() -> None:
    async def main() -> None:
        strand, go, runs = plait.Strand(name="home"), threading.Event(), threading.Event()

        async def block() -> None:
            runs.set()
            go.wait(LONG)

        waits = strand.spawn(forever(), name="waits")
        await strand.call(plait.sleep(0))
        strand.spawn(block(), name="blocks")
        strand.spawn(value(1), name="queued")
        await hear(runs)
        try:
            tasks = by_name(await ask_ourselves())
        finally:
            go.set()
        assert {name: tasks[name]["state"] for name in ("waits", "blocks", "queued")} == {
            "waits": "waiting", "blocks": "running", "queued": "queued",
        }  # fmt: skip
        assert all("'home'" in tasks[name]["strand"] for name in ("waits", "blocks", "queued"))
        assert tasks["waits"]["waits_for"] == "plait.Event.wait"
        waits.cancel()

    plait.run(main())


def test_a_strand_that_is_never_idle_is_asked() -> None:
    async def main() -> None:
        strand, over = plait.Strand(), plait.Event()

        async def busy() -> None:
            while not over.is_set():
                await plait.checkpoint()

        async def waits() -> None:
            await over.wait()

        spinning, waiting = strand.spawn(busy(), name="busy"), strand.spawn(waits(), name="waits")
        tasks = by_name(await ask_ourselves())
        over.set()
        await asyncio.gather(spinning, waiting)
        assert functions(tasks["waits"]) == ["waits"]
        assert tasks["waits"]["state"] in ("queued", "waiting")
        assert tasks["busy"]["state"] in ("queued", "running")

    plait.run(main(), workers=2)


def test_a_task_that_several_await_and_a_circle() -> None:
    def task(number: int, *awaited_by: int) -> dict[str, Any]:
        return {
            "number": number, "name": f"t{number}", "state": "queued", "waits_for": None, "spawned_at": None,
            "stack": [{"function": "f", "file": "app.py", "line": number}], "awaited_by": awaited_by,
        }  # fmt: skip

    runtime = {"name": "main", "queued": 0, "threads": [], "tasks": [task(1, 2, 3), task(2), task(3), task(4, 5), task(5, 4)]}
    answer = {"pid": 1, "python": "3.13.0", "free_threaded": False, "runtimes": [runtime]}
    assert tree(answer).splitlines()[5:] == [
        "    - t2: queued",
        "        app.py:2 in f",
        "      - t1: queued",
        "          app.py:1 in f",
        "    - t3: queued",
        "        app.py:3 in f",
        "      - t1: see above",
        "    - t4: queued",
        "        app.py:4 in f",
        "      - t5: queued",
        "          app.py:5 in f",
        "        - t4: see above",
    ]


def test_several_runtimes_have_one_door() -> None:
    ready, over = threading.Barrier(3), threading.Event()

    async def main(name: str) -> None:
        task = plait.spawn(forever(), name=name)
        await plait.spawn(value(1))
        ready.wait(LONG)
        await hear(over)
        task.cancel()

    threads = [threading.Thread(target=lambda name=name: plait.run(main(name))) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    try:
        ready.wait(LONG)
        answer = ask_until(os.getpid(), lambda tasks: {"one", "two"} <= set(tasks))
        assert [len(answer["runtimes"]), [each.name for each in plait_threads()].count("plait-ps")] == [2, 1]
    finally:
        over.set()
        for thread in threads:
            thread.join(LONG)
    assert plait_threads() == []


def test_while_all_go_on() -> None:
    """Nothing gets lost, or resumed while it is read."""

    async def main() -> int:
        over = plait.Event()

        async def leaf(number: int) -> int:
            await plait.sleep(0.0001 * (number % 7))
            await asyncio.sleep(0)
            return number

        async def work() -> int:
            done = 0
            while not over.is_set():
                async with plait.TaskGroup() as group:
                    children = [group.create_task(leaf(number)) for number in range(20)]
                done += len(children) + len(await asyncio.gather(*(asyncio.create_task(leaf(n)) for n in range(20))))
            return done

        workers = [plait.spawn(work()) for _ in range(4)]
        beside = asyncio.create_task(work())
        for _ in range(10):
            await ask_ourselves()
        over.set()
        return sum(await asyncio.gather(*workers, beside))

    done = plait.run(main(), workers=4)
    assert done > 0
    assert done % 40 == 0


def test_a_step_is_never_seen_without_its_task() -> None:
    """The monitor and `plait ps` look at a turn at any moment; here at each opcode that puts a task on the fast path."""
    seen: list[Any] = []

    async def yields() -> None:
        await asyncio.sleep(0.001)  # not in its first step: whoever starts a task tells of it otherwise
        await asyncio.sleep(0)

    def look(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code is not Strand._ready_again.__code__:
            return None
        frame.f_trace_opcodes = True
        pool = frame.f_locals["self"]._pool
        try:
            seen.extend(carrier.task() for carrier, turn in pool.turns() if turn[0] is frame.f_locals["self"])
        except AttributeError as missing:
            seen.append(missing)
        return look

    async def main() -> Task[Any]:
        task = plait.spawn(yields())
        await task
        return task

    threading.settrace(look)
    try:
        task = plait.run(main(), workers=1)
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
    assert task in seen
    assert set(seen) <= {task, None}


# Who gets an answer


def test_other_users_get_none(program: Start) -> None:
    assert "refused" in server.SERVER.answer_to(os.geteuid() + 1)
    assert "runtimes" in server.SERVER.answer_to(os.geteuid())
    assert "runtimes" in server.SERVER.answer_to(0)
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    run = program(STUCK)
    assert run.line() == "ready"
    source = f"import os, sys\nfrom plait.cli import main\nos.setuid(65534)\nsys.exit(main(['ps', '{run.process.pid}']))\n"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=LONG)
    assert (done.returncode, done.stdout) == (1, "")
    assert "belongs to another user. Ask as that user, or as root" in done.stderr


IDLES = "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n"


@pytest.fixture
def bystander() -> Any:
    """A process without plait."""
    process = subprocess.Popen([sys.executable, "-c", IDLES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_nobody_answers(bystander: Any) -> None:
    code, out, err = ps(bystander.pid)
    assert (code, out) == (1, "")
    assert err.startswith(f"plait: process {bystander.pid} does not answer")
    assert "run no plait at all" in err
    bystander.kill()
    bystander.wait()
    assert ps(bystander.pid) == (1, "", f"plait: there is no process {bystander.pid}\n")
    assert ps(10**30)[0] == 1


def test_an_impostor_is_not_believed(bystander: Any) -> None:
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(server.address_of(bystander.pid))
        impostor.listen()
        with pytest.raises(NoAnswer, match=f"another process, {os.getpid()}"):
            ask(bystander.pid, LONG)


def test_a_stopped_process(program: Start) -> None:
    run = program(STUCK)
    assert run.line() == "ready"
    ask(run.process.pid, LONG)
    run.send(signal.SIGSTOP)
    os.waitid(os.P_PID, run.process.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        code, out, err = ps("--timeout", "0.2", run.process.pid)
        assert (code, out) == (1, "")
        assert "took no notice for 0.2 s" in err
        assert "SIGSTOP" in err
    finally:
        run.send(signal.SIGCONT)
    assert ask(run.process.pid, LONG)["pid"] == run.process.pid


def test_other_systems(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(client, "sys", type(sys)("sys"))
    client.sys.platform = "darwin"
    assert cli.main(["ps", "1"]) == 1
    assert "Linux" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["0"], ["-3"], ["app.py"], ["1.5"], ["\u0663"], ["--timeout", "0", "1"], ["--timeout", "nan", "1"]]
)
def test_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["ps", *arguments])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage: plait ps")


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[str]:
        await plait.spawn(value(1))
        with pytest.raises(NoAnswer, match="PLAIT_PS=0"):
            await ask_ourselves()
        return [thread.name for thread in plait_threads()]

    monkeypatch.setenv("PLAIT_PS", "0")
    assert "plait-ps" not in plait.run(main())


def test_a_name_that_is_taken() -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(server.address_of(os.getpid()))
        fds = open_fds()
        assert plait.run(spawns(3)) == 3
        assert open_fds() == fds
    assert plait.run(answered()) == os.getpid()


async def spawns(number: int) -> int:
    result: int = await plait.spawn(value(number))
    return result


async def answered() -> int:
    await plait.spawn(value(1))
    pid: int = (await ask_ourselves())["pid"]
    return pid


# What is left behind


def test_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    plait.run(answered())
    gc.collect()
    fds, threads = open_fds(), threading.active_count()
    for _ in range(20):
        assert plait.run(answered()) == os.getpid()
        assert plait_threads() == []
    gc.collect()
    assert (open_fds(), threading.active_count()) == (fds, threads)
    with pytest.raises(NoAnswer, match="does not answer"):
        ask(os.getpid(), LONG)


def test_a_caller_who_does_not_read_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def long_answer(_pools: Any) -> dict[str, Any]:
        asked.set()
        return {"much": "x" * (1 << 24)}

    async def main() -> None:
        await plait.spawn(value(1))
        calling.connect(server.address_of(os.getpid()))
        await hear(asked)

    monkeypatch.setattr(server, "snapshot", long_answer)
    with socket.socket(socket.AF_UNIX) as calling:
        fds, began = open_fds(), time.monotonic()
        plait.run(main())
        assert time.monotonic() - began < server.JOIN_SECONDS
        assert plait_threads() == []
        assert open_fds() == fds


def test_an_answer_that_fails_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await plait.spawn(value(1))
        monkeypatch.setattr(server, "snapshot", lambda _pools: 1 / 0)
        with pytest.raises(NoAnswer, match="its log tells"):
            await ask_ourselves()
        monkeypatch.undo()
        assert (await ask_ourselves())["pid"] == os.getpid()

    plait.run(main())
    assert [record.getMessage() for record in caplog.records] == ["plait failed to answer `plait ps`"]


FORKS = """
import asyncio, os, sys, plait

async def add(a, b):
    return a + b

async def main():
    await plait.spawn(add(1, 2))
    return os.fork()

async def child():
    task = plait.spawn(plait.sleep(60), name="of-the-child")
    await plait.spawn(add(1, 2))
    print("child", os.getpid(), flush=True)
    await task

async def parent():
    task = plait.spawn(plait.sleep(60), name="of-the-parent")
    await plait.spawn(add(1, 2))
    print("parent", os.getpid(), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    task.cancel()

def start():
    runner = plait.Runner()
    go, let_go = os.pipe()
    pid = runner.run(main())
    if pid == 0:
        os.read(go, 1)
        plait.run(child())
        os._exit(0)
    runner.run(parent())
    runner.close()
    print("closed", flush=True)
    sys.stdin.readline()
    os.write(let_go, b"!")
    os.waitpid(pid, 0)

start()
"""


def test_a_forks_child_does_not_answer_for_its_parent(tmp_path: Path) -> None:
    (tmp_path / "forks.py").write_text(FORKS)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(tmp_path / "forks.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    child = None
    try:
        assert process.stdout.readline() == f"parent {process.pid}\n"
        names = set(by_name(ask_until(process.pid, lambda tasks: "of-the-parent" in tasks)))
        assert "of-the-child" not in names
        process.stdin.write("end your runtime\n")
        assert process.stdout.readline() == "closed\n"
        with pytest.raises(NoAnswer, match="does not answer"):  # the child has not kept its socket
            ask(process.pid, LONG)
        process.stdin.write("let the child go\n")
        child = int(process.stdout.readline().split()[1])
        assert "of-the-child" in by_name(ask_until(child, lambda tasks: "of-the-child" in tasks))
    finally:
        if child is not None:
            os.kill(child, signal.SIGKILL)
        process.kill()
        process.communicate()


def test_a_door_that_the_system_ran_out_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accept that fails is tried again."""
    listening = server._Listener
    failed: list[bool] = []
    monkeypatch.setattr(server, "RETRY", 0.001)

    class Failing(socket.socket):
        def accept(self) -> Any:
            if len(failed) < 3:
                failed.append(True)
                raise OSError(24, "Too many open files")
            return super().accept()

    monkeypatch.setattr(server.socket, "socket", Failing)
    assert listening is server._Listener
    assert plait.run(answered()) == os.getpid()
    assert len(failed) == 3
    eventually_in_thread(lambda: plait_threads() == [])


@in_plait(workers=1)
async def test_the_doors_thread_is_one_that_rests() -> None:
    """On a GIL build a busy worker sleeps a little every millisecond for each thread that does not, which costs 6 %."""

    async def others_rest() -> None:
        pool = asyncio.get_running_loop()._pool  # type: ignore[attr-defined]
        await eventually(lambda: threading.active_count() == pool.resting() + 1)  # all but this worker

    await plait.spawn(others_rest())
