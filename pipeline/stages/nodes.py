"""What the nodes of a cluster have, and how many actors find a place on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.contract.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Node:
    """What a node of the cluster has. CPUs and GPUs are Ray's logical ones."""

    cpus: float = 0
    gpus: float = 0
    memory: float = math.inf
    """In bytes, of which Ray counts some 70 %."""
    host: str = "this machine"


def with_cpus(nodes: Sequence[Node]) -> int:
    """How many have some: a head node is often given none, so that it only manages the cluster."""
    return sum(node.cpus > 0 for node in nodes)


def check_memory(weights_bytes: int, nodes: Sequence[Node]) -> None:
    """Refuse a network that no node can hold.

    Raises:
        UsageError: naming the largest node.
    """
    largest = max(nodes, key=lambda node: node.memory)
    if weights_bytes > largest.memory:
        raise UsageError(
            f"an actor fits on no node: the network alone takes {weights_bytes / 2**30:.2g} GiB of "
            f"memory, the largest node ({largest.host}) has {largest.memory / 2**30:.2g} GiB; "
            "start a node with more memory, or choose a smaller <model.source>"
        )


def gpu_share(gpus: float, actors: int) -> float:
    """What Ray can place: whole GPUs, or a fraction, cut to Ray's four decimals.

    Raises:
        UsageError: it is too small.
    """
    if actors <= gpus:
        return float(gpus // actors)
    actors_of_one = math.ceil(actors / gpus)
    share = math.floor(10_000 / actors_of_one) / 10_000
    if not share:
        raise UsageError(
            f"{actors} actors on {gpus:g} GPUs are more than 10000 to a GPU; lower "
            "<compute.num_actors>"
        )
    return share


def fitting_on_gpus(share: float, actors: int, nodes: Sequence[Node]) -> int:
    """How many actors with such a share of GPUs the nodes hold.

    Raises:
        UsageError: fewer than there are to be.
    """
    fitting = sum(_fitting_gpus(share, node) for node in nodes)
    if actors <= fitting:
        return fitting
    largest = max(nodes, key=lambda node: node.gpus)
    if not fitting:
        raise UsageError(
            f"an actor with {share:g} GPUs fits on no node: the largest ({largest.host}) has "
            f"{largest.gpus:g}; lower <compute.num_gpus>, or raise <compute.num_actors> to share "
            "the GPUs among more actors"
        )
    raise UsageError(
        f"{actors} actors with {share:g} GPUs each do not fit on the nodes, which hold {fitting} "
        f"of them; lower <compute.num_gpus>, or set <compute.num_actors> to {fitting} or less"
    )


def _fitting_gpus(share: float, node: Node) -> int:
    """How many actors find their share of GPUs on a node; those that share one do not span two."""
    if share >= 1:
        return int(node.gpus // share)
    of_rest = int(node.gpus % 1 / share + 1e-6)
    return int(node.gpus) * int(1 / share + 1e-6) + of_rest


def cpus_beside_gpus(share: float, actors: int, nodes: Sequence[Node]) -> list[float]:
    """What an actor may take of the CPUs of each node with GPUs: at most half of them together."""
    held = ((node.cpus, min(_fitting_gpus(share, node), actors)) for node in nodes)
    return [cpus / (2 * number) for cpus, number in held if number]


def fitting_on_cpus(threads: int, actors: int | None, nodes: Sequence[Node]) -> int:
    """How many actors of so many CPUs the nodes hold; an actor lies on one node.

    Raises:
        UsageError: none, or fewer than there are to be.
    """
    fitting = sum(int(node.cpus // threads) for node in nodes)
    if not fitting:
        largest = max(nodes, key=lambda node: node.cpus)
        raise UsageError(
            f"an actor of {threads} CPUs fits on no node: the largest ({largest.host}) has "
            f"{largest.cpus:g}; lower <compute.num_cpus_per_actor>"
        )
    if actors is not None and actors > fitting:
        raise UsageError(
            f"{actors} actors of {threads} CPUs do not fit on the nodes, which hold {fitting} of "
            "them; lower <compute.num_actors> or <compute.num_cpus_per_actor>"
        )
    return fitting


def crowded(actor_cpus: float, nodes: Sequence[Node]) -> tuple[int, float]:
    """How many actors the largest node holds, and the CPUs left beside them: those of a lost node
    start anew there, where what it had decoded must be decoded again."""
    cpus = max(node.cpus for node in nodes)
    return (actors := int(cpus / actor_cpus + 1e-6)), cpus - actors * actor_cpus
