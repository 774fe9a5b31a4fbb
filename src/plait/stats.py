"""What the runtime counts: ``plait.stats()`` returns one frozen snapshot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """What one runtime counts, as `plait.stats()` found it. Nobody is stopped for it: not all are of one moment.

    How many there are now: workers, spares, handed_off, queued, injected, tasks, timers. How often since the runtime began:
    at_cap, steps, steals, handoffs, stalls, polls, which only grow. Before the first `spawn` all but max_threads are 0.
    Frozen: any thread may keep and read it.
    """

    workers: int
    """Workers that hold a processor."""
    spares: int
    """Threads kept for the next hand-off."""
    handed_off: int
    """Threads finishing a step without a processor at this moment."""
    max_threads: int
    """The cap that `workers + spares + handed_off` stays within."""
    at_cap: int
    """How often a hand-off was wanted and refused at the cap."""
    queued: tuple[int, ...]
    """Strands in each processor's run queue."""
    injected: int
    """Strands in the injector."""
    tasks: int
    """Spawned tasks not finished yet."""
    steps: int
    """Strand turns run by the workers, counted by batches: up to 61 behind."""
    steals: int
    """Strands taken from another processor's queue."""
    handoffs: int
    """Processors taken from stuck workers."""
    stalls: int
    """Stalls reported."""
    polls: int
    """Looks at the poller."""
    timers: int
    """Timers pending in the pool, cancelled ones that are not swept yet among them."""
