"""A strand is used for the next task only if nobody holds it, whatever looks on (ADR 3)."""

from __future__ import annotations

from typing import Any

import pytest
from unit_helpers import in_plait

import plait
from plait._rt.ground.cpython import compiles
from plait._rt.ground.here import here
from plait._rt.sched import reuse
from plait._rt.sched import worker as worker_module

WORK = """
import asyncio, gc, queue, sys, threading, weakref
import plait

by_thread = queue.SimpleQueue()
taken = []

def holder():  # a thread that has the strand in a variable of its own
    while True:
        strand = by_thread.get()
        if strand is None:
            return
        taken.append(strand)

async def known(how, number):
    strand = asyncio.get_running_loop()
    assert "mine" not in strand.__dict__
    if how == "list":
        held.append(strand)
    elif how == "thread":
        by_thread.put(strand)
        taken_ids.append(id(strand))
    elif how == "weak":
        weak.append(weakref.ref(strand))
    elif how == "bound":
        held.append(strand.call_soon)
    elif how == "closure":
        held.append(lambda: strand)
    return number

async def unknown(number):
    return number

async def main():
    for number in range(40):
        for how in ("list", "thread", "bound", "closure", "weak"):
            assert await plait.spawn(known(how, number)) == number
            assert await plait.spawn(unknown(number)) == number
    by_thread.put(None)
    thread.join()
    strands = [getattr(each, "__self__", each) for each in held]
    strands = [each() if callable(each) and not hasattr(each, "call_soon") else each for each in strands] + taken
    assert len({id(each) for each in strands}) == len(strands) == 160, "a strand that somebody holds was used again"

held, weak, taken_ids = [], [], []
thread = threading.Thread(target=holder)
thread.start()
"""

LOOKERS = {
    "nobody": "",
    "a tracer": "threading.settrace(lambda frame, event, arg: (frame.f_locals, lambda *_: None)[1])",
    "a debugger": """
def trace(frame, event, arg):
    kept.append(dict(frame.f_locals)); del kept[:-3]
    return trace
kept = []
threading.settrace(trace)""",
    "a profiler": "threading.setprofile(lambda frame, event, arg: frame.f_locals)",
    "one that leaves": """
def trace(frame, event, arg):
    frame.f_locals
    calls.append(1)
    if len(calls) > 50:
        sys.settrace(None)
        return None
    return trace
calls = []
threading.settrace(trace)""",
}


@pytest.mark.parametrize("looker", LOOKERS)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_strand_that_somebody_holds_is_not_used_again(looker: str, workers: int, program: Any) -> None:
    code, _, err = program(f"{WORK}\n{LOOKERS[looker]}\nplait.run(main(), workers={workers})\n").end(60)
    assert (code, err) == (0, "")


@in_plait(workers=1)
async def test_one_that_nobody_holds_is() -> None:
    """On this interpreter the two can be told apart."""
    numbers: list[int] = []

    async def notes() -> Any:
        numbers.append(id(here.worker.running))  # type: ignore[union-attr]
        return here.worker

    workers = [await plait.spawn(notes()) for _ in range(10)]
    if not compiles():
        assert workers[0].own_refs > 0
        assert len(set(numbers)) < 10


@pytest.mark.parametrize("counts", ["always the same", "never the same"])
def test_where_counts_tell_nothing_none_is_used_again(counts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def getrefcount(_object: Any) -> int:
        asked.append(1)
        return 5 if counts == "always the same" else len(asked)

    async def worker() -> Any:
        return here.worker

    async def main() -> None:
        [await plait.spawn(worker()) for _ in range(5)]
        found: Any = await plait.spawn(worker())
        assert found.own_refs == -1
        assert found.unused is None

    monkeypatch.setattr(worker_module, "getrefcount", getrefcount)
    monkeypatch.setattr(reuse, "_counted", None)
    plait.run(main())
    assert asked


def test_nobody_meets_the_tasks_of_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends while a worker counts cancels the tasks that it finds, and its thread once died of that."""
    found: list[Any] = []

    async def looks() -> None:
        pool = here.worker.pool  # type: ignore[union-attr]
        tasks = [task for task in pool.all_tasks() if task.get_coro().cr_code is not worker.__code__]
        found.extend([*tasks, *(turn for _, turn in pool.turns() if turn[0] is not pool.main)])
        for task in tasks:
            task.cancel()

    async def worker() -> Any:
        return here.worker

    async def main() -> None:
        one: Any = await plait.spawn(worker())
        assert not found
        assert one.own_refs > 0 or compiles()

    monkeypatch.setattr(reuse, "_unknown", looks)
    monkeypatch.setattr(reuse, "_counted", None)
    plait.run(main(), workers=1)


def test_tracers_are_there_again_after_the_count(program: Any) -> None:
    code, out, err = program("""
import sys, threading, plait
seen = set()
def trace(frame, event, arg):
    seen.add(frame.f_code.co_name)
    return trace
def profile(frame, event, arg):
    pass
async def traced():
    return sys.gettrace() is trace, sys.getprofile() is profile
threading.settrace(trace)
threading.setprofile(profile)
async def main():
    print(await plait.spawn(traced()), "traced" in seen)
plait.run(main())
""").end()
    assert (code, out) == (0, "(True, True) True\n"), err
