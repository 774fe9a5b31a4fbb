"""Carrier: a thread that runs turns of strands (Loom's name for it): a worker of the pool (sched/worker.py), or the thread of
one strand, of a main one (ThreadCarrier) or of a pinned one (`Seat`, pinned.py).

What the monitor, shutdown and `plait ps` ask of a thread they ask of its carrier, from another thread; the answers are hints,
since the thread goes on. A carrier outlives the strand that it has none but a weak reference to.

Ownership
    `item` is written by the carrier's thread before it runs an item of a strand's queue, and read by anybody.
    `probe` has what others may ask of the thread.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from plait._rt.ground.thread_probe import ThreadProbe
from plait._rt.task.task import task_of

if TYPE_CHECKING:
    from plait._rt.sched.processor import Processor
    from plait._rt.strand.strand import Strand
    from plait._rt.strand.thread_strand import ThreadStrand
    from plait._rt.task.task import Task

    # Whose turn it is; a number that most turns change; and what runs in it, by its id (a reference would keep what has ended).
    # The first two tell turns apart, all three items.
    Turn = tuple[Strand, int, int]


class Carrier:
    """A thread that runs turns."""

    __slots__ = ("item", "probe")

    pooled: ClassVar[bool] = False  # does it serve the processors of a pool? Then what waits for it can be handed to another
    proc: Processor | None = None  # the one that a pooled one holds

    def __init__(self) -> None:
        self.item: Any = None
        self.probe = ThreadProbe()

    @property
    def name(self) -> str:
        """The thread's."""
        ident = self.probe.ident
        return next((thread.name for thread in threading.enumerate() if thread.ident == ident), "no thread")

    @property
    def home(self) -> ThreadStrand | None:
        """The one strand whose turns it runs, if that is all it is for, and somebody still refers to it."""
        return None

    def turn(self) -> Turn | None:
        """The turn that it is in, if it is in one."""
        raise NotImplementedError

    def task(self) -> Task[Any] | None:
        """The task whose step it makes; None while it runs a callback."""
        return task_of(self.item)


class ThreadCarrier(Carrier):
    """The thread of one strand. Its `item` is None between two batches of items."""

    __slots__ = ("reference",)

    def __init__(self, strand: ThreadStrand) -> None:
        super().__init__()
        self.reference = weakref.ref(strand)

    @property
    def home(self) -> ThreadStrand | None:
        return self.reference()

    def turn(self) -> Turn | None:
        item, strand = self.item, self.reference()
        return None if item is None or strand is None else (strand, id(item), id(item))
