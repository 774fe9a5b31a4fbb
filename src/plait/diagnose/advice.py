"""What to write instead of the call that stalled: looks it up in advice.json (`Entry` says what its fields mean).

The stack decides before the call's text does: a receiver's name is arbitrary (`client.get`), the module that runs is not.
Of the library frames between the place that is stuck and the user's code the outermost one known wins, for that is the
library the user called: inside requests the same stack also passes through urllib3, http.client and ssl, and advice on those
helps nobody. Built-in functions (time.sleep, socket.recv, lock.acquire) have no frame: for them there is only the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from plait._rt.ground.code_origin import is_plaits
from plait.diagnose.capture import Frame

_INSTALLED = re.compile(r".*/(?:site|dist)-packages/(.+)")
_STDLIB = re.compile(r".*/lib(?:64)?/python3\.\d+t?/(.+)")
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_NOT_THE_LINE = ("gc", "starved", "host")
"""Verdicts that aren't the named line's doing: advice on its call would mislead."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the table.

    Several may fit: the outermost frame known wins over frames inside it, frames win over the call, the closer pattern wins.
    The receiver of a method is arbitrary (`conn.recv`): where the name is all there is, the sentence says "if".
    """

    instead: str
    """The sentence for the report. COMPUTE(...) becomes a thread on a free-threaded build, a process otherwise."""
    source: str
    """The page of the library's documentation that has the replacement."""
    example: dict[str, Any]
    """What it must be found for: stack (innermost first), call, or both."""
    frame: Sequence[str] = ()
    """It is recognised by a frame of the stack: "module" (and what is below it) or "module:function", which may have *;"""
    call: Sequence[str] = ()
    """or by the call's text where no frame is known: built-in functions have none; may have *."""
    if_frame: Sequence[str] = ()
    """One of these frames must be there as well."""
    if_call: Sequence[str] = ()
    """The call's text must match one of these."""
    not_frame: Sequence[str] = ()
    """None of these may be there: the asynchronous half of the same library."""
    kind: str | None = None
    """The verdict must be this."""

    def allows(self, frames: Sequence[str], call: str | None, kind: str) -> bool:
        """Do the entry's conditions hold (those besides being recognised)?"""
        return (
            self.kind in (None, "cpu" if kind == "gil" else kind)
            and (not self.if_frame or any(_runs(pattern, frame) for pattern in self.if_frame for frame in frames))
            and (not self.if_call or any(_matches(call or "", pattern) for pattern in self.if_call))
            and not any(_runs(pattern, frame) for pattern in self.not_frame for frame in frames)
        )


@dataclass(frozen=True, slots=True)
class Table:
    """All of advice.json."""

    entries: tuple[Entry, ...]
    fallback: dict[str, str]
    """Where no entry fits: by verdict. CALL becomes the call's name."""
    packages: dict[str, list[Entry]] = field(default_factory=dict)
    """The entries that a frame of this package may fit: the monitor's thread does the search, and has other things to do."""

    def __post_init__(self) -> None:
        for entry in self.entries:
            for package in dict.fromkeys(map(_package, entry.frame)):
                self.packages.setdefault(package, []).append(entry)


@cache
def table() -> Table:
    """The table, read when it is first asked for: importing plait reads no files. (As JSON, for that is when others are late
    already, perhaps for want of the GIL: it takes 2 ms, and took 24 as TOML.)"""
    content = json.loads(Path(__file__).with_name("advice.json").read_text(encoding="utf-8"))
    entries = (Entry(**entry) for group in content["advice"].values() for entry in group)
    return Table(tuple(entries), content["fallback"])


def advise(stack: Sequence[Frame], call: str | None, kind: str, free_threaded: bool) -> str | None:
    """What to write instead, or None where nothing can be said; stack is innermost first, call as the source names it.

    Any thread may call it; it blocks only to read the table, once.
    """
    named = kind not in _NOT_THE_LINE or (kind == "gc" and call is not None and call.endswith("gc.collect"))
    found = find(stack, call, kind) if named else None
    sentence = found.instead if found is not None else table().fallback.get(kind)
    return None if sentence is None else _fill(sentence, call, free_threaded)


