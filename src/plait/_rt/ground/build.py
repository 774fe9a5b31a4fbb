"""Build: what this build of the interpreter is."""

from __future__ import annotations

from plait._rt.ground.cpython import _is_gil_enabled

GIL_BUILD = _is_gil_enabled  # a call: an extension module may bring the GIL back
