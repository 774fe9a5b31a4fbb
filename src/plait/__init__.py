"""plait: asyncio-compatible coroutines that behave like goroutines.

    plait.run(main())            as asyncio.run, with a pool of threads below
    plait.spawn(coro)            in a strand of its own, in parallel
    plait.TaskGroup()            the same, structured
    plait.Strand()               an explicit serial executor; `await strand.call(coro)` runs something there
    plait.start_server(...)      as asyncio.start_server, each connection in its own strand

Inside a strand asyncio holds: its libraries run there unmodified. See README.md and docs/design.md.
"""

from plait._rt.strand.belonging import strand_of
from plait._rt.task.task import Task
from plait.diagnose.stall import Stall
from plait.errors import StuckThreads, WrongStrand
from plait.net import Server, start_server
from plait.runtime import (
    EventLoop,
    Runner,
    Strand,
    checkpoint,
    current_strand,
    new_event_loop,
    run,
    sleep,
    spawn,
    stats,
    to_thread,
)
from plait.stats import Stats
from plait.sync import Event
from plait.taskgroup import TaskGroup

__version__ = "0.1.0"

__all__ = [
    "Event",
    "EventLoop",
    "Runner",
    "Server",
    "Stall",
    "Stats",
    "Strand",
    "StuckThreads",
    "Task",
    "TaskGroup",
    "WrongStrand",
    "checkpoint",
    "current_strand",
    "new_event_loop",
    "run",
    "sleep",
    "spawn",
    "start_server",
    "stats",
    "strand_of",
    "to_thread",
]
