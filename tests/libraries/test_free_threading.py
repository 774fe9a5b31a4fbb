"""On the free-threaded build: does importing a library turn the GIL back on? (The other tests run with PYTHON_GIL=0.)"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from library_helpers import FREE_THREADED, LONG

MODULES = ("aiofiles", "aiohttp", "anyio", "asyncpg", "fastapi", "httpx", "psycopg", "psycopg_pool", "redis.asyncio", "uvicorn",
           "websockets")  # fmt: skip


@pytest.mark.skipif(not FREE_THREADED, reason="there is a GIL")
@pytest.mark.parametrize("module", MODULES)
def test_importing_it_leaves_the_gil_off(module: str) -> None:
    pytest.importorskip(module)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    program = f"import sys, {module}; sys.exit(sys._is_gil_enabled())"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr
