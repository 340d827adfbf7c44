"""The settings of a run's share of the cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.contract.errors import UsageError
from pipeline.contract.spec.settings import check_settings, setting

Auto = Literal["auto"]
_SIZE = re.compile(r"(?P<least>[0-9]{1,9})(:(?P<most>[0-9]{1,9}))?")


@dataclass(frozen=True)
class PoolSize:
    """How many actors a pool has; one whose size changes has the least of them at its start."""

    least: int
    most: int

    @property
    def is_elastic(self) -> bool:
        return self.least < self.most

    @classmethod
    def of(cls, said: int | str) -> PoolSize:
        """Of ``compute.num_actors``: a number, or two of them as in ``1:8``.

        Raises:
            UsageError: it is neither.
        """
        found = _SIZE.fullmatch(str(said))
        least = int(found["least"]) if found else 0
        most = int(found["most"] or least) if found else 0
        if not 1 <= least <= most:
            raise UsageError(
                f"<compute.num_actors> is {said!r}; it must be 1 or more, or MIN:MAX, such as 1:8"
            )
        return cls(least, most)


@dataclass(frozen=True, kw_only=True)
class ComputeSpec:
    """How much of the cluster the run takes; None is chosen from what the cluster has."""

    num_gpus: float | None = setting(
        None,
        "GPUs for the whole run; 0 computes on CPUs (default: all available)",
        metavar="N",
        at_least=0,
    )
    num_actors: int | str | None = setting(
        None,
        "model replicas; MIN:MAX begins with MIN of them, and has more, and fewer again, as the "
        "work and the cluster allow (default: one per GPU, or as many as the CPUs carry)",
        metavar="N",
    )
    num_cpus_per_actor: int = setting(
        1, "threads per model replica on CPUs", metavar="N", at_least=1
    )
    batch_size: int | Auto = setting(
        "auto",
        "images per forward pass; auto: 8 on a CPU, on a GPU a size that suits it",
        metavar="N",
        at_least=1,
    )
    compile: bool | None = setting(
        None,
        "on GPUs, compile the network: about 1.5 times as fast, after half a minute in a machine's "
        "first run (default: if the run is long enough to benefit)",
        negatable=True,
    )
    block_size: int | None = setting(
        None,
        "images per block of the data flow (default: up to 32, on GPUs as many as suit their "
        "batches and the memory of Ray's object store)",
        metavar="N",
        at_least=1,
    )

    wait_for_nodes: float = setting(
        600.0,
        "if the cluster lacks what the run asks for and has an autoscaler, ask it for nodes and "
        "wait so long for them; 0 does not wait",
        metavar="S",
        at_least=0,
    )

    def __post_init__(self) -> None:
        check_settings(self, "compute")
        if self.num_actors is not None:
            PoolSize.of(self.num_actors)

    @property
    def actors(self) -> PoolSize | None:
        """How many actors are asked for; None for as many as there is room for."""
        return None if self.num_actors is None else PoolSize.of(self.num_actors)

    @property
    def is_elastic(self) -> bool:
        """Whether the number of actors changes while the run computes."""
        return self.actors is not None and self.actors.is_elastic
