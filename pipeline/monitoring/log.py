"""The log of a run, as a person reads it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TextIO

from pipeline.contract.errors import spelled
from pipeline.contract.urls import public

Spell = Callable[[str], str]
"""From the place of a setting, "model.dtype", to its name where it was given."""

OURS = ("pipeline", "cvt")
"""The packages that log, beside the commands."""


class Stderr(logging.StreamHandler[TextIO]):
    """To what is stderr at that moment: a display at a terminal takes its place."""

    def emit(self, record: logging.LogRecord) -> None:
        self.setStream(sys.stderr)
        super().emit(record)


class SpellingFormatter(logging.Formatter):
    """Spells settings in log messages as in errors, and URLs without credentials."""

    def __init__(self, spell: Spell) -> None:
        super().__init__("%(message)s")
        self._spell = spell

    def format(self, record: logging.LogRecord) -> str:
        return public(spelled(super().format(record), self._spell))


def is_displayed() -> bool:
    """Whether a display may take the place of the log: it goes to a terminal, by a handler that
    makes room for one. Others belong to the program that calls us, and so does its terminal."""
    loggers = map(logging.getLogger, (None, *OURS))
    ours = any(isinstance(handler, Stderr) for one in loggers for handler in one.handlers)
    return ours and sys.stderr.isatty()
