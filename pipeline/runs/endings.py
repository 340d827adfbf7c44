"""What ends a run early, as its user is told it."""

from __future__ import annotations

import gc
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from traceback import clear_frames
from typing import TypeVar

from ray.exceptions import RayError

from pipeline.contract.errors import JobError, LostNodesError, RunError, UsageError, one_line
from pipeline.output.open_run import OpenRun
from pipeline.stages.watching.reach import take_back
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.store import Store

T = TypeVar("T")
log = logging.getLogger(__name__)
SAVED_SECONDS = 1.5
"""For counting what is saved, when whoever stops the run may kill it seconds later."""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ADVICE = re.compile(r"(: ['\"]| )Failed to .{1,60} after \d+/\d+ attempts \(total backoff .*")
"""What Ray Data adds to the text of any error, about settings of its own."""


@contextmanager
def saved(store: Store) -> Iterator[None]:
    """Whoever interrupts the run learns what of it is safe, if that is found out in no time."""
    rows: list[int] = []

    def count() -> None:
        with suppress(JobError, *STORAGE_ERRORS):
            found = OpenRun.find(store)
            rows.append(sum(part.rows for part in found.parts) if found else 0)

    try:
        yield
    except KeyboardInterrupt as interrupt:
        counting = threading.Thread(target=count, daemon=True)
        counting.start()
        counting.join(SAVED_SECONDS)
        if any(rows):
            interrupt.add_note(f"{rows[0]:,} images are saved")
        raise


def continued(attempt: Callable[[], T]) -> T:
    """What an attempt returns; another one follows whenever it lost nodes that it needs.

    Raises:
        RunError: it needs what only they had.
    """
    are_lost = False
    try:
        while True:
            try:
                return attempt()
            except LostNodesError as error:
                are_lost = True
                log.warning("%s; continuing there", error)
                _let_go(error)
            except UsageError as error:
                if not are_lost:
                    raise
                raise RunError(
                    f"nodes were lost, and the run cannot go on without them: {error.args[0]}"
                ) from error
    finally:
        take_back()


@contextmanager
def run_errors() -> Iterator[None]:
    """What stops a run that has begun, as one line that says that it can be continued."""
    try:
        yield
    except (RayError, *STORAGE_ERRORS) as error:
        _let_go(error)
        raise RunError(
            f"the run stopped: {_cause(error)}; start the same command again to continue it"
        ) from error
    except (JobError, KeyboardInterrupt) as error:
        _let_go(error)
        raise


def _let_go(error: BaseException) -> None:
    """Free what the error came through: Ray Data's blocks live as long as its executor does, which
    hangs on the frames of the traceback and on circles of its own. In a Ray that goes on, others
    want the room. (``Pool`` sees to the actors.)"""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        known = left.pop()
        if known is not None and id(known) not in seen:
            seen.add(id(known))
            clear_frames(known.__traceback__)
            left += [known.__cause__, known.__context__]
    gc.collect()


def _cause(error: Exception) -> str:
    """What went wrong in a worker, without the way that it took through Ray."""
    inner = getattr(error, "cause", None)
    if inner is not None:
        return _ADVICE.sub("", one_line(inner, limit=1000))[:300]
    lines = [line for line in _ANSI.sub("", str(error)).splitlines() if line.strip()]
    # Ray carries a worker's traceback as text; its last line is the exception.
    return one_line(lines[-1] if "creation task" in lines[0] else lines[0]) if lines else ""
