"""What the figure modules share: starting a main coroutine on a peer, quantiles, and the one JSON object they print."""

import argparse
import asyncio
import gc
import importlib
import json
import platform
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")

LOOPS = ("asyncio", "uvloop", "plait")


def loop_factory(peer: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What `asyncio.Runner` takes; None is asyncio's own. uvloop and plait are imported only when they are measured."""
    if peer == "asyncio":
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(peer).new_event_loop
    return factory


def run(peer: str, main: Callable[[*Ts], Coroutine[Any, Any, Any]], *args: *Ts, workers: int | None = None) -> Any:
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


def program_arguments(doc: str | None, programs: Iterable[str], default: str) -> argparse.Namespace:
    """Of a module that has several programs: which one, and how much of it."""
    arguments = parser(doc)
    arguments.add_argument("--program", choices=tuple(programs), default=default)
    arguments.add_argument("--scale", type=float, default=1.0)
    return arguments.parse_args()


async def timed(program: Callable[[float], Coroutine[Any, Any, None]], scale: float) -> dict[str, float]:
    """What a program takes, after a tenth of it to warm up. The garbage collector begins its round with it: which peer meets a
    whole collection, and which just ends before one, would be chance."""
    await program(scale / 10)
    gc.collect()
    begin, cpu = time.perf_counter(), time.process_time()
    await program(scale)
    return {"seconds": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu}


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
