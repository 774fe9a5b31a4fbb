"""What the figure modules share: starting a main coroutine on a peer, quantiles, and the one JSON object they print."""

import argparse
import asyncio
import importlib
import json
import platform
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

LOOPS = ("asyncio", "uvloop", "plait")


def loop_factory(peer: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What `asyncio.Runner` takes; None is asyncio's own. uvloop and plait are imported only when they are measured."""
    if peer == "asyncio":
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(peer).new_event_loop
    return factory


def run(peer: str, main: Callable[..., Coroutine[Any, Any, Any]], *args: Any, workers: int | None = None) -> Any:
    """Run `main(*args)` to its end: on plait with `plait.run` and that many workers, else with `asyncio.Runner`."""
    if peer == "plait":
        plait: Any = importlib.import_module("plait")
        return plait.run(main(*args), workers=workers)
    with asyncio.Runner(loop_factory=loop_factory(peer)) as runner:
        return runner.run(main(*args))


def spawner(peer: str) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """How a peer starts a task on its own: `plait.spawn` (a strand of its own) or `asyncio.create_task`."""
    if peer != "plait":
        return asyncio.create_task
    spawn: Callable[[Coroutine[Any, Any, Any]], Any] = importlib.import_module("plait").spawn
    return spawn


def quantile(ordered: Sequence[float], q: float) -> float:
    """The nearest-rank quantile of sorted values."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def is_gil_enabled() -> bool:
    enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return enabled()


def parser(doc: str | None, peers: Sequence[str] = LOOPS) -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--peer", choices=peers, default="plait")
    return result


def emit(figures: dict[str, Any]) -> None:
    """Print the one JSON object of this run."""
    print(json.dumps({"version": platform.python_version(), "gil": is_gil_enabled(), **figures}), flush=True)
