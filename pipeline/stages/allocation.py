"""How the stages share what a cluster has.

Actors start first and keep their CPUs; if nothing is left for the decode tasks, nothing ever
moves (ray-project/ray 44687). The shares are therefore computed here, before the start, so that
their sum always leaves room:

    GPU     an actor takes its share of a GPU and one CPU (less on a machine with few), decode
            tasks one CPU each from the rest
    CPU     an actor computes with ``num_cpus_per_actor`` threads and reserves nine tenths of
            them; the tenths that are left carry the decode tasks, which the operating system
            lets run beside the actors on the same cores

A task has to fit into what one node has left: the sum over a hundred small nodes is no use to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ComputeSpec

ACTOR_SHARE = 0.9
WRITERS_SHARE = 0.02
CPU_BATCH = 8
GPU_BATCH = 256
"""Images that a GPU is given together; its actor finds out in how many pieces they are fastest."""


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """Who gets what. CPUs and GPUs are Ray's logical ones."""

    num_actors: int
    actor_cpus: float
    actor_gpus: float
    actor_threads: int
    decode_cpus: float
    decode_tasks: int
    """How many find room at a time."""
    batch_size: int

    @property
    def on_gpu(self) -> bool:
        return self.actor_gpus > 0

    @property
    def actor_calls(self) -> int:
        """Batches that an actor has in hand: on a GPU one more than the one that is computed."""
        return 2 if self.on_gpu else 1

    def describe(self) -> str:
        """One line for the log."""
        actors = f"{self.num_actors} actor{'s' if self.num_actors > 1 else ''}"
        if self.on_gpu:
            return f"{actors} with {self.actor_gpus:g} GPU each, batches of {self.batch_size}"
        return (
            f"{actors} with {self.actor_threads} CPU thread"
            f"{'s' if self.actor_threads > 1 else ''} each, batches of {self.batch_size}"
        )


def allocate(compute: ComputeSpec, *, cpus: float, gpus: float, nodes: int = 1) -> Allocation:
    """Divide a cluster's CPUs and GPUs between model actors and decode tasks.

    Args:
        compute: what the run asks for.
        cpus: CPUs of the whole cluster.
        gpus: GPUs of the whole cluster.
        nodes: how many nodes the CPUs are spread over.

    Raises:
        UsageError: what is asked for is more than there is.
    """
    wanted = gpus if compute.num_gpus is None else compute.num_gpus
    if wanted > gpus:
        raise UsageError(
            f"<compute.num_gpus> {wanted:g} asks for more than the {gpus:g} of the cluster"
        )
    if wanted:
        return _on_gpus(compute, cpus, wanted, nodes)
    return _on_cpus(compute, cpus, nodes)


def _on_gpus(compute: ComputeSpec, cpus: float, gpus: float, nodes: int) -> Allocation:
    actors = compute.num_actors or max(int(gpus), 1)
    actor_cpus = min(1.0, cpus / (2 * actors))
    decode_cpus, decode_tasks = _decoders(cpus - actors * actor_cpus, nodes)
    return Allocation(
        num_actors=actors,
        actor_cpus=round(actor_cpus, 3),
        actor_gpus=_gpu_share(gpus, actors),
        actor_threads=1,
        decode_cpus=decode_cpus,
        decode_tasks=decode_tasks,
        batch_size=GPU_BATCH if compute.batch_size == "auto" else compute.batch_size,
    )


def _gpu_share(gpus: float, actors: int) -> float:
    """What Ray can place: whole GPUs, or a part of one such that its actors' parts are no more
    than the whole, in Ray's four decimals."""
    if actors <= gpus:
        return float(gpus // actors)
    actors_of_one = math.ceil(actors / gpus)
    return math.floor(10_000 / actors_of_one) / 10_000


def _on_cpus(compute: ComputeSpec, cpus: float, nodes: int) -> Allocation:
    threads = compute.num_cpus_per_actor
    actor_cpus = ACTOR_SHARE * threads
    most = int(cpus // threads)
    actors = compute.num_actors or max(most, 1)
    if actors > most:
        raise UsageError(
            f"{actors} actors of {threads} CPUs need more than the {cpus:g} of the cluster; "
            "lower <compute.num_actors> or <compute.num_cpus_per_actor>"
        )
    decode_cpus, decode_tasks = _decoders(cpus - actors * actor_cpus, nodes)
    return Allocation(
        num_actors=actors,
        actor_cpus=actor_cpus,
        actor_gpus=0.0,
        actor_threads=threads,
        decode_cpus=decode_cpus,
        decode_tasks=decode_tasks,
        batch_size=CPU_BATCH if compute.batch_size == "auto" else compute.batch_size,
    )


def _decoders(free: float, nodes: int) -> tuple[float, int]:
    """CPUs of a decode task, and how many such tasks find room at a time.

    At least two on a node with the mean of what is left (so that there is one that carries them),
    of one CPU each where there is room.
    """
    cpus = round(min(1.0, (free / nodes - WRITERS_SHARE) / 2), 3)
    return cpus, nodes * int((free / nodes - WRITERS_SHARE) / cpus + 0.01)
