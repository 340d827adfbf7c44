"""The settings of a run's share of the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.contract.spec.settings import check_settings, setting

Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class ComputeSpec:
    """How much of the cluster the run takes; None is chosen from what the cluster has."""

    num_gpus: float | None = setting(
        None,
        "GPUs for the whole run; 0 computes on CPUs (default: all available)",
        metavar="N",
        at_least=0,
    )
    num_actors: int | None = setting(
        None,
        "model replicas (default: one per GPU, or as many as the CPUs carry)",
        metavar="N",
        at_least=1,
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
