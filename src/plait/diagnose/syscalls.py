"""Names of the system calls that block, by their numbers on the machine that runs this."""

from __future__ import annotations

from plait._rt.ground.thread_probe import MACHINE

_X86_64 = {
    0: "read", 1: "write", 2: "open", 7: "poll", 17: "pread64", 18: "pwrite64", 19: "readv", 20: "writev", 23: "select",
    35: "nanosleep", 42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 61: "wait4",
    72: "fcntl", 73: "flock", 74: "fsync", 75: "fdatasync", 78: "getdents", 82: "rename", 87: "unlink", 128: "rt_sigtimedwait",
    162: "sync", 202: "futex", 217: "getdents64", 230: "clock_nanosleep", 232: "epoll_wait", 247: "waitid", 257: "openat",
    262: "newfstatat", 263: "unlinkat", 270: "pselect6", 271: "ppoll", 281: "epoll_pwait", 288: "accept4", 40: "sendfile",
    299: "recvmmsg", 307: "sendmmsg", 326: "copy_file_range", 16: "ioctl", 34: "pause",
}  # fmt: skip

_GENERIC = {  # arm64, riscv64 and what came after
    22: "epoll_pwait", 25: "fcntl", 29: "ioctl", 32: "flock", 35: "unlinkat", 56: "openat", 61: "getdents64", 63: "read",
    64: "write", 65: "readv", 66: "writev", 67: "pread64", 68: "pwrite64", 71: "sendfile", 72: "pselect6", 73: "ppoll",
    79: "newfstatat", 81: "sync", 82: "fsync", 83: "fdatasync", 95: "waitid", 98: "futex", 101: "nanosleep",
    115: "clock_nanosleep", 137: "rt_sigtimedwait", 202: "accept", 203: "connect", 206: "sendto", 207: "recvfrom",
    211: "sendmsg", 212: "recvmsg", 242: "accept4", 243: "recvmmsg", 260: "wait4", 269: "sendmmsg", 285: "copy_file_range",
}  # fmt: skip

_READS = "read readline readlines readinto read1 recv recv_bytes input getpass load next list get_password"
_RECEIVES = "recv recv_into recvfrom recvfrom_into recvmsg recvmsg_into read readline do_handshake"
_SENDS = "send sendall sendto sendmsg sendmsg_afalg write"
_WAITS = "wait waitpid wait3 wait4 waitid system communicate poll"
_POLLS = f"select poll wait epoll {_RECEIVES} {_SENDS} accept connect"  # sockets with a time-out poll first
CALLERS = {
    name: frozenset(callers.split())
    for names, callers in {
        "nanosleep clock_nanosleep": "sleep",
        "read pread64 readv": _READS,
        "write pwrite64 writev": "write writelines print flush dump send close",
        "recvfrom recvmsg recvmmsg": _RECEIVES,
        "sendto sendmsg sendmmsg": _SENDS,
        "connect": "connect connect_ex create_connection",
        "accept accept4": "accept",
        "wait4 waitid": _WAITS,
        "poll ppoll select pselect6": _POLLS,
        "epoll_wait epoll_pwait": "poll select",
        "flock": "flock lockf",
        "fcntl": "lockf fcntl flock",
        "ioctl": "ioctl",
        "fsync fdatasync sync": "fsync fdatasync sync",
        "open openat": "open fdopen",
        "getdents getdents64": "listdir scandir",
        "rt_sigtimedwait": "sigwait sigwaitinfo sigtimedwait",
        "pause": "pause",
        "futex": "acquire wait wait_for join get put result shutdown as_completed recv map",
    }.items()
    for name in names.split()
}
"""The functions that make them, by the last part of their names: the usual ones."""

NAMES = _X86_64 if MACHINE == "x86_64" else _GENERIC


def name_of(number: int) -> str:
    """`read`; `system call 999` for one that is not in the table; -1 is none."""
    if number < 0:
        return "a page fault"
    return NAMES.get(number, f"system call {number}")
