"""Clock: the system's time and sleep, out of reach of those who replace them in the module `time`.

freezegun and others freeze the date by putting functions of their own into `time` and into each module that has one of its
functions as a global; blockbuster does so with `time.sleep`, to find blocking calls. With theirs plait's timers, and its
monitor, would stand still. Neither looks into classes.
"""

from __future__ import annotations

import time


class Clock:
    """Seconds, floats."""

    monotonic = time.monotonic  # (built-in functions: an attribute of the class is the function itself)
    sleep = time.sleep
