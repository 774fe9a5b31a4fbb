"""Which call a frame is in, where only its line is known: one that can be it, or none.

The function whose frame it is makes it on that line: a lambda's calls are not its neighbours'.
If it called a frame, the call has that frame's name. If it called none, the call is no function of the file's, for that
would have a frame; nor `int`, `len` and their like, which take no time.
Of those left it is one that makes the system call that was seen; else the outermost, which is made last.
A computation is no call in a loop: the loop is as likely to be what computes.
"""

from __future__ import annotations

import ast
import builtins
import linecache
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from plait.diagnose.capture import Frame
from plait.diagnose.source import ENTERS, call_at_place, entering, last_name, parsed_file, parsed_line
from plait.diagnose.syscalls import CALLERS

_SHORT = {
    "abs", "bin", "bool", "bytearray", "bytes", "callable", "chr", "complex", "divmod", "enumerate", "filter", "float",
    "format", "getattr", "hasattr", "hash", "hex", "id", "int", "isinstance", "issubclass", "iter", "len", "map", "object",
    "oct", "ord", "pow", "range", "repr", "reversed", "round", "setattr", "slice", "str", "super", "type", "vars", "zip",
}  # fmt: skip
_SHORT_METHODS = {"append", "decode", "encode", "endswith", "format", "join", "lower", "split", "startswith", "strip", "upper"}
_LONG = {
    "compress", "decompress", "digest", "dump", "dumps", "findall", "fullmatch", "load", "loads", "match", "pbkdf2_hmac",
    "scrypt", "search", "sort", "sorted", "sub", "update",
}  # fmt: skip
"""What takes most of the time of a loop that it is in."""
_MAKES = ("__init__", "__new__", "__call__")
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
_COMPREHENSION = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_OWN_FRAME: dict[type[ast.AST], str] = {ast.GeneratorExp: "<genexpr>"}
"""The comprehensions that are functions of their own."""
if sys.version_info < (3, 12):
    _OWN_FRAME |= {ast.ListComp: "<listcomp>", ast.SetComp: "<setcomp>", ast.DictComp: "<dictcomp>"}


def call_at(frame: Frame, inner: Frame | None = None, kind: str = "", detail: str = "") -> str | None:
    """The call that frame is in, as the source names it (`time.sleep`), or `with lock`; None if that can't be told.

    inner: the frame that it called, if there is one; kind and detail: the verdict.
    """
    if frame.position is not None:
        return call_at_place(frame, inner, kind)
    places = _on_line(frame, whole=kind == "cpu" and inner is None)
    if inner is not None and inner.function in ENTERS:
        heads = [place.node for place in places if place.entered]
        return entering(heads[0], inner) if len(heads) == 1 else None
    places = _with_a_frame(frame, inner, places) if inner is not None else _without(frame, places, kind)
    fitting = CALLERS.get("futex" if kind == "lock" else detail, ())
    return _last_made([place for place in places if place.name in fitting] or places, kind)


@dataclass(slots=True)
class _Place:
    """A call, or what a `with` enters."""

    node: ast.expr
    function: str | None  # whose it is; None: the parsed code's
    loops: bool  # it is in a loop of that function
    around: tuple[ast.expr, ...]  # the calls that it is an argument of
    line: int  # where the compiler says that it is
    entered: bool = False

    @property
    def name(self) -> str:
        return last_name(self.node) if isinstance(self.node, ast.Call) else ""

    def is_short(self) -> bool:
        func = getattr(self.node, "func", None)
        return self.name in (_SHORT if isinstance(func, ast.Name) else _SHORT_METHODS)

    def is_of(self, file: str) -> bool:
        """Is it defined in file? (By its name, or as a method of `self`.)"""
        func = getattr(self.node, "func", None)
        owner = getattr(func, "value", None)
        if not (isinstance(func, ast.Name) or (isinstance(owner, ast.Name) and owner.id in ("self", "cls"))):
            return False
        defined = re.compile(rf"\s*(async\s+def|def|class)\s+{self.name}\b")
        return any(defined.match(line) for line in linecache.getlines(file))

    def goes_through(self) -> bool:
        """Is there a comprehension in its arguments that runs in the frame itself?"""
        return any(isinstance(node, _COMPREHENSION) and type(node) not in _OWN_FRAME for node in ast.walk(self.node))

    def is_fed(self) -> bool:
        """Does it go through a generator, whose frame there would be?"""
        return isinstance(self.node, ast.Call) and any(isinstance(given, ast.GeneratorExp) for given in self.node.args)


