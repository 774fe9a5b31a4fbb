"""The monitor's falling asleep against those who get something to do."""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace
from typing import Any

from plait._rt.sched.processor import Processor
from plait._rt.watch.monitor import Monitor

from .baton import seeds
from .rig import SCHEDULING, rig

FILES = ((*SCHEDULING, "_rt/watch/monitor.py"), ("_rt/watch/monitor.py",), ("_rt/watch/monitor.py", "_rt/sched/parking.py"))


def test_falling_asleep_against_the_first_spawn() -> None:
    """The main strand goes on, starts the workers, gives them a step that lasts, and parks: the monitor sees that step.

    Mutations caught: the main strand is asked after the workers (it has parked by then, and they were not there before); a
    monitor that does not sleep after all leaves the time of its last look infinite.
    """
    for seed in seeds():
        with rig(seed, FILES[seed % 3], 0) as r:
            r.pool.monitor = monitor = Monitor(r.pool, SimpleNamespace(summarise=lambda: None))
            monitor._thread, monitor._begun = threading.current_thread(), True
            r.main._parked, r.main._thread_id = True, threading.get_ident()
            slept: list[bool] = []

            def lasts(r: Any = r, monitor: Any = monitor, slept: Any = slept) -> None:
                r.schedule.wait(lambda: False, 1.0)
                slept.append(monitor._asleep)

            def spawn(r: Any = r, monitor: Any = monitor, lasts: Any = lasts) -> None:
                r.main._parked = False
                monitor.wake()
                processor = Processor(r.pool, 0)
                processor.holder.append(worker := r.pool.new_worker(processor))
                r.pool.processors = [processor]
                worker.start()
                monitor.begin_now()
                r.strand().call_soon_threadsafe(lasts)
                r.main._parked = True

            r.actor("main", spawn)
            r.actor("monitor", monitor._falls_asleep)
            r.run()
            r.expect(slept == [False], "the monitor slept beside a step that lasts")
            r.expect(monitor._last.ended < math.inf, "the next look would take the step for one that has just begun")
            r.main._thread_id = None
