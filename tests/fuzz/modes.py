"""Where programs are run on plait."""

from __future__ import annotations

import faulthandler
import gc
from collections.abc import Callable
from typing import NamedTuple

from fuzz.disturbed import Disturbed
from fuzz.program import Program
from fuzz.run import run_asyncio, run_main
from fuzz.trace import Trace, difference

AT_ONCE = 10
SECONDS = 60.0  # that so many programs may take


class Mode(NamedTuple):
    """`run` runs programs, up to AT_ONCE of them; `anywhere`: they are of kinds that do the same anywhere (program.Kind)."""

    run: Callable[[list[Program]], list[Trace]]
    anywhere: bool

    def differences(self, programs: list[Program]) -> list[list[str] | None]:
        """Where the traces of each part. What hangs ends the process, with all stacks."""
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        pairs = list(zip(run_asyncio(programs), self.run(programs), strict=True))
        gc.collect()  # what nobody asked for is reported now
        faulthandler.cancel_dump_traceback_later()
        return [difference(*pair) for pair in pairs]


MODES = {
    "main": Mode(run_main, False),
    "busy": Mode(Disturbed().run_in_main, False),
    "pooled": Mode(Disturbed().run_pooled, True),
    "pinned": Mode(Disturbed().run_pinned, True),
}
