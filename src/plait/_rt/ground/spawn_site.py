"""Where a task was spawned: one object a place, shared by all tasks spawned there, so that it costs a task 8 bytes."""

from __future__ import annotations

from types import CodeType, FrameType
from typing import Any

_MOST = 10_000  # programs that make code as they run don't grow it for ever

_sites: dict[tuple[int, int], Site] = {}
_last: tuple[CodeType | None, int, Any] = None, 0, None  # the last one asked for: who spawns one task mostly spawns many


class Site:
    """A place in the code."""

    __slots__ = ("code", "lasti")

    def __init__(self, code: CodeType, lasti: int) -> None:
        self.code, self.lasti = code, lasti

    @property
    def line(self) -> int:
        """The line, worked out when somebody asks."""
        line = self.code.co_firstlineno
        for start, end, number in self.code.co_lines():
            if start <= self.lasti < end and number is not None:
                line = number
        return line

    def __str__(self) -> str:
        return f"{self.code.co_filename}:{self.line} in {self.code.co_name}"


def site_of(frame: FrameType) -> Site:
    """The site where frame stands."""
    global _last
    code, lasti = frame.f_code, frame.f_lasti
    last_code, last_lasti, site = _last
    if code is last_code and lasti == last_lasti:
        return site  # type: ignore[no-any-return]
    site = _sites.get((id(code), lasti))
    if site is None or site.code is not code:
        if len(_sites) > _MOST:
            _sites.clear()
        site = _sites[id(code), lasti] = Site(code, lasti)
    _last = code, lasti, site
    return site
