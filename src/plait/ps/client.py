"""Ask a process what its tasks do."""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

from plait.ps.server import address_of, peer_of

WORKING = 60.0  # seconds for a process that took notice: it may have a million tasks
_SILENT = """process {pid} does not answer. It may
  - run no plait at all, or have PLAIT_WATCH_MAIN=0 in its environment and nothing spawned yet
  - have PLAIT_PS=0 in its environment
  - live in a container: ask from inside, by the number that it has there"""
_FROZEN = """process {pid} took no notice for {seconds:g} s. It may
  - be stopped (by SIGSTOP, Ctrl-Z, a debugger): continue it
  - be in a C call that keeps the GIL: ask again later, or with a longer --timeout"""


class NoAnswer(Exception):
    """There is no answer; the text says why, and what to do."""


def ask(pid: int, seconds: float) -> dict[str, Any]:
    """What process pid says of its runtimes (snapshot.py); it has so many seconds to take notice of us."""
    if sys.platform != "linux":
        raise NoAnswer(
            "plait ps needs Linux's abstract sockets: here the program itself can log plait.stats(), and plait.stalls tells"
        )
    try:
        answer = json.loads(_read(pid, seconds))
    except (TimeoutError, BlockingIOError):  # (it has a queue of callers already)
        raise NoAnswer(_FROZEN.format(pid=pid, seconds=seconds)) from None
    except ValueError:
        raise NoAnswer(f"process {pid} ended its runtime before it had answered, or failed to: its log tells") from None
    except OSError:
        raise NoAnswer(_SILENT.format(pid=pid) if _exists(pid) else f"there is no process {pid}") from None
    if "refused" in answer:
        raise NoAnswer(f"process {pid} does not tell: {answer['refused']}. Ask as that user, or as root")
    return answer  # type: ignore[no-any-return]


def _read(pid: int, seconds: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(seconds)
        asking.connect(address_of(pid))
        other, _ = peer_of(asking)
        if other != pid:  # anybody may take a name
            raise NoAnswer(f"what answers in the name of process {pid} is another process, {other or 'in another container'}")
        chunks = [asking.recv(1)]
        asking.settimeout(max(seconds, WORKING))
        while chunk := asking.recv(1 << 16):
            chunks.append(chunk)
        return b"".join(chunks)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
