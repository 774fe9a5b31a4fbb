"""Context switches of an idle program: one spawned strand and the main strand asleep, watched from outside.

The child's threads are counted by the kernel (`/proc/PID/task/*/status`), twice, ten seconds apart; nothing of the
measurement runs inside the child. asyncio is the reference: its idle loop makes none.
"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from bench import common


async def sleeper(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def idle(peer: str, seconds: float) -> None:
    await common.spawner(peer)(asyncio.sleep(0))  # starts pool, monitor and poller
    task = common.spawner(peer)(sleeper(seconds))
    print("ready", flush=True)
    await task


def switches(pid: int) -> tuple[int, int]:
    """Switches of all threads, wanted or not, and the number of threads."""
    total = threads = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        threads += 1
        for line in status.read_text().splitlines():
            if "ctxt_switches" in line:
                total += int(line.split()[1])
    return total, threads


def watch(peer: str, seconds: float) -> dict[str, int]:
    command = [sys.executable, "-m", "bench.idle", "--peer", peer, "--child", "--seconds", str(seconds + 10)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            if child.stdout is None or child.stdout.readline().strip() != "ready":
                raise RuntimeError("the idle program did not start")
            time.sleep(3)  # spare threads settle
            before, _ = switches(child.pid)
            time.sleep(seconds)
            after, threads = switches(child.pid)
        finally:
            child.kill()
    return {"switches": after - before, "threads": threads}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--child", action="store_true", help="be the idle program")
    args = parser.parse_args()
    if args.child:
        common.run(args.peer, idle, args.peer, args.seconds)
    else:
        common.emit(watch(args.peer, args.seconds))


if __name__ == "__main__":
    main()
