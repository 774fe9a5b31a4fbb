"""What the source says at a place: which call a frame is in."""

from __future__ import annotations

import ast
import functools
import linecache

from plait.diagnose.capture import Frame

# What a line may be: a statement, the head of one, either of them in a coroutine, an `elif` or `else`, an `except` or `finally`
_FORMS = ("{}", "{} pass", "async def f():\n {}", "async def f():\n {} pass", "if 1: pass\n{} pass", "try: pass\n{} pass")


def call_at(frame: Frame) -> str | None:
    """The call that frame is in, as the source names it (`time.sleep`), or `with lock`; None if the line doesn't tell."""
    text = linecache.getline(frame.file, frame.line).strip()
    if not text:
        return None
    tree = _parsed_line(text)
    if tree is None:
        tree, line, position = _parsed_file(frame.file), frame.line, frame.position
    else:  # of the line alone, in which places are other ones
        line, position = 0, None
    if tree is None:
        return None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _holds(node, line)]
    exact = [node for node in calls if _place(node) == position]
    if frame.position is not None and not exact:
        segment = text_at(frame)
        exact = [node for node in calls if segment is not None and ast.unparse(node) == segment] or []
    found = exact or calls
    if found:
        return ast.unparse(min(found, key=_extent).func)
    withs = [node for node in ast.walk(tree) if isinstance(node, ast.With) and (line == 0 or node.lineno == line)]
    return f"with {ast.unparse(withs[0].items[0].context_expr)}" if withs else None


def text_at(frame: Frame) -> str | None:
    """The code of the call that runs, in ast's own spelling; None where its place isn't known or it isn't on one line."""
    if frame.position is None:
        return None
    line, end, start, stop = frame.position
    if line != end:
        return None
    source = linecache.getline(frame.file, line).encode()[start:stop].decode(errors="replace")
    try:
        return ast.unparse(ast.parse(source, mode="eval"))
    except (SyntaxError, ValueError):
        return None


def _parsed_line(text: str) -> ast.AST | None:
    """A line by itself, if it is a whole statement or the head of one. (A file of a thousand lines takes 4 ms to parse.)"""
    for form in _FORMS:
        try:
            return ast.parse(form.format(text))
        except (SyntaxError, ValueError):
            continue
    return None


@functools.lru_cache(8)
def _parsed_file(file: str) -> ast.AST | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None


def _holds(node: ast.Call, line: int) -> bool:
    return line == 0 or node.lineno <= line <= (node.end_lineno or node.lineno)


def _place(node: ast.Call) -> tuple[int, int, int, int]:
    return node.lineno, node.end_lineno or 0, node.col_offset, node.end_col_offset or 0


def _extent(node: ast.Call) -> tuple[int, int]:
    return (node.end_lineno or 0) - node.lineno, (node.end_col_offset or 0) - node.col_offset
