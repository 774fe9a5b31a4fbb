"""Looking at another thread's stack."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest
from unit_helpers import Program

from plait.diagnose.capture import COLLECTS_BETWEEN_STEPS, frame_of

RETURNS = """
import gc, sys, threading
from plait.diagnose.capture import FREE_THREADED, calls_from, calls_of

go = threading.Event()

class LetsGo:
    def __init__(self):
        self.me = self

    def __del__(self):
        if sys._getframe(1).f_code is calls_from.__code__:
            go.set()
            thread.join()
        elif not go.is_set():
            LetsGo()

def deep(calls):
    if calls:
        deep(calls - 1)
    else:
        go.wait()

thread = threading.Thread(target=deep, args=(20,))
thread.start()
thresholds = gc.get_threshold()
gc.set_threshold(1)
LetsGo()
calls = [] if FREE_THREADED else calls_of(thread.ident)
gc.set_threshold(*thresholds)
assert FREE_THREADED or len(calls) > 20
assert gc.isenabled()
go.set()
thread.join()
"""


def test_the_collector_lets_no_frame_go_that_is_looked_at(tmp_path: Path) -> None:
    """(Up to 3.11 a finaliser could run in the middle, in which the thread returned: the interpreter crashed.)"""
    code, _, err = Program(tmp_path, RETURNS).end()
    assert code == 0, err


LOOKS = """
import faulthandler, gc, sys, threading, time
from plait.diagnose.capture import FREE_THREADED, calls_of

def lets_go(phase, info):
    for _ in range(2000):
        pass

gc.callbacks.append(lets_go)
sys.setswitchinterval(0.0001)
gc.set_threshold(11)
until = time.monotonic() + 1.5
main = threading.get_ident()

def starts():
    while time.monotonic() < until:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

def looks():
    kept, looks = [], 0
    while time.monotonic() < until:
        looks += 1
        for _ in range(looks % 12):
            kept.append([])
        calls_of(main)
        del kept[2000:]

threads = [threading.Thread(target=each, daemon=True) for each in (starts, starts, *([] if FREE_THREADED else [looks]))]
faulthandler.dump_traceback_later(15, exit=True)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_a_look_waits_for_no_thread_that_begins(tmp_path: Path) -> None:
    """(Up to 3.11 the collector could run while the interpreter locked its list of threads, and let go of the GIL.)"""
    code, _, err = Program(tmp_path, LOOKS).end()
    assert code == 0, err


def test_who_has_the_collector_off_finds_it_off() -> None:
    gc.disable()
    try:
        with frame_of(0) as frame:
            assert frame is None
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.skipif(COLLECTS_BETWEEN_STEPS, reason="the collector stays on")
def test_a_child_forked_meanwhile_has_it_on() -> None:
    with frame_of(threading.get_ident()) as frame:
        assert frame is not None and not gc.isenabled()
        pid = os.fork()
        if pid == 0:
            os._exit(0 if gc.isenabled() else 1)
        _, status = os.waitpid(pid, 0)
    assert status == 0
    with frame_of(0) as other, frame_of(threading.get_ident()) as second:  # one at a time
        assert other is second is None
    assert gc.isenabled()
