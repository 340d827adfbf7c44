"""How many actors there are: Ray Data counts them in the driver, at each step of an execution."""

from __future__ import annotations

from dataclasses import dataclass
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

    def count(self, running: int, starting: int) -> None:
        """Take note of how many there are."""
        self.running, self.starting = running, starting
        self.reached = max(self.reached, running)


class _Watch(ExecutionCallback):
    pool: ClassVar[Pool]

    def on_execution_step(self, executor: Any) -> None:
        """Other stages than that of the actors have none."""
        found = [stage.get_actor_info() for stage in executor._topology]
        self.pool.count(sum(i.running for i in found), sum(i.pending for i in found))
