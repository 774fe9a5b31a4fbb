"""Run the figures on several interpreters and peers and print them as a Markdown table.

    PYTHONPATH=src python -m bench [--quick] [--python PATH ...] [--install-peers] [--only FIGURE ...]

Interpreters: `--python`, repeatable, else $PLAIT_BENCH_PYTHONS (separated as PATH is), else the one running this.
uvloop is measured on those that can import it, and websockets, which one program needs; `--install-peers` makes a venv of
each that cannot, in $XDG_CACHE_HOME/plait, and asks pip for both there (where there is no wheel pip compiles uvloop: a
minute and a C compiler). Go where `go` is on PATH. What is not there is called so in the table.

Every run is a process of its own. Runs are interleaved: round 1 runs each case on each interpreter once, round 2 the
same in reverse order, and so on, so that a change of the machine's mood meets all. results.json keeps every sample.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import plan, report

INSTALLED = ("uvloop", "websockets")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PROBE = """
import json, sys, sysconfig
def has(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True
free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
print(json.dumps({"version": ".".join(map(str, sys.version_info[:3])), "free": free,
                  "kind": "free-threaded" if free else "gil" if sys.version_info >= (3, 12) else "old",
                  "peers": [name for name in ("asyncio", "uvloop", "websockets", "plait") if has(name)]}))
"""


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The children's: the package's source first, PLAIT_* of this shell kept out of the figures."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PLAIT_")}
    return {**kept, "PYTHONPATH": str(ROOT / "src"), **(extra or {})}


def probe(path: str) -> dict[str, Any]:
    done = subprocess.run([path, "-c", PROBE], env=environment(), capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def with_peers(path: str, label: str) -> str:
    """A venv of that interpreter which has the peers; the interpreter itself where they cannot be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plait" / f"bench-{label}"
    python = cache / "bin" / "python"
    note(f"bench: {' and '.join(INSTALLED)} for {label}: a venv in {cache}")
    try:
        if not python.exists():
            subprocess.run([path, "-m", "venv", str(cache)], check=True, timeout=300, stdout=sys.stderr)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *INSTALLED]
        subprocess.run(pip, check=True, timeout=900, stdout=sys.stderr)
    except (OSError, subprocess.SubprocessError) as exc:
        note(f"bench: no peers for {label}: {exc}")
        return path
    return str(python)


def interpreters(paths: list[str], install: bool) -> list[plan.Interpreter]:
    result = []
    for path in paths:
        found = probe(path)
        label = found["version"] + "t" * found["free"]
        python = path
        if install and not {*INSTALLED} <= {*found["peers"]}:
            python = with_peers(path, label)
            found = probe(python)
        result.append(plan.Interpreter(label, python, found["kind"], (*found["peers"], "bare")))
    return result


def build_go(folder: str) -> str | None:
    go = shutil.which("go")
    if go is None:
        return None
    target = str(Path(folder) / "bench-go")
    command = [go, "build", "-o", target, "main.go"]
    done = subprocess.run(command, cwd=HERE / "go", timeout=300, stdout=sys.stderr, check=False)
    return target if done.returncode == 0 else None


def run_one(command: list[str], env: dict[str, str], timeout: float) -> dict[str, Any]:
    """One child in a process group of its own, which goes as a whole when the time is up. An error is a result too."""
    child = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"no end in {timeout:.0f} s"}
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    if child.returncode:
        last = [line for line in err.splitlines() if re.match(r"[\w.]+(Error|Exception|Group|Interrupt)\b", line)]
        return {"error": f"failed ({child.returncode}): {(last or err.splitlines() or ['no message'])[-1]}"}
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def schedule(figure: plan.Figure, pythons: list[plan.Interpreter], go: str | None) -> list[report.Sample]:
    jobs = []
    absent = []
    usable = [python for python in pythons if python.kind in figure.kinds]
    for case in figure.cases:
        where = {"figure": figure.name, "case": case.name}
        if case.peer == "go":
            if go is None:
                absent.append({**where, "python": "go", "round": 0, "error": "not installed"})
            elif usable:
                jobs.append(({**where, "python": "go"}, [go, *case.args], environment()))
            continue
        for python in usable:
            if case.peer not in python.peers or (case.needs and case.needs not in python.peers):
                absent.append({**where, "python": python.label, "round": 0, "error": "not installed"})
                continue
            command = [python.path, "-m", f"bench.{case.args[0]}", *case.args[1:]]
            jobs.append(({**where, "python": python.label}, command, environment(case.env)))
    samples = absent
    for number in range(figure.rounds):
        note(f"bench: {figure.name}, round {number + 1} of {figure.rounds}, {len(jobs)} runs")
        for where, command, env in jobs if number % 2 == 0 else jobs[::-1]:
            sample = {**where, "round": number, **run_one(command, env, figure.timeout)}
            if "error" in sample:
                note(f"bench: {where['case']} on {where['python']}: {sample['error']}")
            samples.append(sample)
    return sorted(samples, key=lambda sample: sample["round"])


def machine() -> dict[str, Any]:
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def main() -> None:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one short round of everything: shows that it works")
    parser.add_argument("--python", action="append", metavar="PATH", help="an interpreter to measure; repeatable")
    parser.add_argument("--install-peers", action="store_true", help="both into a cached venv of each interpreter")
    parser.add_argument("--only", action="append", metavar="FIGURE", help="only this figure; repeatable")
    parser.add_argument("--rounds", type=int, help="instead of the plan's number of rounds")
    parser.add_argument("--json", type=Path, default=HERE / "results.json", metavar="FILE")
    args = parser.parse_args()
    listed = [path for path in os.environ.get("PLAIT_BENCH_PYTHONS", "").split(os.pathsep) if path]
    pythons = interpreters(args.python or listed or [sys.executable], args.install_peers)
    about = machine()
    samples: list[report.Sample] = []
    with tempfile.TemporaryDirectory() as folder:
        go = build_go(folder)
        for figure in plan.figures(args.quick):
            if not args.only or figure.name in args.only:
                changed = plan.Figure(**{**vars(figure), "rounds": args.rounds or figure.rounds})
                samples += schedule(changed, pythons, go)
    rows = report.Report(samples, pythons).build()
    result = {"machine": about, "quick": args.quick, "rows": [asdict(row) for row in rows], "samples": samples}
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.quick:
        print("A quick run: it shows that the figures work, not what they are.\n")
    print("{cpu}, {cores} cores, Linux {kernel}, {date}, load {load:.1f}\n".format(**about))
    print(report.markdown(rows, pythons))
    if failed := report.failures(samples):
        print(f"\nfailed:\n\n{failed}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
