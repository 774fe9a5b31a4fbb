"""What `python -m bench` runs: each figure's cases, how often, and on which interpreters."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from bench import programs
from bench.common import LOOPS
from bench.mainstrand import PROGRAMS
from bench.scaling import SHAPES
from bench.switch import KNOWN, LADDER
from bench.timers import GONE, PENDING


@dataclass(frozen=True)
class Interpreter:
    """A Python to measure. `kind`: "gil" (3.12 and later), "free-threaded" or "old" (3.11). `peers`: what it has to offer."""

    label: str
    path: str
    kind: str
    peers: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One subprocess: a module of this package, or with `go` the Go program, and its arguments."""

    name: str
    peer: str
    args: tuple[str, ...]
    needs: str = ""  # a package
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    name: str
    cases: tuple[Case, ...]
    rounds: int
    kinds: tuple[str, ...] = ("gil", "free-threaded", "old")
    timeout: float = 60.0


def _each_loop(module: str, *args: str, prefix: str = "", needs: str = "") -> Iterator[Case]:
    for peer in LOOPS:
        yield Case(prefix + peer, peer, (module, "--peer", peer, *args), needs)


def figures(quick: bool) -> list[Figure]:
    """The plan; `quick` keeps every case but makes each short, to see that all of it works."""
    rounds = 1 if quick else 5
    n = "100" if quick else "1000"
    steps = ("--n", n)
    go = [Case("go", "go", (name,)) for name in ("switch", "spawn", "memory", "lateness")]
    ladder = [Case(peer, "bare", ("switch", "--peer", peer, *steps)) for peer in LADDER]
    scale = ("--scale", "0.1" if quick else "1")

    def programs_of(module: str, names: Iterable[str], needs: str = "") -> tuple[Case, ...]:
        each = (_each_loop(module, "--program", name, *scale, prefix=name + " ", needs=needs) for name in names)
        return tuple(chain.from_iterable(each))

    known = Case(KNOWN, "plait", ("switch", "--known", *steps))
    modes = [
        Case(f"{shape} {mode}", "plait", ("scaling", "--shape", shape, "--mode", mode, "--n", amount))
        for shape, amount in zip(SHAPES, (n, "50" if quick else "500"), strict=True)
        for mode in ("pair", "two", "one")
    ]
    monitor = Case("plait", "plait", ("monitor", *(("--n", "50") if quick else ())))
    timers = [
        case
        for kind in (*PENDING, *GONE)
        for case in _each_loop("timers", "--kind", kind, "--count", "20000" if quick else "1000000", prefix=kind + " ")
    ]
    seconds = "2" if quick else "10"
    return [
        Figure("switch", (*ladder, *_each_loop("switch", *steps), known, go[0]), rounds),
        Figure("spawn", (*_each_loop("spawn", "--repeats", "1" if quick else "5"), go[1]), rounds),
        Figure("memory", (*_each_loop("memory"), go[2]), 1),
        Figure("scaling", tuple(modes), rounds, ("free-threaded",)),
        Figure("lateness", (Case("plait", "plait", ("lateness",)), go[3]), 1 if quick else 3),
        Figure("hogs", (Case("plait", "plait", ("hogs",)),), 1 if quick else 3),
        Figure("monitor", (monitor,), 2 if quick else 30, ("gil", "free-threaded")),
        Figure("idle", (Case("plait", "plait", ("idle", "--peer", "plait", "--seconds", seconds)),), 1),
        Figure("mainstrand", programs_of("mainstrand", PROGRAMS), rounds),
        Figure("programs", programs_of("programs", programs.OTHERS), rounds),
        Figure("programs", programs_of("programs", programs.WEBSOCKETS, needs="websockets"), rounds),
        Figure("programs", programs_of("programs", programs.EAGER), rounds, ("gil", "free-threaded")),
        Figure("timers", tuple(timers), 1 if quick else 3, timeout=240.0),
    ]
