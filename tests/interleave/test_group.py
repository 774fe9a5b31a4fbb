"""TaskGroup: children finishing against the parent that leaves, waits or aborts (G1-G3)."""

from __future__ import annotations

from typing import Any

import plait
from plait import Event, TaskGroup
from plait._rt.task.task import Task

from .baton import seeds
from .rig import TASK, TASKS, rig

FOCUS = (("taskgroup.py",), TASKS, ("taskgroup.py", *TASK))


async def _child(fail: bool, event: Event | None = None) -> str:
    if event is not None:
        await event.wait()
    else:
        await plait.checkpoint()
    if fail:
        raise ValueError("child")
    return "done"


def test_children_against_leaving() -> None:
    """The parent leaves when its last child has finished, not before, and never waits for ever.

    Mutations caught: a child looks whether it is the last before it appends itself; `_exiting` is raised after the last reap;
    `_reap` stops at one child.
    """
    for seed in seeds():
        with rig(seed, FOCUS[seed % 3], 2) as r:
            children: list[Task[str]] = []

            number = r.rng.randint(1, 3)

            async def parent(children: Any = children, number: int = number) -> bool:
                async with TaskGroup() as group:
                    children += [group.create_task(_child(False)) for _ in range(number)]
                return all(child.done() for child in children)

            task = r.spawn(parent())
            r.run()
            r.expect(task.done() and task.result() is True, f"{task}; {children}")
            r.check_quiet()


def test_child_made_elsewhere_against_abort() -> None:
    """A child that another strand makes while the group aborts is refused or cancelled: the parent comes to its end.

    Mutation caught: `create_task` does not look again at `_aborting` after the child is listed.
    """
    for seed in seeds(300):
        with rig(seed, FOCUS[seed % 3], 2) as r:
            never, opened = Event(), Event()
            groups: list[TaskGroup] = []
            refused: list[int] = []

            async def parent(groups: Any = groups, never: Any = never, opened: Any = opened) -> str:
                try:
                    async with TaskGroup() as group:
                        groups.append(group)
                        group.create_task(_child(False, never))
                        opened.set()
                        group.create_task(_child(True))
                except ExceptionGroup:
                    return "failed"
                return "?"

            async def other(groups: Any = groups, never: Any = never, opened: Any = opened, refused: Any = refused) -> None:
                await opened.wait()
                try:
                    groups[0].create_task(_child(False, never))
                except RuntimeError:
                    refused.append(1)

            task, friend = r.spawn(parent()), r.spawn(other())
            r.run()
            r.expect(friend.done(), f"{friend}")
            r.expect(task.done() and task.result() == "failed", f"{task}; {groups[0]._tasks}")
            r.check_quiet()


def test_child_made_elsewhere_against_leaving() -> None:
    """A child that another strand makes while the last one ends is waited for, or refused: none outlives the group.

    Mutations caught: `create_task` asks whether the group is finished and adds without the gate; the gate stays open when the
    last child was reaped.
    """
    for seed in seeds(400):
        with rig(seed, FOCUS[seed % 3], 2) as r:
            groups: list[TaskGroup] = []
            opened = Event()
            ran: list[bool] = []  # was the parent through already?
            refused: list[str] = []
            through: list[int] = []

            async def parent(groups: Any = groups, opened: Any = opened, through: Any = through) -> None:
                async with TaskGroup() as group:
                    groups.append(group)
                    group.create_task(_child(False))
                    opened.set()
                through.append(1)

            async def child(ran: Any = ran, through: Any = through) -> None:
                await plait.checkpoint()
                ran.append(bool(through))

            async def other(groups: Any = groups, opened: Any = opened, refused: Any = refused, child: Any = child) -> None:
                await opened.wait()
                try:
                    for _ in range(3):
                        groups[0].create_task(child())
                        await plait.checkpoint()
                except RuntimeError as error:
                    refused.append(str(error))

            task, friends = r.spawn(parent()), [r.spawn(other()) for _ in range(2)]
            r.run()
            r.expect(task.done() and all(friend.done() for friend in friends), f"{task}, {friends}")
            r.expect(not any(ran), f"{ran.count(True)} children outlived the group")
            r.expect(all("is finished" in each for each in refused), f"{refused}")
            r.expect(len(ran) + len(refused) <= 6 and not groups[0]._tasks, f"ran {ran}, refused {refused}")
            r.check_quiet()
