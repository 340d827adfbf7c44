"""Parts of a long listing as Ray tasks, each of which lists some thousand names, and makes rows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from pipeline.contract.errors import one_line
from pipeline.storage.filesystems import WorkerEnvironment

TRIES = 10
"""More, when a worker or its node is lost."""
LOOK_SECONDS = 1.0
"""After so long without an answer, a thread looks whether anybody still waits for it."""

R = TypeVar("R")


class ListingTasks:
    """Helpers of a listing, from ``begin`` on. Use it as a context: at its end no thread waits for
    Ray any more, which may then be left."""

    def __init__(self) -> None:
        self._environment: Any = None
        self._send: Any = None
        self._is_closed = False
        self._calls = 0
        self._changed = threading.Condition()

    def begin(self) -> None:
        """From now on tasks may be sent to the Ray that is connected."""
        self._environment = ray.put(WorkerEnvironment.capture())
        # It waits for the storage most of the time, and must not wait for cores that decode.
        self._send = ray.remote(_call).options(
            num_cpus=0, max_retries=TRIES, scheduling_strategy="SPREAD"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._calls)

    @property
    def is_ready(self) -> bool:
        """Whether it has begun."""
        return self._send is not None

    def call(self, function: Callable[[], R]) -> R:
        """What the function returns in a task, or raises.

        Raises:
            OSError: its process is lost again and again.
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
        # One object: what is lost and made again is another one, but the same throughout.
        sent = self._send.remote(self._environment, function)
        try:
            while True:
                with suppress(GetTimeoutError):
                    answer: R = ray.get(sent, timeout=LOOK_SECONDS)
                    return answer
                self._check_open()
        except RayTaskError as error:
            if isinstance(error.cause, Exception):
                raise error.cause from None
            raise
        except RayError as error:
            raise OSError(f"a task that lists is lost: {one_line(error)}") from error

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the listing is over")


def _call(environment: WorkerEnvironment, function: Callable[[], R]) -> R:
    environment.apply()
    return function()
