"""How far a run is: workers report what they did, the driver logs it every few seconds.

Reports are fire and forget. They feed the progress line and the timings of the manifest, never
its counts: those come from the committed rows alone.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.monitoring.log import is_displayed
from pipeline.plan.shards import Estimate
from pipeline.stages.watching.board import Board
from pipeline.stages.watching.reading import Pace, Reading

INTERVAL_SECONDS = 5.0
"""Between two lines of a log."""
DISPLAY_SECONDS = 0.5
BOARD = "cvt-batch-progress-"
"""The prefix of the names of boards."""
Expect = Callable[[Mapping[str, float]], Estimate | None]
"""How many images there are to do, by what the workers reported; None if that is not known."""

log = logging.getLogger(__name__)


def is_watched() -> bool:
    """Whether somebody sees the log at a terminal, who then gets a display instead of lines. With
    the log of everything come Ray's own bars, which would not go with it."""
    wanted = log.isEnabledFor(logging.INFO) and not log.isEnabledFor(logging.DEBUG)
    return wanted and is_displayed()


def shows_all() -> bool:
    """Whether somebody debugs at a terminal; Ray then draws its bars."""
    return log.isEnabledFor(logging.DEBUG) and is_displayed()


@dataclass(frozen=True)
class Reporter:
    """Sends numbers from a worker to the board; does nothing if there is no board."""

    board: Any = None

    def report(self, **numbers: float) -> None:
        """Add to the board's counters, without waiting for it."""
        if self.board is not None:
            self.board.add.remote(numbers, ray.get_runtime_context().get_node_id())

    def say(self, message: str) -> None:
        """Have the driver log a line; returns once the board has it."""
        if self.board is not None:
            ray.get(self.board.say.remote(message))

    def agree(self, **value: float) -> float:
        """The value that the first worker gave under this name; one's own for the first."""
        (name, mine), *_ = value.items()
        if self.board is None:
            return mine
        agreed: float = ray.get(self.board.agree.remote(name, mine))
        return agreed

    def now(self) -> float:
        """Seconds since the epoch by the driver's clock, which that of this host may be far from;
        by this one's if there is no board."""
        if self.board is None:
            return time.time()
        seconds: float = ray.get(self.board.now.remote())
        return seconds


class Progress:
    """Context of an execution: owns the board, and logs a line every few seconds.

    Args:
        done: images that earlier attempts committed.
    """

    def __init__(self, done: int = 0) -> None:
        self.expect: Expect = lambda totals: None
        self.pool: Callable[[], str] = lambda: ""
        self.done = done
        # On the driver's node; otherwise a lost node could take the whole run's numbers with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board: Any = ray.remote(Board)
        name = BOARD + secrets.token_hex(4)
        self.board = board.options(name=name, num_cpus=0, scheduling_strategy=here).remote()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    @property
    def reporter(self) -> Reporter:
        return Reporter(self.board)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()
        self._pass_on()
        with suppress(ray.exceptions.RayError):
            ray.kill(self.board)  # or it would live until Python collects what refers to it

    def totals(self) -> dict[str, float]:
        """What was reported and agreed on so far; empty if the board is gone."""
        try:
            totals: Any = ray.get(self.board.read.remote(), timeout=10)
        except ray.exceptions.RayError:
            return {}
        return dict(totals)

    def _pass_on(self) -> None:
        """Log what workers have said."""
        try:
            messages: Any = ray.get(self.board.take_messages.remote(), timeout=10)
        except ray.exceptions.RayError:
            return
        for message in messages:
            log.warning("%s", message)

    def _loop(self) -> None:
        pace, watched = Pace(time.monotonic()), is_watched()
        with _display() if watched else nullcontext(_log) as show:
            while not self._stop.wait(DISPLAY_SECONDS if watched else INTERVAL_SECONDS):
                self._pass_on()
                totals = self.totals()
                rate = pace.rate(int(totals.get("inferred", 0)), time.monotonic())
                if totals or watched:
                    show(self._reading(totals, rate))

    def _reading(self, totals: dict[str, float], rate: float) -> Reading:
        found = self.expect(totals)
        if found is None:
            return Reading(totals, rate, None, self.done, pool=self.pool())
        return Reading(totals, rate, found.images, self.done, found.is_certain, self.pool())


def _display() -> AbstractContextManager[Callable[[Reading], None]]:
    from pipeline.stages.watching.display import display  # which no worker needs

    return display()


def _log(reading: Reading) -> None:
    log.info("%s", reading)


def watch() -> dict[str, dict[str, float]]:
    """What the workers of this driver's run have reported so far, by Ray's id of their node;
    empty while no run is being executed. For another thread of the driver."""
    names = [name for name in ray.util.list_named_actors() if name.startswith(BOARD)]
    try:
        reported: dict[str, dict[str, float]] = {}
        for name in names:
            board: Any = ray.get_actor(name)
            reported |= ray.get(board.by_node.remote(), timeout=10)
    except (ValueError, ray.exceptions.RayError):  # the run ended meanwhile
        return {}
    return reported
