"""The errors that plait raises of its own; everything else is asyncio's or the standard library's."""

from __future__ import annotations


class WrongStrand(RuntimeError):
    """Something that belongs to one strand was used from another.

    The message says which thing, whose it is, and what to write instead (usually ``await strand.call(...)``).
    """


class StuckThreads(RuntimeWarning):
    """Shutdown gave up waiting for threads; the message names where each is stuck."""
