"""What a caller in Python sees of a run: its log, progress if wanted, and errors in one line."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

from pipeline.contract.errors import JobError
from pipeline.monitoring.log import OURS, Spell, SpellingFormatter, Stderr
from pipeline.stages.watching.reading import Reading


@contextmanager
def as_in_python(spell: Spell, *, progress: bool) -> Iterator[None]:
    """Errors spell settings as keywords. The log goes where the program sends it, and is also shown
    if progress is wanted."""
    for name in OURS:
        _add_null_handler(logging.getLogger(name))
    with ExitStack() as stack:
        if progress:
            handler = _handler(spell)
            for name in OURS:
                stack.enter_context(_heard_by(handler, logging.getLogger(name)))
        try:
            yield
        except JobError as error:
            error.args = (error.spelled(spell),)
            raise


def import_ray() -> None:
    """Without what its import says in a notebook: to install what draws bars of Ray's own."""
    hints = logging.getLogger("ray.widgets.util")
    level = hints.level
    hints.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")
            import_module("ray.data")
    finally:
        hints.setLevel(level)


def _add_null_handler(log: logging.Logger) -> None:
    """As libraries do, or a program without logging of its own would get warnings on stderr."""
    if not any(isinstance(handler, logging.NullHandler) for handler in log.handlers):
        log.addHandler(logging.NullHandler())


def _handler(spell: Spell) -> logging.Handler:
    """To a cell of the notebook, if this is one; else lines, or a display, on stderr."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    handler = _Cell() if hasattr(shell, "kernel") else Stderr(sys.stderr)
    handler.setLevel(logging.INFO)
    handler.setFormatter(SpellingFormatter(spell))
    return handler


@contextmanager
def _heard_by(handler: logging.Handler, log: logging.Logger) -> Iterator[None]:
    """A handler gets what a logger says, and others get as much of it as without."""
    level, usual, propagate = log.level, log.getEffectiveLevel(), log.propagate
    added = [handler, _ToRoot(usual)] if propagate else [handler]
    for one in added:
        log.addHandler(one)
    log.setLevel(min(usual, logging.INFO))
    log.propagate = False
    try:
        yield
    finally:
        log.setLevel(level)
        log.propagate = propagate
        for one in added:
            log.removeHandler(one)


class _ToRoot(logging.Handler):
    """To the handlers that the program has set up for everything."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger().handle(record)


class _Cell(logging.Handler):
    """Text below the cell of a notebook, in which a reading takes the place of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._ends_in_reading = False
        display: Any = import_module("IPython.display").display
        self._shown: Any = display(self._bundle(), raw=True, display_id=True)

    def emit(self, record: logging.LogRecord) -> None:
        is_reading = any(isinstance(one, Reading) for one in record.args or ())
        if is_reading and self._ends_in_reading:
            self._lines.pop()
        self._lines.append(self.format(record))
        self._ends_in_reading = is_reading
        self._shown.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, str]:
        return {"text/plain": "\n".join(self._lines)}
