"""Build: what this build of the interpreter is."""

from __future__ import annotations

import sys

GIL_BUILD = getattr(sys, "_is_gil_enabled", lambda: True)  # a call: an extension module may bring the GIL back
