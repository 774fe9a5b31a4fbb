"""Options: how a runtime is set up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

HANDOFF_AFTER = 0.008  # seconds; `plait.run` documents it, ADR 9 says why so many
SHUTDOWN_GRACE = 5.0  # seconds; `plait.run` documents it


@dataclass(frozen=True, slots=True)
class Options:
    """How a runtime is set up; `plait.run` documents the fields."""

    workers: int
    handoff_after: float = HANDOFF_AFTER
    max_threads: int = 256
    shutdown_grace: float = SHUTDOWN_GRACE
    monitored: bool = True
    answers: bool = True  # `plait ps`
    watch_main: bool = True  # the monitor starts with the main strand, not with the first spawn
    selector: str = ""  # the system's best, else by name (poller.py)
    on_stall: Callable[[Any], object] | None = None
    stall_after: float = 0.100
