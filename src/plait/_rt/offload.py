"""Offload: the threads for calls that block, shared by all strands of a runtime.

One elastic pool: a call takes an idle thread or starts one, up to `most`; threads that stay idle end. It has the part of
`concurrent.futures.Executor` that asyncio asks of a default executor. `lookups` is a lane of its own, so that name
lookups are not stuck behind a hundred slow calls.

Ownership: `_lock` guards `_jobs` and the two counts; no user code runs under it. A thread's entry in `running` is its own.
Threads are daemons, and not joined at exit unless `shutdown(wait=True)` asks for it: a stuck call must not keep the program
from ending.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from plait._rt.clock import Clock

IDLE_SECONDS = 10.0
MORE_THREADS = "raise what limits this process's threads (ulimit -u, or pids.max of its cgroup)"


class Lane(Executor):
    """An elastic set of threads."""

    def __init__(self, name: str, most: int) -> None:
        self.name, self._most = name, most
        self.running: dict[threading.Thread, Callable[..., Any]] = {}  # what each busy thread runs, for the stall report
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._jobs: deque[tuple[float, Future[Any], Callable[..., Any], Any, Any]] = deque()
        self._idle = 0
        self._threads: set[threading.Thread] = set()
        self._made = 0
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run fn on a thread; the future can be cancelled until it starts."""
        future: Future[Any] = Future()
        started = None
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._jobs.append((Clock.monotonic(), future, fn, args, kwargs))
            if self._idle >= len(self._jobs):
                self._wake.notify()
            elif len(self._threads) < self._most:
                self._made += 1
                started = threading.Thread(target=self._work, name=f"{self.name}-{self._made}", daemon=True)
                self._threads.add(started)
        if started is not None:
            self._start(started, future)
        return future

    def _start(self, thread: threading.Thread, future: Future[Any]) -> None:
        """If the system gives no thread the others come to the call; if there are none all that wait are refused."""
        try:
            thread.start()
        except RuntimeError as error:
            with self._lock:
                self._threads.discard(thread)
                refused = [] if self._threads else [job[1] for job in self._jobs]
                if refused:
                    self._jobs.clear()
            problem = RuntimeError(f"the system gives no thread for a blocking call ({error}): {MORE_THREADS}")
            for each in refused:
                if each is not future and each.set_running_or_notify_cancel():
                    each.set_exception(problem)
            if future in refused:
                raise problem from error

    def _work(self) -> None:
        try:
            while (job := self._next_job()) is not None:
                _, future, fn, args, kwargs = job
                if future.set_running_or_notify_cancel():
                    self.running[threading.current_thread()] = fn
                    try:
                        result = fn(*args, **kwargs)
                    except BaseException as raised:
                        future.set_exception(raised)
                    else:
                        future.set_result(result)
                    del self.running[threading.current_thread()]
                del future, fn, args, kwargs, job  # not kept while idle
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _next_job(self) -> Any:
        with self._lock:
            while not self._jobs:
                if self._closed:
                    return None
                self._idle += 1
                try:
                    if not self._wake.wait(IDLE_SECONDS) and not self._jobs:
                        self._threads.discard(threading.current_thread())  # under the same lock: nobody counts on it any more
                        return None
                finally:
                    self._idle -= 1
            return self._jobs.popleft()

    def threads(self) -> list[threading.Thread]:
        """Those that there are."""
        with self._lock:
            return list(self._threads)

    def idle(self) -> int:
        """How many threads wait for a call; a hint."""
        return self._idle

    def waiting(self) -> int:
        """How many calls wait because all the threads that there may be are busy; a hint."""
        return len(self._jobs) if len(self._threads) >= self._most else 0

    def longest_wait(self, now: float) -> float:
        """How long the first of those has waited."""
        try:
            return now - self._jobs[0][0] if self.waiting() else 0.0
        except IndexError:
            return 0.0

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; end the threads when the queued ones are done."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
            dropped = list(self._jobs) if cancel_futures else []
            if cancel_futures:
                self._jobs.clear()
            self._wake.notify_all()
        for _, future, *_ in dropped:
            future.cancel()
        for thread in threads if wait else ():
            thread.join()


class Offload(Lane):
    """The default executor of every strand."""

    def __init__(self, most: int = 256) -> None:
        super().__init__("plait-offload", most)
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
