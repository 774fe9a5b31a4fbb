"""What programs are made of. A kind is a function that a node of it calls: its name, and how its arguments are drawn.

Each module registers its own; `menu` picks those that a run knows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from fuzz.program import Dice, Kind, Menu

LEAVES: dict[str, Kind] = {}
INNER: dict[str, Kind] = {}

Draw = Callable[[Dice], tuple[Any, ...]]


def nothing(_dice: Dice) -> tuple[Any, ...]:
    """A kind without arguments."""
    return ()


def leaf(draw: Draw = nothing, *, weight: int = 2, since: tuple[int, int] = (3, 11), anywhere: bool = True) -> Any:
    """Register a kind that has no nodes within."""
    return _registrar(LEAVES, draw, weight, since, anywhere)


def inner(draw: Draw, *, weight: int = 2, since: tuple[int, int] = (3, 11), anywhere: bool = True) -> Any:
    """Register one that has."""
    return _registrar(INNER, draw, weight, since, anywhere)


def _registrar(kinds: dict[str, Kind], draw: Draw, weight: int, since: tuple[int, int], anywhere: bool) -> Any:
    def register(act: Callable[..., Any]) -> Callable[..., Any]:
        name = act.__name__.strip("_")
        if sys.version_info >= since:
            kinds[name] = Kind(name, draw, act, weight, anywhere)
        return act

    return register


def menu(anywhere: bool) -> Menu:
    """All kinds, or those that do the same in a strand that polls when it likes, on any thread."""
    from fuzz.kinds import basic, callbacks, generators, groups, outside, stops, sync, tasks, timing, waits  # noqa: F401
    from fuzz.play import FACTORIES

    def pick(kinds: dict[str, Kind]) -> list[Kind]:
        return [kind for kind in kinds.values() if kind.anywhere or not anywhere]

    return Menu(pick(LEAVES), pick(INNER), ["none"] * 4 + list(FACTORIES))


def kind_of(name: str) -> Kind:
    """The kind of this name."""
    return LEAVES.get(name) or INNER[name]
