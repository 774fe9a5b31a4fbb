"""What a runtime may be told, by parameters and PLAIT_* in the environment; and what is refused, with what to do."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from typing import Any

import pytest
from unit_helpers import LONG, value

import plait
from plait.settings import settings


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("PLAIT_WORKER", "PLAIT_WORKERS?"),
        ("PLAIT_MAXTHREADS", "PLAIT_MAX_THREADS?"),
        ("PLAIT_workers", "PLAIT_WORKERS?"),
        ("PLAIT_STALL", "PLAIT_STALLS?"),
        ("PLAIT_GRACE", ""),
        ("PLAIT_", ""),
    ],
)
def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, near: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(
        ValueError, match=rf"{name} in the environment is no setting of plait's.*there are .*PLAIT_WORKERS"
    ) as error:
        plait.new_event_loop()
    assert near in str(error.value)


@pytest.mark.parametrize(
    "name", ["PLAIT_SEED", "PLAIT_SEEDS", "PLAIT_STRESS", "PLAIT_LIBRARIES", "PLAIT_TEST_X", "PLAITED", "plait_x"]
)
def test_what_tests_and_others_use_is_nobody_s_mistake(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    settings()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("WORKERS", "many", "'many' in the environment is no int"),
        ("WORKERS", "0", "1 or more"),
        ("WORKERS", "2.5", "no int"),
        ("HANDOFF_AFTER", "8ms", "'8ms' in the environment is no float"),
        ("SHUTDOWN_GRACE", "-1", "0.0 or more"),
        ("SHUTDOWN_GRACE", "inf", "finite"),
        ("STALLS", "jsn", "text, json"),
        ("MONITOR", "off", "0, 1"),
        ("PS", "yes", "0, 1"),
        ("WATCH_MAIN", "2", "0, 1"),
    ],
)
def test_a_bad_value_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, text: str, says: str) -> None:
    monkeypatch.setenv(f"PLAIT_{name}", text)
    for make in (plait.new_event_loop, plait.Runner):
        with pytest.raises(ValueError, match=f"PLAIT_{name}=.*{says}"):
            make()  # type: ignore[operator]


def test_an_empty_value_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = settings()
    for name in ("WORKERS", "HANDOFF_AFTER", "SHUTDOWN_GRACE", "STALLS", "MONITOR", "SELECTOR"):
        monkeypatch.setenv(f"PLAIT_{name}", "")
    assert settings() == usual


async def tells(_stall: plait.Stall) -> None:
    pass


class Tells:
    async def __call__(self, _stall: plait.Stall) -> None:
        pass


@pytest.mark.parametrize("on_stall", [tells, functools.partial(tells), Tells(), Tells().__call__])
def test_a_coroutine_function_is_no_on_stall(on_stall: Any) -> None:
    for make in (plait.new_event_loop, plait.Runner):
        with pytest.raises(TypeError, match="coroutine function.*a plain function"):
            make(on_stall=on_stall)


@pytest.mark.parametrize("on_stall", [1, "print", plait.Event()])
def test_what_can_t_be_called_is_no_on_stall(on_stall: Any) -> None:
    with pytest.raises(TypeError, match="on_stall takes a function that is called with a plait.Stall, got "):
        plait.new_event_loop(on_stall=on_stall)


def test_settings_beside_a_loop_factory_are_refused() -> None:
    with pytest.raises(TypeError, match="loop_factory makes the loop, so workers, on_stall would do nothing"):
        plait.Runner(workers=2, on_stall=print, loop_factory=asyncio.new_event_loop)
    with plait.Runner(loop_factory=asyncio.new_event_loop) as runner:
        assert runner.run(value(1)) == 1


@pytest.mark.parametrize("by", ["parameter", "environment"])
def test_the_grace_of_the_end(by: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    go = threading.Event()

    async def stuck() -> None:
        go.wait(LONG)

    async def main() -> None:
        plait.spawn(stuck())
        plait.Strand(pinned=True).spawn(stuck())
        await plait.sleep(0.05)

    options: dict[str, Any] = {"shutdown_grace": 0.2}
    if by == "environment":
        monkeypatch.setenv("PLAIT_SHUTDOWN_GRACE", "0.2")
        options = {}
    began = time.monotonic()
    try:
        with pytest.warns(plait.StuckThreads):
            plait.run(main(), **options)
        assert 0.2 <= time.monotonic() - began < 4  # the usual one takes 5 and 2
        assert "shutdown gives up on 2 task(s) stuck in a step for 0.2 s" in caplog.text
    finally:
        go.set()


def test_no_grace_leaves_nobody_behind_who_is_not_stuck(recwarn: pytest.WarningsRecorder) -> None:
    async def main() -> None:
        strands = [plait.Strand(pinned=True) for _ in range(3)]
        for strand in strands:
            await strand.call(value(1))
        plait.spawn(plait.sleep(LONG))

    plait.run(main(), shutdown_grace=0)
    assert not [each for each in recwarn if issubclass(each.category, plait.StuckThreads)]


def test_a_value_of_another_kind_says_which() -> None:
    with pytest.raises(TypeError, match="workers takes an int, got '2'"):
        plait.Runner(workers="2")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="handoff_after takes a float, got '8ms'"):
        plait.new_event_loop(handoff_after="8ms")  # type: ignore[arg-type]


def test_outside_a_strand_it_is_said_how_a_thread_gives_work() -> None:
    for call in (plait.current_strand, plait.stats, plait.Strand):
        with pytest.raises(RuntimeError, match=r"from inside plait.run\(\).*run_coroutine_threadsafe\(coro, strand\)"):
            call()


def test_a_group_that_was_not_entered_says_what_is_no_coroutine() -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="a coroutine was expected"):
            plait.TaskGroup().create_task(tells)  # type: ignore[arg-type]

    plait.run(main())
