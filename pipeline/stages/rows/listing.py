"""Parts of a long listing as Ray tasks, each of which lists some thousand names, and makes rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from pipeline.contract.errors import one_line
from pipeline.stages.cluster.tasks import cause_of
from pipeline.stages.watching.reach import elsewhere
from pipeline.storage.filesystems import WorkerEnvironment

TRIES = 10
"""More, when a worker or its node is lost."""
LOOK_SECONDS = 1.0
"""After so long without an answer, a thread looks whether anybody still waits for it."""
PATIENCE_SECONDS = 600.0
"""After so long without an answer, perhaps no process will ever start for the task."""
LEAST_AT_ONCE = 4

R = TypeVar("R")


class ListingTasks:
    """Helpers of a listing, from ``begin`` on. Use it as a context: at its end no thread waits for
    Ray any more, which may then be left."""

    def __init__(self) -> None:
        self._environment: Any = None
        self._task: Any = None
        self._at_once = LEAST_AT_ONCE
        self._is_closed = False
        self._calls = 0
        self._changed = threading.Condition()

    def begin(self) -> None:
        """From now on tasks may be sent to the Ray that is connected."""
        self._environment = ray.put(WorkerEnvironment.capture())
        # Each has a process of its own, which takes memory, and time to start.
        self._at_once = max(LEAST_AT_ONCE, int(ray.cluster_resources().get("CPU", 0)))
        self._task = ray.remote(_call)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._calls)

    @property
    def is_ready(self) -> bool:
        """Whether it has begun."""
        return self._task is not None

    @property
    def at_once(self) -> int:
        """As many as the cluster has CPUs."""
        return self._at_once

    def call(self, function: Callable[[], R]) -> R:
        """What the function returns in a task, or raises.

        Raises:
            OSError: its process is lost again and again, or there is no answer.
            RuntimeError: nobody waits for it any more.
        """
        with self._changed:
            self._check_open()
            self._calls += 1
        try:
            return self._answer(function)
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    def _answer(self, function: Callable[[], R]) -> R:
        # It waits for the storage most of the time, and must not wait for cores that decode. Its
        # answer is one object: what is lost and made again is another, but the same throughout.
        options = {"num_cpus": 0, "max_retries": TRIES, "scheduling_strategy": "SPREAD"}
        sent = self._task.options(**options, **elsewhere()).remote(self._environment, function)
        try:
            answer: R = self._wait(sent)
            return answer
        except RayTaskError as error:
            raise cause_of(error) from None
        except RayError as error:
            raise OSError(f"a task that lists is lost: {one_line(error)}") from error

    def _wait(self, sent: Any) -> Any:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up and not self._is_closed:
            with suppress(GetTimeoutError):
                return ray.get(sent, timeout=LOOK_SECONDS)
        ray.cancel(sent, force=True)
        self._check_open()
        raise OSError(f"no task has listed within {PATIENCE_SECONDS:.0f} s")

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the listing is over")


def _call(environment: WorkerEnvironment, function: Callable[[], R]) -> R:
    environment.apply()
    return function()
