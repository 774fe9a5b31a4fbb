"""Fixtures of the library tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import library_helpers
import pytest
import servers

collect_ignore = ["suites"]  # examples that test_plugins.py runs, each in a pytest of its own


def pytest_configure(config: pytest.Config) -> None:
    """The marker of nothing_complains."""
    config.addinivalue_line("markers", "complains(text...): what the library itself leaves in the log, on any loop")


@pytest.fixture(scope="session")
def postgres() -> Iterator[int]:
    """The port of a PostgreSQL."""
    with servers.postgres() as port:
        yield port


@pytest.fixture(scope="session")
def redis_server() -> Iterator[int]:
    """The port of a Redis."""
    with servers.redis() as port:
        yield port


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of uvicorn, on plait's loop, with the app of web_app.py."""
    server, port = servers.uvicorn(tmp_path_factory.mktemp("uvicorn"))
    yield f"http://127.0.0.1:{port}"
    code = server.end()
    assert code in (0, -servers.signal.SIGTERM), server.output()
    assert not server.output(), server.output()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for files."""
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_complains(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test leaves an error of asyncio's or plait's in the log: lost exceptions, pending tasks, futures of another strand."""
    yield
    marker = request.node.get_closest_marker("complains")
    known = () if marker is None else marker.args
    for when in ("setup", "call"):
        complaints = [
            record.getMessage()
            for record in caplog.get_records(when)  # type: ignore[arg-type]
            if record.levelno >= logging.WARNING
            and record.name in ("asyncio", "plait")
            and not any(text in record.getMessage() for text in known)
        ]
        assert not complaints


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say that strands did move."""
    if library_helpers.moves:
        terminalreporter.write_line(f"strands were found on another thread than a round before {library_helpers.moves} times")
