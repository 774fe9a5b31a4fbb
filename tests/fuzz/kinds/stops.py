"""KeyboardInterrupt, SystemExit and Ctrl-C: they come out of the loop, which runs on afterwards."""

from __future__ import annotations

import asyncio
import signal

from fuzz.kinds import inner, leaf
from fuzz.play import STOPS, Play
from fuzz.program import Node


@leaf(lambda dice: (dice.randrange(2),), weight=1, anywhere=False)
async def stop(play: Play, which: int) -> None:
    raise play.stopping(STOPS[which]("in a task"))


@leaf(lambda dice: (dice.randrange(2),), weight=1, anywhere=False)
async def stop_in_callback(play: Play, which: int) -> None:
    play.loop.call_soon(_raise, play.stopping(STOPS[which]("in a callback")))


def _raise(error: BaseException) -> None:
    raise error


@inner(lambda dice: (dice.randrange(2), dice.node()), weight=1, anywhere=False)
async def stop_when_done(play: Play, which: int, node: Node) -> None:
    task = play.spawn(node)
    task.add_done_callback(lambda _: _raise(play.stopping(STOPS[which]("when done"))))
    await play.outcome(task)


@leaf(weight=1, anywhere=False)
async def stop_loop(play: Play) -> None:
    """The iteration is run to its end."""
    if play.may_stop():
        play.loop.stop()


@leaf(lambda dice: (dice.randrange(3),), weight=1, anywhere=False)
async def interrupt(play: Play, steps: int) -> None:
    """Ctrl-C cancels the task that is run."""
    for _ in range(steps):
        await asyncio.sleep(0)
    if play.may_interrupt():
        signal.raise_signal(signal.SIGINT)
