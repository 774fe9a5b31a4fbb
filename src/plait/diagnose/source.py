"""What the source says at a place: which call a frame is in.

Where the place in the line is known (a GIL build), the code there is that call, or the frame is in none. Where only the line is
(a stack that a signal handler wrote, or Python without debug ranges): line.py.
"""

from __future__ import annotations

import ast
import functools
import linecache
import sys
from collections.abc import Iterator
from typing import Any, TypeVar

from plait._rt.ground.clock import Clock
from plait.diagnose import garbage
from plait.diagnose.capture import Frame
from plait.diagnose.collector import held_off

N = TypeVar("N", bound=ast.AST)
ENTERS = ("__enter__", "__exit__", "__aenter__", "__aexit__")
_UNREADABLE = (SyntaxError, ValueError, RecursionError, SystemError)
# Up to 3.11.7 and 3.12.1 all threads count the depth of their trees in one place (cpython#106905): one that is interrupted by a
# collection while it makes a tree, and another that makes one meanwhile, fail with SystemError.
_ONE_TREE_AT_A_TIME = sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2)
TRIES = 5
# What a line may be: a statement, the head of one, an `elif` or `else`, an `except` or `finally`
_FORMS = ("{}", "{} pass", "if 1: pass\n{} pass", "try: pass\n{} pass")


def call_at_place(frame: Frame, inner: Frame | None, kind: str) -> str | None:
    """The call that frame is in, as the source names it (`time.sleep`), or `with lock`; None if it is in none.

    inner: the frame that it called, if there is one; kind: the verdict.
    """
    assert frame.position is not None
    _, end, _, stop = frame.position
    before, text = _around(frame)
    node = _expression(text)
    if node is None:
        return _at_head(frame)
    if isinstance(node, ast.Await):
        node = node.value
    if isinstance(node, ast.Call):
        if before.endswith("."):  # its place begins with the attribute, where that is on a line of its own
            node = next((call for call in _nodes(frame.file, ast.Call) if _end(call) == (end, stop)), node)
        entered = inner is None and kind == "lock" and before.endswith("with")
        if entered or (inner is not None and inner.function in ENTERS and last_name(node) != inner.function):
            return entering(node, inner)
        return ast.unparse(node.func)
    if before.endswith("@"):
        return ast.unparse(node)
    heads = (item.context_expr for item in _nodes(frame.file, ast.withitem))
    entered_here = any((*_start(head), *_end(head)) == _ordered(frame) for head in heads)
    return entering(node, inner) if entered_here else None


def entering(node: ast.expr, inner: Frame | None) -> str:
    """What to call it that node is entered, or left, by that frame."""
    asynchronous = inner is not None and inner.function.startswith("__a")
    return f"{'async ' if asynchronous else ''}with {ast.unparse(node)}"


def last_name(call: ast.Call) -> str:
    """`sleep` of `time.sleep(1)`."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""


def parsed_line(text: str) -> ast.Module | None:
    """A line by itself, if it is a whole statement or the head of one. (A file of a thousand lines takes 4 ms to parse.)"""
    for form in _FORMS:
        try:
            return _parse(form.format(text))  # type: ignore[no-any-return]
        except _UNREADABLE:
            continue
    return None


def parsed_file(file: str) -> ast.Module | None:
    """The file, if it can be had and is Python."""
    try:
        return _parsed_file(file)
    except _UNREADABLE:
        return None


@functools.lru_cache(8)
def _parsed_file(file: str) -> ast.Module:
    return _parse("".join(linecache.getlines(file)))  # type: ignore[no-any-return]


def wait_for_trees(seconds: float) -> None:
    """Until trees can be made, or so long: while another thread collects they can't, where that matters (`_parse`)."""
    until = Clock.monotonic() + seconds
    while _ONE_TREE_AT_A_TIME and Clock.monotonic() < until:
        with held_off() as held:
            if held and not garbage.one_is_under_way():
                return
        Clock.sleep(0.001)


def _parse(text: str, mode: str = "exec") -> Any:
    """As ast.parse; SystemError where another thread may be in the middle of one, on an interpreter where that matters."""
    if not _ONE_TREE_AT_A_TIME:
        return ast.parse(text, mode=mode)
    for _ in range(TRIES):
        with held_off() as held:  # ours is not interrupted, and none of the program's from now on
            if held:
                if garbage.one_is_under_way():
                    break
                return ast.parse(text, mode=mode)
        Clock.sleep(0.001)  # who looks at a stack is soon done
    raise SystemError("another thread collects garbage, perhaps while it makes a tree")


def _around(frame: Frame) -> tuple[str, str]:
    """The code at frame's place, and what stands before it on its line."""
    line, end, start, stop = frame.position or (0, 0, 0, 0)
    lines = [linecache.getline(frame.file, number).encode() for number in range(line, end + 1)]
    lines[-1] = lines[-1][:stop]
    before, lines[0] = lines[0][:start], lines[0][start:]
    return before.decode(errors="replace").rstrip(), b"".join(lines).decode(errors="replace")


def _expression(text: str) -> ast.expr | None:
    try:
        return _parse(f"({text})", "eval").body  # type: ignore[no-any-return]
    except _UNREADABLE:
        return None


def _at_head(frame: Frame) -> str | None:
    """The place is a whole `with` or `for` (up to 3.11, and of `async for`): what it enters, or goes through."""
    found = [node for node in _nodes(frame.file, ast.stmt) if (*_start(node), *_end(node)) == _ordered(frame)]
    head = found[0] if found else None
    if isinstance(head, ast.With | ast.AsyncWith):
        word = "with" if isinstance(head, ast.With) else "async with"
        return f"{word} {', '.join(ast.unparse(item.context_expr) for item in head.items)}"
    goes = head.iter if isinstance(head, ast.For | ast.AsyncFor) else None
    return ast.unparse(goes.func) if isinstance(goes, ast.Call) else None


def _nodes(file: str, kind: type[N]) -> Iterator[N]:
    tree = parsed_file(file)
    return (node for node in ast.walk(tree) if isinstance(node, kind)) if tree is not None else iter(())


def _ordered(frame: Frame) -> tuple[int, int, int, int]:
    line, end, start, stop = frame.position or (0, 0, 0, 0)
    return line, start, end, stop


def _start(node: ast.expr | ast.stmt) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _end(node: ast.expr | ast.stmt) -> tuple[int, int]:
    return node.end_lineno or 0, node.end_col_offset or 0
