"""Some seconds of the long run (long_run.py), in a process of its own: it counts that process's threads and memory.

`make stress` runs all of it, without pytest, whose own time limits end long before.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("long_run.py")


def test_nothing_is_lost_for_some_seconds() -> None:
    command = [sys.executable, str(PROGRAM), "--seconds", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
