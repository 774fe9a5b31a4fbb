"""A program that differs, made small."""

from __future__ import annotations

from fuzz.modes import Mode
from fuzz.program import Program, smaller


def shrink(program: Program, mode: Mode, tries: int) -> Program:
    """A program that differs as well, and of which nothing can be left out; each is tried so often."""

    def differs(candidate: Program) -> bool:
        return any(mode.differences([candidate] * tries))

    if not differs(program):
        return program
    for plain in (program._replace(factory="none"), program._replace(debug=False), program._replace(counts_time=False)):
        if differs(plain):
            program = plain
    while True:
        for root in smaller(program.root):
            candidate = program._replace(root=root)
            if differs(candidate):
                program = candidate
                break
        else:
            return program