def _without(frame: Frame, places: list[_Place], kind: str) -> list[_Place]:
    """Those that may run without a frame."""
    places = [place for place in places if not (place.is_short() or place.is_of(frame.file))]
    if kind != "cpu":
        return [place for place in places if not place.is_fed()]
    places = [place for place in places if place.name in _LONG or not (place.loops or place.goes_through())]
    return [place for place in places if isinstance(place.node, ast.Call)]


def _with_a_frame(frame: Frame, inner: Frame, places: list[_Place]) -> list[_Place]:
    """Those that may have called inner: by its name; else, if that isn't an attribute's or operator's, the only one that may
    go by another (a class, something wrapped)."""
    places = [place for place in places if isinstance(place.node, ast.Call)]
    named = [place for place in places if place.name == inner.function]
    if named or (inner.function.startswith(("__", "<")) and inner.function not in _MAKES):
        return named
    if re.search(rf"\.{inner.function}\b", linecache.getline(frame.file, frame.line)):
        return []  # a property
    places = [place for place in places if not (place.is_short() or hasattr(builtins, place.name))]
    return places if len(places) == 1 or inner.function in _MAKES else []


def _last_made(places: list[_Place], kind: str) -> str | None:
    """The one that the others are arguments of; None if there are two."""
    nodes = [place.node for place in places]
    last = [place for place in places if not any(outer in nodes for outer in place.around)]
    if len(last) != 1:
        return None
    node = last[0].node
    if not isinstance(node, ast.Call) or (last[0].entered and kind == "lock"):
        return entering(node, None)
    return ast.unparse(node.func)


def _on_line(frame: Frame, whole: bool) -> list[_Place]:
    """What frame's function calls and enters on its line; whole: by the whole file, which tells what is in a loop."""
    text = linecache.getline(frame.file, frame.line).strip()
    alone = parsed_line(text) if text and not whole else None
    if alone is not None:
        nested = frame.function.startswith("<") and frame.function != "<module>"
        found = _places(alone)
        own = [place for place in found if place.function == frame.function]  # `def f(): g()` is one line
        if own or not nested:
            return own or [place for place in found if place.function is None]
    tree = parsed_file(frame.file) if text else None
    found = [] if tree is None else _places(tree)
    return [place for place in found if (place.function or "<module>") == frame.function and place.line == frame.line]


def _places(tree: ast.AST) -> list[_Place]:
    found: list[_Place] = []
    _collect(tree, _In(None, False, ()), found)
    return found


class _In(NamedTuple):
    """Where a piece of code is."""

    function: str | None
    loops: bool
    around: tuple[ast.expr, ...]


def _collect(node: ast.AST, at: _In, found: list[_Place]) -> None:
    """Find what is called and entered in node, which is there."""
    if isinstance(node, ast.Call):
        name = node.func
        line = name.end_lineno if isinstance(name, ast.Attribute) else node.lineno
        found.append(_Place(node, *at, line or 0))
    elif isinstance(node, ast.withitem) and not isinstance(node.context_expr, ast.Call):
        found.append(_Place(node.context_expr, *at, node.context_expr.lineno, entered=True))
    for part, where in _parts(node, at):
        _collect(part, where, found)
    if isinstance(node, ast.withitem | ast.Await):
        part = node.context_expr if isinstance(node, ast.withitem) else node.value
        for place in [place for place in found if place.node is part]:
            place.entered = isinstance(node, ast.withitem)
            if isinstance(node, ast.Await) and node.lineno != place.line:
                found.append(replace(place, line=node.lineno))


def _parts(node: ast.AST, at: _In) -> Iterator[tuple[ast.AST, _In]]:
    """What node is made of, and where each part is."""
    own = at
    of_own: tuple[str, ...] = ()
    if isinstance(node, ast.Call):
        at = at._replace(around=(*at.around, node))
    elif isinstance(node, _FUNCTION):
        own, of_own = _In(getattr(node, "name", "<lambda>"), False, ()), ("body",)
    elif isinstance(node, ast.For | ast.AsyncFor | ast.While):
        own, of_own = at._replace(loops=True), ("body", "target", "test")
    elif isinstance(node, _COMPREHENSION):
        first = node.generators[0]
        yield first.iter, at  # the only part that is not in its function
        at = _In(_OWN_FRAME.get(type(node)) or at.function, True, at.around)
        yield from ((part, at) for part in (first.target, *first.ifs))
        yield from ((part, at) for part in ast.iter_child_nodes(node) if part is not first)
        return
    for name, value in ast.iter_fields(node):
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST):
                yield part, own if name in of_own else at
