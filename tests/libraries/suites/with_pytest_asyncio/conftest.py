"""pytest-asyncio on plait: each test and fixture runs in the main strand of a runtime."""

from __future__ import annotations

from typing import Any

import plait


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Any]:
    """Name more than one, {"asyncio": asyncio.new_event_loop, "plait": plait.new_event_loop}, and each test runs in each."""
    return {"plait": plait.new_event_loop}
