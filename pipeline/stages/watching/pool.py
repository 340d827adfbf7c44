"""How many actors there are: Ray Data counts them in the driver, at each step of an execution."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

import ray
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.exceptions import RayError


@dataclass
class Pool:
    """The actors of a run, now and at most."""

    running: int = 0
    starting: int = 0
    """Those that wait for a place, or load the network and check themselves."""
    reached: int = 0
    """The most that ran at a time."""
    patience: float = math.inf
    """Seconds for which actors may wait to be restarted until ``check`` is called."""
    check: Callable[[int], None] = field(default=lambda wanted: None, compare=False)
    """Raises if there is no room for so many actors: Ray would wait for ever."""
    _waiting_since: float | None = field(default=None, compare=False)

    def __reduce__(self) -> tuple[type[Pool], tuple[int, int, int]]:
        """To workers it says no more than numbers."""
        return Pool, (self.running, self.starting, self.reached)

    def told(self, most: int, nodes: int) -> str:
        """How many there are, and what is waited for.

        Args:
            most: as many as there may be.
            nodes: of the cluster, that are being started.
        """
        parts = [f"{self.running} of at most {most} replicas"]
        if self.starting:
            parts.append(f"{self.starting} more start")
        if nodes:
            parts.append(f"waiting for {nodes} node{'s' if nodes > 1 else ''} of the autoscaler's")
        return ", ".join(parts)

    def watch(self) -> type[ExecutionCallback]:
        """What Ray Data is to call; it takes a class."""
        return type("PoolWatch", (_Watch,), {"pool": self})

    def count(self, running: int, starting: int, restarting: int = 0) -> None:
        """Take note of how many there are; those that are ``restarting`` were lost."""
        self.running, self.starting = running, starting
        self.reached = max(self.reached, running)
        if not restarting:
            self._waiting_since = None
            return
        self._waiting_since = self._waiting_since or time.monotonic()
        if time.monotonic() - self._waiting_since > self.patience:
            self._waiting_since = None
            self.check(running + restarting)


class _Watch(ExecutionCallback):
    pool: ClassVar[Pool]

    def __init__(self) -> None:
        self._actors: list[Any] = []
        """Those that are up, in an execution that goes on."""

    def before_execution_starts(self, executor: Any) -> None:
        self._actors = _actors(executor)

    def after_execution_succeeds(self, executor: Any) -> None:
        self._actors = []

    def after_execution_fails(self, executor: Any, error: BaseException) -> None:
        """Ray Data forgets its actors, no more: they live, and hold their CPUs, as long as anything
        refers to them. In a Ray that goes on, the next run would find no room for its tasks."""
        for actor in self._actors:
            with suppress(RayError):
                ray.kill(actor)
        self._actors = []

    def on_execution_step(self, executor: Any) -> None:
        """Other stages than that of the actors have none."""
        self._actors = _actors(executor) or self._actors  # emptied while an execution is broken off
        found = [stage.get_actor_info() for stage in executor._topology]
        self.pool.count(
            sum(one.running for one in found),
            sum(one.pending for one in found),
            sum(one.restarting for one in found),
        )


def _actors(executor: Any) -> list[Any]:
    """Handles of all actors that are up."""
    pools = (getattr(stage, "_actor_pool", None) for stage in executor._topology)
    return [actor for pool in pools if pool is not None for actor in pool._running_actors]
