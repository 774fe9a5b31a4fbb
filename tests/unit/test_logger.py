"""The reports are seen whatever logging.config does, unless somebody doesn't want them."""

from __future__ import annotations

import io
import logging
import logging.config
from collections.abc import Iterator
from typing import Any

import pytest

from plait.diagnose.logger import kept_logger

NAMES = ("plait", "plait.stalls")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a configuration changes is put back."""
    root, known = logging.getLogger(), list(logging.Logger.manager.loggerDict.values())
    loggers = [logger for logger in known if isinstance(logger, logging.Logger)]
    states = [(logger, logger.level, logger.propagate, logger.disabled, logger.handlers[:]) for logger in (root, *loggers)]
    yield
    for logger, level, propagate, disabled, handlers in states:
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers
        logger.disabled = disabled


def by_dict(**config: Any) -> io.StringIO:
    """Configure logging as most programs do; what is logged."""
    into = io.StringIO()
    handler = {"class": "logging.StreamHandler", "stream": into}
    logging.config.dictConfig(
        {"version": 1, "handlers": {"all": handler}, "root": {"handlers": ["all"], "level": "INFO"}, **config}
    )
    return into


def by_file(**_config: Any) -> io.StringIO:
    into = io.StringIO()
    logging.into = into  # type: ignore[attr-defined]  # the file's words are evaluated there
    logging.config.fileConfig(
        io.StringIO(
            "[loggers]\nkeys=root\n[handlers]\nkeys=all\n[formatters]\nkeys=\n"
            "[logger_root]\nlevel=INFO\nhandlers=all\n[handler_all]\nclass=StreamHandler\nargs=(into,)\n"
        )
    )
    return into


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("configure", [by_dict, by_file])
def test_a_configuration_that_doesn_t_name_it_leaves_it_alone(configure: Any, name: str) -> None:
    other = logging.getLogger("not.plait")
    into = configure()
    assert other.disabled
    logging.getLogger(name).warning("seen")
    assert into.getvalue() == "seen\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_that_names_it_holds(name: str) -> None:
    into = by_dict(loggers={name: {"level": "ERROR"}})
    logging.getLogger(name).warning("not seen")
    logging.getLogger(name).error("seen")
    assert into.getvalue() == "seen\n"


@pytest.mark.parametrize("name", NAMES)
def test_who_disables_it_himself_is_heard(name: str) -> None:
    logger = logging.getLogger(name)
    logger.disabled = True
    into = by_dict()
    logger.error("not seen")
    assert into.getvalue() == "" and logger.disabled


def test_it_is_what_the_program_s_loggers_are() -> None:
    class Own(logging.Logger):
        def shout(self) -> str:
            return self.name.upper()

    logging.setLoggerClass(Own)
    try:
        logger: Any = kept_logger("kept.of.a.test")
    finally:
        logging.setLoggerClass(logging.Logger)
    assert logger.shout() == "KEPT.OF.A.TEST"
    assert logger is logging.getLogger("kept.of.a.test")
    assert repr(logger) == "<Own kept.of.a.test (WARNING)>"
