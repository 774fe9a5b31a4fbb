"""The demo: one server, a thousand clients, twenty of which make it block for a second; on asyncio, then on plait.

    PYTHONPATH=src python demo [--clients N] [--blockers N] [--rounds N] [--limit SECONDS]

The server is `app.py`. It and the clients are processes of their own and talk over the loopback. What is measured is
how long the innocent clients wait. Ctrl-C stops it; no child outlives it.
"""

import argparse
import contextlib
import json
import platform
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent


def say(text: str = "") -> None:
    print(text, flush=True)


@contextlib.contextmanager
def started(name: str, *args: object, log: IO[bytes] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a session of its own (our Ctrl-C is not its); on leaving it is asked to stop, then made to."""
    command = [sys.executable, str(HERE / name), *map(str, args)]
    process = subprocess.Popen(
        command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
    )
    patience = 1.0
    try:
        yield process
        patience = 5.0
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                say(f"  {name} {args[0]} did not stop within {patience:.0f} s and is killed")
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[bytes], timeout: float) -> Iterator[str]:
    """The child's lines as they come; an error when it is silent for that long."""
    pipe = process.stdout
    if pipe is None:
        return
    while select.select([pipe], [], [], timeout)[0]:
        line = pipe.readline()
        if not line:
            return
        yield line.decode()
    raise TimeoutError(f"no word from a child process for {timeout:.0f} s")


def serve(runtime: str, args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Run the server on asyncio or plait under the clients: their result, and what the server logged."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryFile() as log:
        with started("serve.py", runtime, log=log) as server:
            port = next(lines(server, 30), "").strip()
            if not port:
                server.wait(5)
                log.seek(0)
                raise RuntimeError(f"the {runtime} server did not start:\n{log.read().decode()}")
            numbers = (args.clients, args.blockers, args.rounds, args.limit)
            with started("clients.py", port, *numbers) as clients:
                for line in lines(clients, args.limit + 30):
                    result = json.loads(line)
                    say(
                        f"  {runtime} {result['seconds']:4.0f} s  {result['answered']:6,} answered, "
                        f"{result['blocks']:3} blocks over, oldest waits {result['oldest']:6.2f} s"
                    )
        log.seek(0)
        return result, log.read().decode()


def table(results: dict[str, dict[str, Any]]) -> str:
    rows: list[tuple[str, ...]] = [("", "answers/s", "p50", "p99", "max", "unanswered", "errors")]
    for runtime, found in results.items():
        times = [f"{found[key] * 1000:,.1f} ms" for key in ("p50", "p99", "max")]
        rows.append((runtime, f"{found['throughput']:,.0f}", *times, str(found["unanswered"]), str(found["errors"])))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def stalls(log: str) -> list[str]:
    """The stall reports in a log, each with the lines that belong to it."""
    found: list[str] = []
    ours = False
    for line in log.splitlines():
        if line.startswith("plait.stalls: "):
            found.append(line)
            ours = True
        elif ours and line.startswith((" ", "\t")):
            found[-1] += "\n" + line
        else:
            ours = False
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--blockers", type=int, default=20, help="how many of them send `block`, once")
    parser.add_argument("--rounds", type=int, default=8, help="requests of each innocent client, about one a second")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which a run ends")
    parser.add_argument("--only", choices=("asyncio", "plait"))
    args = parser.parse_args()
    sys.path.insert(0, str(HERE))
    room = __import__("child").raise_descriptor_limit()
    if room < args.clients:
        say(f"the limit of file descriptors leaves room for {room} clients instead of {args.clients}")
        args.clients = room
    innocent = args.clients - args.blockers
    say(f"Python {platform.python_version()}: {innocent} clients ask about once a second, {args.rounds} times each;")
    say(f"{args.blockers} more send `block` once within the first three seconds, and the handler calls time.sleep(1).")
    results, log = {}, ""
    for runtime in [args.only] if args.only else ["asyncio", "plait"]:
        say(f"\non {runtime}:")
        results[runtime], log = serve(runtime, args)
    say(f"\nthe {innocent} innocent clients:\n\n{table(results)}")
    reports = stalls(log)
    if "plait" in results:
        say(f"\nplait logged {len(reports)} stalls" + (", the first of them:\n\n" + reports[0] if reports else ""))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except KeyboardInterrupt:
        say("\nstopped")
        sys.exit(130)
