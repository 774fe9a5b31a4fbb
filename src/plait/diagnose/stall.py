"""Stall: what `on_stall` is called with, and what the logger `plait.stalls` says of it."""

from __future__ import annotations

import dataclasses
import json
import linecache
from dataclasses import dataclass

from plait.diagnose.capture import Frame

_SAID = {
    "blocked": "has blocked its thread",
    "cpu": "has computed without a pause",
    "lock": "has waited for a lock",
    "gil": "kept the GIL, and all other threads waiting,",
    "gc": "was held up by the garbage collector",
    "starved": "has waited for the GIL, which other threads have,",
    "host": "has waited for a core of the machine, which is overloaded,",
    "executor": "keeps all threads of the executor busy; calls have waited",
}


@dataclass(frozen=True, slots=True)
class Stall:
    """A step that lasts too long: what `on_stall` is called with. `str(stall)` is what the logger says, `as_json()` a line.

    Frozen, so any thread may keep and read it. It has strings, numbers and frames, nothing of the program's.
    """

    file: str
    """The innermost place outside the standard library, plait and installed packages (if there is one)."""
    line: int
    function: str
    call: str | None
    """The call that doesn't return, as the source names it (`time.sleep`, `with lock`); None if that can't be told."""
    kind: str
    """The verdict: "blocked", "cpu", "lock", "gil", "gc", "starved", "host" or "executor" (docs/reports.md)."""
    detail: str
    """The system call, or who holds the lock, where known; else ""."""
    seconds: float
    """How long the step has lasted so far, or lasted in all; with "again" the longest of those not reported."""
    state: str
    """"began": it lasts, first report (after 0.1 s). "goes on": it lasts (after 0.5 s). "ended". "unfinished": it lasts, and
    the run ends. "again": a summary of what was not reported."""
    times: int
    """How often this place has stalled, this time included; with "again" how often it was not reported."""
    task: str
    """The task's name, or what else runs."""
    spawned_at: str | None
    """Where the task was spawned, "file:line in function"; None for a callback, and a task that was not spawned."""
    strand: str
    """The strand's repr; "" for the executor."""
    handed_off_after: float | None
    """Seconds until the processor went to another worker; 0.0 if it was given away before the step, because this place stalled
    before; None if it was not handed off, or not yet."""
    waiting: int
    """What waits behind it: strands that wait for a worker; in a strand with its own thread, items of that strand; for the
    executor, calls."""
    advice: str | None
    """What to write instead; None where nothing is known."""
    stack: tuple[Frame, ...]
    """The whole stack, innermost first: frames with `file`, `line`, `function`, and `position` where it is known; () for the
    executor."""

    def __str__(self) -> str:
        named = f" {self.call}" if self.call else ""
        head = f"{self.file}:{self.line}{named}"
        if self.state == "ended":
            return f"{head} is done after {_ms(self.seconds)}, in {self.function}() ({self.kind})"
        if self.state == "unfinished":
            lasts = f"is not done after {_ms(self.seconds)}, and the run ends"
            return f"{head} {lasts}, in {self.function}() ({self.kind})"
        if self.state == "again":
            return f"{head} stalled {self.times} times more, {_ms(self.seconds)} at worst, in {self.function}() ({self.kind})"
        detail = f" ({self.detail})" if self.detail else ""
        lines = [f"{head} {_SAID[self.kind]} for {_ms(self.seconds)}, in {self.function}(){detail}"]
        lines.append(f"  task {self.task}" + (f", spawned at {self.spawned_at}" if self.spawned_at else ""))
        lines.append(f"  {self._others()}" + (f"; stall number {self.times} of this place" if self.times > 1 else ""))
        if self.advice:
            lines.append(f"  instead: {self.advice}")
        source = linecache.getline(self.file, self.line).strip()
        if source:
            lines.append(f"  > {source}")
        return "\n".join(lines)

    def _others(self) -> str:
        if self.handed_off_after == 0.0:
            return "others go on: its processor was given away before, for it stalled here before"
        if self.handed_off_after is not None:
            return f"others go on: its processor was handed off after {self.handed_off_after * 1e3:.1f} ms"
        if self.strand.startswith(("<ThreadStrand", "<EventLoop")):
            return f"everything else in this strand waits: it keeps its thread ({self.waiting} waiting now)"
        return f"not handed off: {self.waiting} strand(s) wait"

    def as_json(self) -> str:
        """One line of JSON with these fields; the stack as "file:line function"."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["stack"] = [f"{frame.file}:{frame.line} {frame.function}" for frame in self.stack]
        return json.dumps(fields)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f} ms"
