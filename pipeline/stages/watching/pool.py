"""How many actors there are: Ray Data counts them in the driver, at each step of an execution."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ray.data._internal.execution.execution_callback import ExecutionCallback


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

    def on_execution_step(self, executor: Any) -> None:
        """Other stages than that of the actors have none."""
        found = [stage.get_actor_info() for stage in executor._topology]
        self.pool.count(
            sum(one.running for one in found),
            sum(one.pending for one in found),
            sum(one.restarting for one in found),
        )
