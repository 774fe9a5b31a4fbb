"""What both child processes do first: take a life line to the demo, and lift the limit of file descriptors."""

import os
import resource
import threading

BACKLOG = 4096  # a listen queue for everybody: the default of 100 drops connections while the server hangs
SPARE = 64  # descriptors for all that is no client


def live_with_parent() -> None:
    """Exit when standard input closes: that is when the demo dies, however that happens."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, name="life line", daemon=True).start()


def raise_descriptor_limit(wanted: int = 8192) -> int:
    """Lift the soft limit (1,024 as a rule) towards `wanted`, as far as the hard one allows; returns sockets left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted - SPARE
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft - SPARE
