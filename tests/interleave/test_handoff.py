"""Hand-off against the end of a step, and against parking (H1, H2, R1)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from plait._rt.sched import worker as worker_module
from plait._rt.sched.worker import Worker
from plait._rt.strand.strand import LOOK_AGAIN
from plait.runtime import checkpoint, current_strand

from .baton import seeds
from .rig import SCHEDULING, Item, alone, rig


async def _busy(r: Any, strand: Any, log: list[str], steps: int) -> None:
    for _ in range(steps):
        with alone(r, strand, "busy"):
            log.append("step")
        await checkpoint()


def _hand_off(r: Any, times: int) -> None:
    pool = r.pool
    for _ in range(times):
        r.schedule.wait(lambda: any(w.running is not None for w in pool.workers), 5.0)
        for worker in list(pool.workers):
            running, processor = worker.running, worker.proc
            r.schedule.point()
            if running is not None and processor is not None:
                if pool.handoff.give(worker):
                    running._post(LOOK_AGAIN)
                break


def _post(r: Any, strand: Any, log: list[str]) -> None:
    for number in range(3):
        r.pause()
        strand._post(Item(r, strand, f"item{number}", log))


@pytest.mark.parametrize("workers", [1, 2])
def test_handoff_against_end_of_step(workers: int) -> None:
    """Processors taken away at any moment, rightly or late: nothing queued is forgotten, no strand runs twice at a time.

    Mutations caught: the heir gets the processor before its holder loses it and both go on; who finds its processor gone
    forgets the strand it holds; who left strands in a processor's queue after it was taken away wakes nobody; two givers
    give the same processor to two heirs.
    """
    for seed in seeds():
        with rig(seed, (*SCHEDULING, "_rt/sched/handoff.py"), workers) as r:
            pool, log = r.pool, []  # type: ignore[var-annotated]
            strands = [r.strand() for _ in range(2)]
            tasks = [r.spawn(_busy(r, strand, log, 4), strand) for strand in strands]

            r.actor("monitor", partial(_hand_off, r, 3))
            r.actor("another giver", partial(_hand_off, r, 3))
            r.actor("poster", partial(_post, r, strands[0], log))
            r.run()
            r.expect(all(task.done() for task in tasks), f"{tasks}; queues {[p.queue for p in pool.processors]}")
            r.expect(log.count("step") == 8 and len(log) == 11, f"ran {log}")
            r.check_quiet(*strands)
            holders = [worker for worker in r.workers if worker.proc is not None]
            r.expect(len(holders) == workers, f"{len(holders)} hold {workers} processors")
            r.expect({w.proc for w in holders} == set(pool.processors), "H1: two workers hold one processor")


@pytest.mark.parametrize("workers", [1, 2])
def test_no_thread_for_the_heir(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system gives threads to some heirs, and spares go soon: no processor is lost, and all that is queued is run.

    Mutation caught: the processor is taken away before the heir has its thread, and given back when there is none.
    """
    for seed in seeds():
        with rig(seed, (*SCHEDULING, "_rt/sched/handoff.py"), workers) as r, monkeypatch.context() as patch:
            pool, log, start = r.pool, [], Worker.start  # type: ignore[var-annotated]
            strands = [r.strand() for _ in range(2)]
            tasks = [r.spawn(_busy(r, strand, log, 4), strand) for strand in strands]

            def start_or_not(worker: Worker, r: Any = r, start: Any = start) -> None:
                r.schedule.point()
                if r.rng.random() < 0.6:
                    raise RuntimeError("can't start new thread")
                start(worker)

            patch.setattr(Worker, "start", start_or_not)
            patch.setattr(worker_module, "SPARE_SECONDS", 0.5)
            lost: list[Worker] = []

            def worker_ended(worker: Worker, r: Any = r, lost: Any = lost, ended: Any = pool.worker_ended) -> None:
                if worker.proc is not None and not r.schedule.over:
                    lost.append(worker)
                ended(worker)

            pool.worker_ended = worker_ended  # type: ignore[method-assign]

            r.actor("monitor", partial(_hand_off, r, 4))
            r.actor("another giver", partial(_hand_off, r, 4))
            r.actor("poster", partial(_post, r, strands[0], log))
            r.run()
            r.expect(all(task.done() for task in tasks), f"{tasks}; queues {[p.queue for p in pool.processors]}")
            r.expect(log.count("step") == 8 and len(log) == 11, f"ran {log}")
            r.check_quiet(*strands)
            holders = [worker for worker in r.workers if worker.proc is not None]
            r.expect(not lost, "a thread ended with a processor")
            r.expect(
                len(holders) == workers and {w.proc for w in holders} == set(pool.processors), f"H1: {len(holders)} hold one"
            )


@pytest.mark.parametrize("workers", [1, 2])
def test_overdue_timers_against_handoff(workers: int) -> None:
    """Timers that are due when they are set come after their turn, the earliest first, in their strand, whoever is its worker.

    Mutations caught: they are posted when the turn was given back; they are left to the next turn of the worker.
    """
    for seed in seeds():
        with rig(seed, (*SCHEDULING, "_rt/sched/handoff.py"), workers) as r:
            pool, log = r.pool, []  # type: ignore[var-annotated]
            strands = [r.strand() for _ in range(2)]

            async def sets(r: Any = r, log: Any = log, number: int = 0) -> None:
                strand = current_strand()
                for step in range(3):
                    with alone(r, strand, "step"):
                        for early in (1, 2):
                            name = f"{number}.{step}.{2 - early}"
                            strand.call_at(r.schedule.now - early, Item(r, strand, name, log)._run)
                    await checkpoint()

            tasks = [r.spawn(sets(number=number), strand) for number, strand in enumerate(strands)]

            def hand_off(r: Any = r, pool: Any = pool) -> None:
                for _ in range(3):
                    r.schedule.wait(lambda: any(w.running is not None for w in pool.workers), 5.0)
                    for worker in list(pool.workers):
                        running = worker.running
                        if running is not None and worker.proc is not None:
                            if pool.handoff.give(worker):
                                running._post(LOOK_AGAIN)
                            break

            r.actor("monitor", hand_off)
            r.run()
            r.expect(all(task.done() for task in tasks), f"{tasks}")
            for number in "01":
                mine = [name for name in log if name[0] == number]
                r.expect(mine == sorted(mine) and len(mine) == 6, f"{log}")
            r.expect(not any(worker.overdue for worker in r.workers), "some are left")
            r.check_quiet(*strands)
