"""Blocking pool: the threads for calls that block, shared by all strands of a runtime.

One elastic pool: a call takes an idle thread or starts one, up to `most`; threads that stay idle end. It has the part of
`concurrent.futures.Executor` that asyncio asks of a default executor. `lookups` is a lane of its own, so that name
lookups are not stuck behind a hundred slow calls.

Threads are daemons, and not joined at exit unless `shutdown(wait=True)` asks for it: a stuck call must not keep the program
from ending.

Ownership: `_jobs` (deque), `_resting` and `_free` (lists), `_threads` (set), `running` (dict): any thread, by their atomic
operations. No lock: a finaliser that runs in the middle of `submit`, on the same thread, may submit a call itself, or end a
runtime and wait for its threads.
    L1  A call is never forgotten: `submit` appends it first and looks for a resting thread to wake after; a thread announces
        that it rests first and looks for calls after. Who takes a bell out of `_resting` rings it, once (parking.py, I1, I2).
    L2  `_free` has a number for each thread that there may be yet: who takes one out starts that thread, so the cap holds. A
        thread that ends puts its number back first and looks for calls after: one that nobody was started for is its own if
        it gets a number again, else somebody else's who did.
    L3  If the system gives no thread the number is put back, and the call is left to the other threads. If there are none, or
        are about to be none, because nobody has a number, whoever sees that refuses all calls that wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from plait._rt.ground.clock import Clock
from plait._rt.ground.threads import Thread, no_thread

IDLE_SECONDS = 10.0


_Job = tuple[float, Future[Any], Callable[..., Any], Any, Any]  # since when it waits, its future, the call


class Lane(Executor):
    """An elastic set of threads."""

    def __init__(self, name: str, most: int, threads: str = "") -> None:
        self.name, self._most, self._thread_name = name, most, threads or f"{name}_"
        self.running: dict[threading.Thread, Callable[..., Any]] = {}  # what each busy thread runs, for the stall report
        self._jobs: deque[_Job] = deque()
        self._resting: list[threading.Lock] = []
        self._free = list(range(most - 1, -1, -1))
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run fn on a thread; the future can be cancelled until it starts."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        self._jobs.append((Clock.monotonic(), future, fn, args, kwargs))
        if not self._wake_one():
            try:
                number = self._free.pop()
            except IndexError:  # they come to it when they are done
                return future
            self._start(number, future)
        return future

    def _wake_one(self) -> bool:
        try:
            bell = self._resting.pop()
        except IndexError:
            return False
        bell.release()
        return True

    def _start(self, number: int, future: Future[Any]) -> None:
        """A thread for future's call, or for those that others left to us (L3)."""
        thread = Thread(f"{self._thread_name}{number}", self._work, number)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:
            self._threads.discard(thread)
            self._free.append(number)
            text = no_thread("a blocking call", error)
            if self._refuse(future, text):
                raise RuntimeError(text) from error

    def _refuse(self, future: Future[Any], text: str) -> bool:
        """Refuse the calls that wait, if nobody comes to them; True if future's is among them."""
        mine = False
        while len(self._free) >= self._most:
            try:
                refused = self._jobs.popleft()[1]
            except IndexError:
                break
            if refused is future:
                mine = True
            elif refused.set_running_or_notify_cancel():
                refused.set_exception(RuntimeError(text))
        return mine

    def _work(self, number: int) -> None:
        bell = threading.Lock()
        bell.acquire()
        while True:
            while (job := self._next_job(bell)) is not None:
                _, future, fn, args, kwargs = job
                if future.set_running_or_notify_cancel():
                    self.running[threading.current_thread()] = fn
                    try:
                        result = fn(*args, **kwargs)
                    except BaseException as raised:
                        future.set_exception(raised)
                    else:
                        future.set_result(result)
                        del result
                    del self.running[threading.current_thread()]
                del future, fn, args, kwargs, job  # not kept while idle
            self._free.append(number)
            if not self._jobs:  # (L2)
                break
            try:
                number = self._free.pop()
            except IndexError:
                break
        self._threads.discard(threading.current_thread())

    def _next_job(self, bell: threading.Lock) -> _Job | None:
        """The oldest call, as soon as there is one; None if there was none for long, or there will be none."""
        while True:
            try:
                return self._jobs.popleft()
            except IndexError:
                pass
            self._resting.append(bell)
            woken = False
            if not (self._jobs or self._closed):  # looked again after the announcement (L1)
                woken = bell.acquire(timeout=IDLE_SECONDS)
            if not woken and self._leave(bell) and not self._jobs:
                return None

    def _leave(self, bell: threading.Lock) -> bool:
        """Rest no longer; False if somebody was quicker, and rings."""
        try:
            self._resting.remove(bell)
        except ValueError:
            bell.acquire()
            return False
        return True

    def threads(self) -> list[threading.Thread]:
        """Those that there are."""
        return list(self._threads)

    def idle(self) -> int:
        """How many threads wait for a call; a hint."""
        return len(self._resting)

    def waiting(self) -> int:
        """How many calls wait because all the threads that there may be are busy; a hint."""
        return 0 if self._free else len(self._jobs)

    def longest_wait(self, now: float) -> float:
        """How long the first of those has waited."""
        try:
            return now - self._jobs[0][0] if self.waiting() else 0.0
        except IndexError:
            return 0.0

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; end the threads when the queued ones are done."""
        self._closed = True
        threads = list(self._threads)
        while cancel_futures:
            try:
                self._jobs.popleft()[1].cancel()
            except IndexError:
                break
        while self._wake_one():
            pass
        for thread in threads if wait else ():
            if thread.ident is not None:  # else it is being started
                thread.join()


class BlockingPool(Lane):
    """The default executor of every strand."""

    def __init__(self, most: int = 256) -> None:
        super().__init__("plait-blocking", most, "asyncio_")  # as asyncio names its own
        self.lookups = Lane("plait-lookup", 32)

    def threads(self) -> list[threading.Thread]:
        """Both lanes'."""
        return [*super().threads(), *self.lookups.threads()]

    def idle(self) -> int:
        """Both lanes."""
        return super().idle() + self.lookups.idle()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Both lanes."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self.lookups.shutdown(wait, cancel_futures=cancel_futures)
