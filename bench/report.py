"""From samples to the table: medians, ratios round by round, and whether the issue's figure is met.

A ratio is the median of each round's own ratio: its two runs stood next to each other in time, so what else the machine
did meets both.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import programs
from bench.common import LOOPS
from bench.mainstrand import PROGRAMS
from bench.plan import Interpreter
from bench.scaling import SHAPES
from bench.switch import KNOWN, LADDER
from bench.timers import GONE, PENDING

Sample = dict[str, Any]
Limit = dict[str, float]


@dataclass
class Row:
    figure: str
    what: str
    cells: dict[str, str]
    target: str = ""
    values: dict[str, float] = field(default_factory=dict)
    met: dict[str, bool] = field(default_factory=dict)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval (Student's t, by its expansion around the normal quantile)."""
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return mean, -math.inf, math.inf
    z, df = statistics.NormalDist().inv_cdf(0.975), count - 1
    t = z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    half = t * statistics.stdev(values) / math.sqrt(count)
    return mean, mean - half, mean + half


class Report:
    def __init__(self, samples: list[Sample], interpreters: list[Interpreter]) -> None:
        self.samples = samples
        self.interpreters = interpreters
        self.rows: list[Row] = []

    def of(self, figure: str, case: str, label: str) -> list[Sample]:
        """The samples of one case on one interpreter (Go's are every interpreter's), in the order of their rounds."""
        labels = (label, "go")
        return [s for s in self.samples if (s["figure"], s["case"]) == (figure, case) and s["python"] in labels]

    def add(
        self,
        figure: str,
        what: str,
        cell: Callable[[Interpreter], tuple[float, str] | str],
        limit: Limit | None = None,
        at_most: bool = True,
    ) -> None:
        """A row; `cell` says value and text, or only a text where there is no value."""
        limit = limit or {}
        words = "at most" if at_most else "at least"
        bounds = [f"{bound:g} ({kind})" for kind, bound in limit.items()]
        if len(set(limit.values())) == 1:
            bounds = [f"{next(iter(limit.values())):g}"]
        row = Row(figure, what, {}, f"{words} {', '.join(bounds)}" if limit else "")
        for interpreter in self.interpreters:
            found = cell(interpreter)
            if isinstance(found, str):
                row.cells[interpreter.label] = found
                continue
            value, text = found
            row.values[interpreter.label] = value
            if interpreter.kind in limit:
                bound = limit[interpreter.kind]
                row.met[interpreter.label] = met = value <= bound if at_most else value >= bound
                text += " ✓" if met else " **missed**"
            row.cells[interpreter.label] = text
        self.rows.append(row)

    def missing(self, samples: list[Sample]) -> str:
        """Why there is no value, in a word; the messages stand under the table."""
        error: str = next((s["error"] for s in samples if "error" in s), "")
        return error if error == "not installed" else error and "failed"

    def median(self, figure: str, case: str, key: str, form: str, what: str = "", limit: Limit | None = None) -> None:
        def cell(interpreter: Interpreter) -> tuple[float, str] | str:
            samples = self.of(figure, case, interpreter.label)
            values = [s[key] for s in samples if key in s]
            if not values:
                return self.missing(samples)
            value = statistics.median(values)
            return value, form.format(value)

        self.add(figure, what or case, cell, limit)

    def ratio(
        self, figure: str, what: str, above: str, below: str, key: str, limit: Limit | None = None, at_most: bool = True
    ) -> None:
        def cell(interpreter: Interpreter) -> tuple[float, str] | str:
            over, under = (self.of(figure, case, interpreter.label) for case in (above, below))
            ratios = [a[key] / b[key] for a, b in zip(over, under, strict=False) if key in a and key in b]
            if not ratios:
                return ""
            value = statistics.median(ratios)
            return value, f"{value:.2f}x"

        self.add(figure, what, cell, limit, at_most)

    # One method a figure.

    def switch(self) -> None:
        for case in (*LADDER, *LOOPS, KNOWN, "go"):
            self.median("switch", case, "ns", "{:.0f}", f"ns a switch: {case}")
        for case in LADDER[1:]:
            self.ratio("switch", f"{case} / bare", case, "bare", "ns")
        self.ratio("switch", "plait / bare", "plait", "bare", "ns", {"gil": 1.8, "free-threaded": 2.2})
        self.ratio("switch", "uvloop / plait", "uvloop", "plait", "ns", {"gil": 1.9}, at_most=False)
        self.ratio("switch", "asyncio / plait", "asyncio", "plait", "ns", {"gil": 4.0}, at_most=False)

        limit = {"gil": 1.03, "free-threaded": 1.03}
        self.ratio("switch", "plait: a place that blocks known / none", KNOWN, "plait", "ns", limit)

        def correct(interpreter: Interpreter) -> tuple[float, str] | str:
            answers = [s["correct"] for s in self.of("switch", "plait", interpreter.label) if "correct" in s]
            return (float(all(answers)), "right" if all(answers) else "wrong") if answers else ""

        always = {"gil": 1.0, "free-threaded": 1.0, "old": 1.0}
        self.add("switch", "plait: loop, task and context in every step", correct, always, at_most=False)
        self.rows[-1].target = "right"

    def spawn(self) -> None:
        for key, name in (("group_us", "in a TaskGroup"), ("one_us", "one at a time")):
            for case in (*LOOPS, "go"):
                self.median("spawn", case, key, "{:.2f}", f"us, {name}: {case}")
        limit = {"gil": 2.5, "free-threaded": 2.5}
        self.ratio("spawn", "TaskGroup: asyncio / plait", "asyncio", "plait", "group_us", limit, at_most=False)
        self.ratio("spawn", "one at a time: asyncio / plait", "asyncio", "plait", "one_us")

    def memory(self) -> None:
        limit = {"gil": 680.0, "free-threaded": 680.0}
        for case in (*LOOPS, "go"):
            self.median("memory", case, "bytes", "{:.0f}", f"bytes a task: {case}", limit if case == "plait" else None)
        self.ratio("memory", "plait / asyncio", "plait", "asyncio", "bytes", {"gil": 0.8, "free-threaded": 0.8})

    def scaling(self) -> None:
        for shape in SHAPES:
            for mode in ("one", "two", "pair"):
                self.median("scaling", f"{shape} {mode}", "speed", "{:,.0f}", f"steps a second: {shape}, {mode}")
            self.ratio("scaling", f"{shape}: two workers / one", f"{shape} two", f"{shape} one", "speed")
            self.ratio("scaling", f"{shape}: two processes / one", f"{shape} pair", f"{shape} one", "speed")
            limit = {"free-threaded": 0.93}
            what = f"{shape}: two workers / two processes"
            self.ratio("scaling", what, f"{shape} two", f"{shape} pair", "speed", limit, at_most=False)

    def lateness(self) -> None:
        labels = ("quiet", "1", "2", "3")
        for case in ("plait", "go"):
            for number, label in enumerate(labels):

                def cell(interpreter: Interpreter, case: str = case, number: int = number) -> tuple[float, str] | str:
                    samples = self.of("lateness", case, interpreter.label)
                    rounds = [s["rounds"][number] for s in samples if "rounds" in s]
                    if not rounds:
                        return self.missing(samples)
                    p50, p99, p999 = (statistics.median(r[key] for r in rounds) for key in ("p50", "p99", "p999"))
                    worst = max(r["max"] for r in rounds)
                    return p99 if worst < 100 else math.inf, f"{p50:.1f} / {p99:.1f} / {p999:.1f} / {worst:.1f}"

                name = "before" if label == "quiet" else f"round {label}"
                what = f"ms late, p50 / p99 / p99.9 / worst, {name}: {case}"
                bound = {"gil": 10.0, "free-threaded": 10.0} if case == "plait" and number else None
                self.add("lateness", what, cell, bound)
                if bound:
                    self.rows[-1].target = "p99 at most 10, max under 100"

    def hogs(self) -> None:
        for hogs in (2, 4):
            for key, bound in (("cold", 15.0), ("learned", 8.0)):
                limit = {"gil": bound, "free-threaded": bound}
                what = f"ms late, p99, beside {hogs} that compute, {key}"
                self.median("hogs", "plait", f"{key}{hogs}", "{:.1f}", what, limit)

            def cell(interpreter: Interpreter, hogs: int = hogs) -> tuple[float, str] | str:
                found = [s[f"work{hogs}"] for s in self.of("hogs", "plait", interpreter.label) if f"work{hogs}" in s]
                return (statistics.median(found), f"{statistics.median(found):.2f}x") if found else ""

            what = f"work of {hogs} a second of their CPU time, over alone"
            self.add("hogs", what, cell, {"gil": 0.9, "free-threaded": 0.9}, at_most=False)

    def monitor(self) -> None:
        def cell(interpreter: Interpreter) -> tuple[float, str] | str:
            samples = self.of("monitor", "plait", interpreter.label)
            logs = [math.log(each["on_s"] / each["off_s"]) for each in samples if "on_s" in each]
            if not logs:
                return self.missing(samples)
            mean, low, high = (math.expm1(x) * 100 if math.isfinite(x) else x for x in interval(logs))
            return high, f"{mean:+.2f} % [{low:+.2f}, {high:+.2f}], {len(logs)} pairs"

        what = "process CPU time, on against off: mean [95 % interval]"
        self.add("monitor", what, cell, {"gil": 2.0, "free-threaded": 2.0})
        self.rows[-1].target = "interval up to 2 %"

    def idle(self) -> None:
        always = {"gil": 0.0, "free-threaded": 0.0, "old": 0.0}
        self.median("idle", "plait", "switches", "{:.0f}", "context switches of an idle program", always)
        self.rows[-1].target = "none"

    def mainstrand(self) -> None:
        for program in PROGRAMS:
            for peer in LOOPS:
                self.median("mainstrand", f"{program} {peer}", "seconds", "{:.3f}", f"seconds, {program}: {peer}")
            limit = {"gil": 1.0, "free-threaded": 1.0}
            what = f"{program}: plait / asyncio"
            self.ratio("mainstrand", what, f"{program} plait", f"{program} asyncio", "seconds", limit)

    def programs(self) -> None:
        """By CPU seconds: these programs have one thread, which on a busy machine has no core of its own."""
        for program in programs.PROGRAMS:
            for peer in LOOPS:
                self.median("programs", f"{program} {peer}", "seconds", "{:.3f}", f"seconds, {program}: {peer}")
            limit = {"gil": 1.0, "free-threaded": 1.0}
            for above, below, bound in (("plait", "asyncio", limit), ("uvloop", "plait", None)):
                what = f"{program}: {above} / {below}, CPU seconds"
                self.ratio("programs", what, f"{program} {above}", f"{program} {below}", "cpu_s", bound)

    def timers(self) -> None:
        less = {"gil": 1.0, "free-threaded": 1.0}
        for kind in (*PENDING, *GONE):
            for peer in LOOPS:
                self.median("timers", f"{kind} {peer}", "seconds", "{:.2f}", f"seconds, {kind}: {peer}")
            self.ratio("timers", f"{kind}: plait / asyncio, seconds", f"{kind} plait", f"{kind} asyncio", "seconds", less)
        for kind in PENDING:
            for peer in LOOPS:
                self.median("timers", f"{kind} {peer}", "bytes", "{:.0f}", f"bytes each, {kind}: {peer}")
            self.ratio("timers", f"{kind}: plait / asyncio, bytes", f"{kind} plait", f"{kind} asyncio", "bytes", less)
        for kind in GONE:
            for peer in LOOPS:
                limit = {"gil": 64.0, "free-threaded": 64.0} if peer == "plait" else None
                what = f"KB that half a million left, {kind}: {peer}"
                self.median("timers", f"{kind} {peer}", "kilobytes", "{:.1f}", what, limit)

    def build(self) -> list[Row]:
        for figure in dict.fromkeys(s["figure"] for s in self.samples):
            getattr(self, figure)()
        return self.rows


def markdown(rows: list[Row], interpreters: list[Interpreter]) -> str:
    labels = [interpreter.label for interpreter in interpreters]
    lines = [f"| figure | what | {' | '.join(labels)} | wanted |", "|---|---|" + "---|" * len(labels) + "---|"]
    before = ""
    for row in rows:
        if not any(row.cells.values()):
            continue
        cells = " | ".join(row.cells[label] for label in labels)
        lines.append(f"| {row.figure if row.figure != before else ''} | {row.what} | {cells} | {row.target} |")
        before = row.figure
    return "\n".join(lines)


def failures(samples: list[Sample]) -> str:
    """Each run that gave no figure, once."""
    texts = [
        f"- {s['figure']}, {s['case']}, {s['python']}: {s['error']}"
        for s in samples
        if s.get("error", "not installed") != "not installed"
    ]
    return "\n".join(dict.fromkeys(texts))
