"""How far a run is: workers report what they did, the driver says it every few seconds.

Reports are fire and forget. They feed the progress line and the timings of the manifest, never
the books: those are balanced on the committed rows alone.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

INTERVAL_SECONDS = 5.0

log = logging.getLogger(__name__)


def on_terminal() -> bool:
    """Whether somebody watches; then Ray draws its bars, and no lines are logged."""
    return sys.stdout.isatty() and sys.stderr.isatty()


@dataclass(frozen=True)
class Reporter:
    """Sends numbers from a worker to the board; does nothing when there is no board."""

    board: Any = None

    def report(self, **numbers: float) -> None:
        """Add to the board's counters, without waiting for it."""
        if self.board is not None:
            self.board.add.remote(numbers)


class _Board:
    """Sums what the workers report. Lives in an actor of its own."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()

    def add(self, numbers: dict[str, float]) -> None:
        self.totals.update(numbers)

    def read(self) -> dict[str, float]:
        return dict(self.totals)


class Progress:
    """Context of an execution: owns the board, and logs a line every few seconds.

    Args:
        expected: images that the plan knows of; None while shards make the number unknown.
        done: images that earlier attempts committed.
    """

    def __init__(self, expected: int | None, done: int = 0) -> None:
        self.expected = expected
        self.done = done
        # Beside the driver, or a lost node could take the numbers of the whole run with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board: Any = ray.remote(_Board)
        self.board = board.options(num_cpus=0, scheduling_strategy=here).remote()
        self.started = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    @property
    def reporter(self) -> Reporter:
        return Reporter(self.board)

    def __enter__(self) -> Self:
        if not on_terminal():
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def totals(self) -> dict[str, float]:
        """What was reported so far; empty when the board is gone."""
        try:
            totals: Any = ray.get(self.board.read.remote(), timeout=10)
        except ray.exceptions.RayError:
            return {}
        return dict(totals)

    def _loop(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            totals = self.totals()
            if totals:
                log.info("%s", self.line(totals, time.monotonic() - self.started))

    def line(self, totals: dict[str, float], seconds: float) -> str:
        """One line: how many, how fast, how many failed, how long to go."""
        images = int(totals.get("inferred", 0))
        rate = images / seconds
        of, left = "", ""
        if self.expected:
            of = f" of {self.expected + self.done}"
            remaining = max(self.expected - images, 0)
            left = f", {_duration(remaining / rate)} left" if rate else ""
        failed = int(totals.get("failed", 0))
        return f"{images + self.done}{of} images, {rate:.1f}/s, {failed} failed{left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
