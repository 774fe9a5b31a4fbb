"""A suite on plait with pytest-asyncio, and one with anyio's plugin: those under suites/, each in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from library_helpers import LONG, interpreter, library

import plait

library("pytest_asyncio", "pytest-asyncio")
library("anyio")


@pytest.mark.parametrize(
    ("suite", "options", "tests"),
    [
        ("with_pytest_asyncio", ["-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function"], 3),
        ("with_anyio", ["-p", "anyio.pytest_plugin"], 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_suite(suite: str, options: list[str], tests: int) -> None:
    folder = Path(__file__).parent / "suites" / suite
    environment = {**os.environ, "PYTHONPATH": str(Path(plait.__file__).parents[1])}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    command = [*interpreter(), "-m", "pytest", "-p", "no:cacheprovider", *options, f"--rootdir={folder}", "-c", os.devnull, "."]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LONG)
    assert f"{tests} passed" in done.stdout, done.stdout + done.stderr
    assert "failed" not in done.stdout and "error" not in done.stdout, done.stdout + done.stderr
