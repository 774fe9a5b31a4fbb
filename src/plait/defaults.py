"""Make plait's loop the one that asyncio gives to who asks for none in particular.

`asyncio.run`, `asyncio.Runner`, `asyncio.new_event_loop` and, up to 3.13, `asyncio.get_event_loop` all ask one place: the
event loop policy up to 3.15 (deprecated since 3.14), the function `asyncio.events.new_event_loop` after that. A loop, a
loop factory or a policy of the program's own is left alone.
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from typing import Any

from plait._rt.thread_strand import ThreadStrand
from plait.runtime import Runner, new_event_loop


def serve_asyncio() -> None:
    """From now on asyncio's default loop is plait's, in this process, and the monitor watches it from its start."""
    os.environ.setdefault("PLAIT_WATCH_MAIN", "1")
    if sys.version_info < (3, 16):
        _set_policy()
    else:
        _replace_function()
    _have_interrupts_wait()


def _set_policy() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        class Policy(asyncio.DefaultEventLoopPolicy):
            """asyncio's, with plait's loop."""

            def new_event_loop(self) -> asyncio.AbstractEventLoop:
                return new_event_loop()

        asyncio.set_event_loop_policy(Policy())


def _replace_function() -> None:
    def default() -> asyncio.AbstractEventLoop:
        """A new event loop, plait's."""
        return new_event_loop()

    default.__name__ = default.__qualname__ = "new_event_loop"
    asyncio.new_event_loop = asyncio.events.new_event_loop = default


def _have_interrupts_wait() -> None:
    """Have `asyncio.Runner` treat Ctrl-C as plait's does where the loop is plait's: never in the middle of a step."""
    on_sigint: Any = asyncio.Runner._on_sigint  # type: ignore[attr-defined]

    def _on_sigint(self: Any, signum: int, frame: Any, main_task: Any) -> None:
        handle = Runner._on_sigint if isinstance(self.get_loop(), ThreadStrand) else on_sigint
        handle(self, signum, frame, main_task)

    asyncio.Runner._on_sigint = _on_sigint  # type: ignore[attr-defined]
