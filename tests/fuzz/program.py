"""A program: a tree of nodes, drawn by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

NAMES = ("a", "b", "c")  # of tasks that others cancel and join


class Node(NamedTuple):
    """Something to do: a kind (kinds/), and what it is done with, other nodes among it."""

    kind: str
    args: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(map(repr, self.args))})"


class Program(NamedTuple):
    """`factory` names the task factory of its loop (play.FACTORIES); `debug` is asyncio's debug mode; with `counts_time`
    the loop's clock counts iterations."""

    factory: str
    debug: bool
    counts_time: bool
    root: Node


class Kind(NamedTuple):
    """`draw` makes a node's arguments, `act` does it. `anywhere` is False for what only a loop on the main thread, which looks
    at timers and descriptors in each iteration, does in the same order each time."""

    name: str
    draw: Callable[[Dice], tuple[Any, ...]]
    act: Callable[..., Any]
    weight: int
    anywhere: bool


class Menu(NamedTuple):
    """The kinds that programs are made of: those that have no nodes within, and those that have."""

    leaves: list[Kind]
    inner: list[Kind]
    factories: list[str]


class Dice(random.Random):
    """Draws nodes, not deeper than it was asked for."""

    def __init__(self, seed: int, menu: Menu) -> None:
        super().__init__(seed)
        self._menu = menu
        self._depth = 2 + seed % 4

    def program(self) -> Program:
        """One whole program."""
        return Program(self.choice(self._menu.factories), self.random() < 0.05, self.random() < 0.6, self.node(0))

    def node(self, deeper: int = 1) -> Node:
        """A node, so much deeper than the one that it is drawn for."""
        self._depth -= deeper
        kinds = self._menu.leaves if self._depth <= 0 or self.random() < 0.15 else self._menu.inner
        (kind,) = self.choices(kinds, [each.weight for each in kinds])
        node = Node(kind.name, kind.draw(self))
        self._depth += deeper
        return node

    def nodes(self, least: int = 1, most: int = 3) -> list[Node]:
        """Some nodes."""
        return [self.node() for _ in range(self.randint(least, most))]

    def name(self) -> str:
        """The name of a task that may or may not be there."""
        return self.choice(NAMES)


def make(seed: int, menu: Menu) -> Program:
    """The program of this seed."""
    return Dice(seed, menu).program()


def smaller(node: Node) -> Iterator[Node]:
    """What node may be replaced by: nothing to do, a part of it, or itself with something smaller inside."""
    if node.kind != "value":
        yield Node("value", ())
    for arg in node.args:
        yield from (each for each in (arg if isinstance(arg, list) else [arg]) if isinstance(each, Node))
    for place, arg in enumerate(node.args):
        for less in _smaller_arg(arg):
            yield Node(node.kind, (*node.args[:place], less, *node.args[place + 1 :]))


def _smaller_arg(arg: Any) -> Iterator[Any]:
    if isinstance(arg, Node):
        yield from smaller(arg)
    elif isinstance(arg, list):
        for place, each in enumerate(arg):
            if len(arg) > 1:
                yield arg[:place] + arg[place + 1 :]
            yield from ([*arg[:place], less, *arg[place + 1 :]] for less in _smaller_arg(each))
    elif isinstance(arg, int) and not isinstance(arg, bool) and arg > 0:
        yield arg - 1
