"""Where programs are run on plait."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import NamedTuple

from fuzz.pooled import Disturbed
from fuzz.program import Program
from fuzz.run import run_asyncio, run_main
from fuzz.trace import Trace, difference

AT_ONCE = 10


class Mode(NamedTuple):
    """`run` runs programs, up to AT_ONCE of them; `anywhere`: they are of kinds that do the same anywhere (program.Kind)."""

    run: Callable[[list[Program]], list[Trace]]
    anywhere: bool

    def differences(self, programs: list[Program]) -> list[list[str] | None]:
        """Where the traces of each part."""
        pairs = list(zip(run_asyncio(programs), self.run(programs), strict=True))
        gc.collect()  # what nobody asked for is reported now
        return [difference(*pair) for pair in pairs]


MODES = {"main": Mode(run_main, False), "pooled": Mode(lambda programs: Disturbed().run(programs), True)}