def find(stack: Sequence[Frame], call: str | None, kind: str) -> Entry | None:
    """The entry for this stall."""
    frames = library_frames(stack)
    for frame in reversed(frames):
        known = [(_closeness_of_frame(entry, frame), entry) for entry in table().packages.get(_package(frame), ())]
        found = _best(known, frames, call, kind)
        if found is not None:
            return found
    return _best([(_closeness_of_call(entry, call), entry) for entry in table().entries], frames, call, kind)


def library_frames(stack: Iterable[Frame]) -> list[str]:
    """The frames inside the innermost one of the user's, innermost first, each as "module:function"."""
    found = []
    for frame in stack:
        module = module_of(frame.file)
        if is_plaits(frame.file) or (module is None and not frame.file.startswith("<")):
            break
        if module is not None:  # else generated code, `<string>`, which belongs to whoever called it
            found.append(f"{module}:{frame.function}")
    return found


def module_of(file: str) -> str | None:
    """The module of a library's file; None if the file is the user's, or nobody's."""
    if file.startswith("<frozen "):
        return file[len("<frozen ") : -1]
    found = _INSTALLED.match(file) or _STDLIB.match(file)
    return None if found is None else found[1].removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _matches(name: str, pattern: str) -> bool:
    """Does name match pattern, in which * stands for anything? (fnmatch makes an expression of each pattern first: 12 ms.)"""
    first, *rest = pattern.split("*")
    if not rest:
        return name == first
    at = len(first)
    for part in rest[:-1]:
        found = name.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return name.startswith(first) and name.endswith(rest[-1]) and at + len(rest[-1]) <= len(name)


def _runs(pattern: str, frame: str) -> bool:
    """Is frame ("module:function") the pattern's module or below it, and its function if it names one?"""
    module, _, function = pattern.partition(":")
    there, _, running = frame.partition(":")
    return (there == module or there.startswith(module + ".")) and (not function or _matches(running, function))


def _closeness_of_frame(entry: Entry, frame: str) -> tuple[int, ...]:
    """How closely the entry describes frame, for comparison; () if it doesn't."""
    conditions = len(entry.if_frame) + len(entry.if_call)
    return max(((conditions, ":" in pattern, len(pattern)) for pattern in entry.frame if _runs(pattern, frame)), default=())


def _closeness_of_call(entry: Entry, call: str | None) -> tuple[int, ...]:
    """The same for the call's text: the more of it the pattern spells out, the closer."""
    if call is None:
        return ()
    return max(((len(pattern.replace("*", "")),) for pattern in entry.call if _matches(call, pattern)), default=())


def _best(known: Iterable[tuple[tuple[int, ...], Entry]], frames: Sequence[str], call: str | None, kind: str) -> Entry | None:
    allowed = [(closeness, entry) for closeness, entry in known if closeness and entry.allows(frames, call, kind)]
    return max(allowed, key=lambda each: each[0])[1] if allowed else None


def _package(name: str) -> str:
    """The outermost package of "package.module:function"."""
    return re.split("[.:]", name, maxsplit=1)[0]


def _fill(sentence: str, call: str | None, free_threaded: bool) -> str:
    """Put in the call's name, and where to compute: a thread does on a free-threaded build, else it takes a process."""
    sentence = sentence.replace("CALL", call if call is not None and _NAME.fullmatch(call) else "function")
    if "COMPUTE(" not in sentence:
        return sentence
    if free_threaded:
        return sentence.replace("COMPUTE(", "await plait.to_thread(")
    sentence = sentence.replace("COMPUTE(", "await loop.run_in_executor(processes, ")
    return sentence + ", with one `processes = concurrent.futures.ProcessPoolExecutor()` for the program"
