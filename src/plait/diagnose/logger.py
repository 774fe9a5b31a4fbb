"""Loggers that a configuration which doesn't name them leaves alone.

`logging.config.dictConfig` and `fileConfig` disable every logger that is there and isn't named, unless they are told not to: so
the reports of a program that configures its logging after `import plait`, as all do, would never be seen. Nobody means that
by it. Who means it sets `disabled` himself, or a level; that holds.
"""

from __future__ import annotations

import logging

from plait._rt.ground.cpython import _getframe


def kept_logger(name: str) -> logging.Logger:
    """The logger of that name, which logging.config doesn't disable."""
    logger = logging.getLogger(name)
    kind = type(logger)

    class Kept(kind):  # type: ignore[misc, valid-type]
        """What the program's loggers are, but for that."""

        @property
        def disabled(self) -> bool:
            return bool(self.__dict__["disabled"])

        @disabled.setter
        def disabled(self, value: bool) -> None:
            if not value or _getframe(1).f_globals.get("__name__") != "logging.config":
                self.__dict__["disabled"] = value

    Kept.__name__, Kept.__qualname__ = kind.__name__, kind.__qualname__
    logger.__class__ = Kept
    return logger
