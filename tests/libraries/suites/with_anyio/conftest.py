"""anyio's plugin on plait."""

from __future__ import annotations

from typing import Any

import pytest

import plait


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The asyncio backend, in the main strand of a runtime."""
    return "asyncio", {"loop_factory": plait.new_event_loop}
