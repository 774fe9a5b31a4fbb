"""Print a snapshot: each runtime's threads, and its tasks as a tree of who awaits whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def tree(answer: dict[str, Any]) -> str:
    """All of it, as text."""
    build = "free-threaded" if answer["free_threaded"] else "GIL"
    lines = [f"process {answer['pid']}: CPython {answer['python']} ({build}), {len(answer['runtimes'])} plait runtime(s)"]
    tasks = {task["number"]: task for runtime in answer["runtimes"] for task in runtime["tasks"]}
    for runtime in answer["runtimes"]:
        lines += ["", *_runtime(runtime, tasks)]
    return "\n".join(lines)


def _runtime(runtime: dict[str, Any], known: dict[int, Any]) -> Iterator[str]:
    yield f"runtime of {runtime['name']}: {len(runtime['tasks'])} task(s), {runtime['queued']} strand(s) queued"
    yield "  threads"
    for thread in runtime["threads"]:
        yield f"    {thread['thread']}{_role(thread)}: {_doing(thread, known)}"
    yield "  tasks"
    yield from _Forest(runtime["tasks"]).lines()


def _role(thread: dict[str, Any]) -> str:
    if thread["strand"] is not None:
        return " (main strand)" if thread["strand"] == "main" else f" ({thread['strand']})"
    return "" if thread["processor"] is None else f" (processor {thread['processor']})"


def _doing(thread: dict[str, Any], known: dict[int, Any]) -> str:
    if thread["state"] != "running":
        return str(thread["state"])
    task = known.get(thread["task"])
    what = f"task {task['name']}" if task is not None else f"callback {thread['callback']}" if thread["callback"] else "a turn"
    at = f" at {_place(thread['stack'][-1])}" if thread["stack"] else ""
    given = "" if thread["strand"] or thread["processor"] is not None else ", its processor handed off"
    return f"runs {what}{at}{given}"


def _place(frame: dict[str, Any]) -> str:
    return f"{frame['file']}:{frame['line']} in {frame['function']}"


class _Forest:
    """Tasks below those that await them; one that several await stands below each, with its stack below the first."""

    def __init__(self, tasks: list[dict[str, Any]]) -> None:
        self._tasks = tasks
        self._shown: set[int] = set()
        here = {task["number"] for task in tasks}
        self._below: dict[int, list[dict[str, Any]]] = {}
        self._roots = [task for task in tasks if not here.intersection(task["awaited_by"])]
        for task in tasks:
            for awaiter in task["awaited_by"]:
                self._below.setdefault(awaiter, []).append(task)

    def lines(self) -> Iterator[str]:
        """From the roots down; then what is left: tasks that await each other in a circle."""
        for task in (*self._roots, *self._tasks):
            if task["number"] not in self._shown:
                yield from self._lines(task)

    def _lines(self, root: dict[str, Any]) -> Iterator[str]:
        todo = [(root, "    ")]  # no recursion: a chain of tasks may be long
        while todo:
            task, indent = todo.pop()
            if task["number"] in self._shown:
                yield f"{indent}- {task['name']}: see above"
                continue
            self._shown.add(task["number"])
            yield f"{indent}- {task['name']}: {_state(task)}"
            if task["spawned_at"]:
                yield f"{indent}    spawned at {task['spawned_at']}"
            yield from (f"{indent}    {_place(frame)}" for frame in task["stack"])
            todo += [(child, indent + "  ") for child in reversed(self._below.get(task["number"], []))]


def _state(task: dict[str, Any]) -> str:
    if task["state"] == "running":
        return f"running on {task['thread']}"
    return f"waiting for {task['waits_for']}" if task["waits_for"] else str(task["state"])
