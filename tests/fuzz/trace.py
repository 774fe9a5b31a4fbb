"""What a run left behind, and where two of them part."""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import Any


class Trace:
    """`lines` in their order; `reports`, what the loop's exception handler was told, in none: some come from finalisers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.reports: list[str] = []

    def log(self, line: str) -> None:
        """Say what happened."""
        self.lines.append(line)

    def report(self, _loop: Any, context: dict[str, Any]) -> None:
        """The loop's exception handler."""
        from fuzz.play import show

        message = re.sub(r"[ (]*(<| at 0x|at /|spawned at).*", "", context["message"], flags=re.DOTALL)
        told = f"{message}: {show(context.get('exception'))}, {sorted(context)}"
        self.reports.append(told)
        if "handle" in context:
            self.log(f"reported {told}")


def difference(ours: Trace, theirs: Trace) -> list[str] | None:
    """Where they part (-: ours, +: theirs), with some of what came before; None if they don't."""
    for number, (mine, other) in enumerate(zip_longest(ours.lines, theirs.lines)):
        if mine != other:
            return [*(f"  {line}" for line in ours.lines[max(0, number - 6) : number]), f"- {mine}", f"+ {other}"]
    if sorted(ours.reports) != sorted(theirs.reports):
        more, fewer = list(ours.reports), list(theirs.reports)
        for each in ours.reports:
            if each in fewer:
                fewer.remove(each)
                more.remove(each)
        return [*(f"- reported: {each}" for each in sorted(more)), *(f"+ reported: {each}" for each in sorted(fewer))]
    return None
