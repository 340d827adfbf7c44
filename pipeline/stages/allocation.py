"""How the stages share a cluster's resources.

Actors start first and keep their CPUs; if nothing is left for the decode tasks, the run never
makes progress (ray-project/ray 44687). The shares are therefore computed here, before the start, so
that their sum always leaves room:

    GPU     an actor takes its share of a GPU and one CPU (less on a machine with few), decode
            tasks one CPU each from the rest
    CPU     an actor computes with ``num_cpus_per_actor`` threads and reserves nine tenths of
            them; the tenths that are left carry the decode tasks, which the operating system
            lets run beside the actors on the same cores

A task has to fit into what one node has left: the sum over a hundred small nodes is no use to it.

Ray Data runs fewer decode tasks than there is room for, unless two of its reserves are met:

    CPUs    it keeps a sixth of all for every stage without a limit on its tasks. The writers need
            next to nothing, but without a limit of theirs 11 of 15 decode tasks ran on 16 CPUs.
    store   it plans with half of the object store, keeps half of that back for the outputs of all
            three stages, and counts two blocks for every decode task that runs. For R of them to
            run, a block may have 7/48 of the store / (R + 2): of a store of 1 GiB 9 MB at R = 15;
            with blocks of 38 MB only two of 15 tasks ran there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ComputeSpec

ACTOR_SHARE = 0.9
WRITERS = 4
"""Of a node: a part of up to 16,384 rows takes a second on a slow store, and more to compute."""
WRITE_CPUS = 0.005
_WRITERS_SHARE = WRITERS * WRITE_CPUS
_LEAST_DECODE_CPUS = 0.03
CPU_BATCH = 8
GPU_BATCH = 256
"""Images that a GPU is given together; its actor finds the batch size that is fastest for them."""
CPU_BLOCK = 32
"""Images that travel to an actor together. A run ends when the last actor has done its last block,
and shows rows after its first: 1.6 s at 20 images/s a core. A block costs Ray some 17 ms, half a
millisecond an image."""
GPU_BLOCK = 256
"""The same on GPUs, which compute it in 15 ms, as long as Ray's driver takes for a block: 32 images
a block were at most 2,600 images/s, of which one H100 computes 18,000."""
GPU_BLOCK_BYTES = 64 * 2**20
"""The most decoded pixels of a block on its way to a GPU, however large the images are."""
SMALLEST_STORE_BYTES = 2**30
STORE_OF_BLOCK = 48 / 7


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """Who gets what. CPUs and GPUs are Ray's logical ones."""

    num_actors: int
    actor_cpus: float
    actor_gpus: float
    actor_threads: int
    decode_cpus: float
    decode_tasks: int
    """How many fit at a time."""
    write_tasks: int
    """How many may run at a time."""
    batch_size: int
    store_bytes: float
    """Of the object stores of all nodes."""

    @property
    def on_gpu(self) -> bool:
        return self.actor_gpus > 0

    @property
    def actor_calls(self) -> int:
        """Batches that an actor has in hand: on a GPU one more than the one being computed."""
        return 2 if self.on_gpu else 1

    @property
    def most_block_bytes(self) -> float:
        """Of a block of decoded images with which Ray Data runs all decode tasks at a time."""
        return self.store_bytes / STORE_OF_BLOCK / (self.decode_tasks + 2)

    def describe(self) -> str:
        """One line for the log."""
        actors = f"{self.num_actors} actor{'s' if self.num_actors > 1 else ''}"
        if self.on_gpu:
            return f"{actors} with {self.actor_gpus:g} GPU each, batches of {self.batch_size}"
        return (
            f"{actors} with {self.actor_threads} CPU thread"
            f"{'s' if self.actor_threads > 1 else ''} each, batches of {self.batch_size}"
        )


@dataclass(frozen=True, kw_only=True)
class Node:
    """What a node of the cluster has. CPUs and GPUs are Ray's logical ones."""

    cpus: float = 0
    gpus: float = 0
    memory: float = math.inf
    """In bytes, of which Ray counts some 70 %."""
    host: str = "this machine"


def allocate(
    compute: ComputeSpec,
    nodes: Sequence[Node],
    *,
    store_bytes: float = SMALLEST_STORE_BYTES,
    weights_bytes: int = 0,
) -> Allocation:
    """Divide the CPUs and GPUs of a cluster's nodes between model actors and decode tasks.

    Args:
        compute: what the run asks for.
        store_bytes: of the object stores of the whole cluster.
        weights_bytes: of the network, the least that an actor holds in memory.

    Raises:
        UsageError: the run asks for more than there is, or for actors that fit on no node.
    """
    cpus = sum(node.cpus for node in nodes)
    gpus = sum(node.gpus for node in nodes)
    if not cpus:
        raise UsageError("the cluster has no CPUs to compute on; start a node that has some")
    _check_memory(weights_bytes, nodes)
    wanted = gpus if compute.num_gpus is None else compute.num_gpus
    if wanted > gpus:
        raise UsageError(f"<compute.num_gpus> {wanted:g} is more than the {gpus:g} of the cluster")
    if wanted:
        return _on_gpus(compute, wanted, nodes, store_bytes)
    return _on_cpus(compute, nodes, store_bytes)


def bundles(compute: ComputeSpec) -> list[dict[str, float]]:
    """What the actors of a run need, each for itself, in Ray's names; of a run that takes what
    there is, what its first actor needs."""
    if compute.num_gpus:
        actors = _actors_on(compute.num_gpus, compute)
        return [{"GPU": _gpu_share(compute.num_gpus, actors), "CPU": 1}] * actors
    return [{"CPU": compute.num_cpus_per_actor}] * (compute.num_actors or 1)


def _check_memory(weights_bytes: int, nodes: Sequence[Node]) -> None:
    largest = max(nodes, key=lambda node: node.memory)
    if weights_bytes > largest.memory:
        raise UsageError(
            f"an actor fits on no node: the network alone takes {weights_bytes / 2**30:.2g} GiB of "
            f"memory, the largest node ({largest.host}) has {largest.memory / 2**30:.2g} GiB; "
            "start a node with more memory, or choose a smaller <model.source>"
        )


def _on_gpus(
    compute: ComputeSpec, gpus: float, nodes: Sequence[Node], store_bytes: float
) -> Allocation:
    cpus = sum(node.cpus for node in nodes)
    actors = _actors_on(gpus, compute)
    share = _gpu_share(gpus, actors)
    _check_gpus(share, actors, nodes)
    actor_cpus = min(1.0, cpus / (2 * actors), *_cpus_beside_gpus(share, actors, nodes))
    actor_cpus = math.floor(1000 * actor_cpus) / 1000
    decode_cpus, decode_tasks = _decoders(cpus - actors * actor_cpus, _with_cpus(nodes))
    return Allocation(
        num_actors=actors,
        actor_cpus=actor_cpus,
        actor_gpus=share,
        actor_threads=1,
        decode_cpus=decode_cpus,
        decode_tasks=decode_tasks,
        write_tasks=WRITERS * _with_cpus(nodes),
        store_bytes=store_bytes,
        batch_size=GPU_BATCH if compute.batch_size == "auto" else compute.batch_size,
    )


def _actors_on(gpus: float, compute: ComputeSpec) -> int:
    return compute.num_actors or max(int(gpus), 1)


def _gpu_share(gpus: float, actors: int) -> float:
    """What Ray can place: whole GPUs, or a fraction, cut to Ray's four decimals."""
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


def _check_gpus(share: float, actors: int, nodes: Sequence[Node]) -> None:
    fitting = sum(_fitting_gpus(share, node) for node in nodes)
    if actors <= fitting:
        return
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


def _cpus_beside_gpus(share: float, actors: int, nodes: Sequence[Node]) -> list[float]:
    """What an actor may take of the CPUs of each node with GPUs: at most half of them together."""
    held = ((node.cpus, min(_fitting_gpus(share, node), actors)) for node in nodes)
    return [cpus / (2 * number) for cpus, number in held if number]


def _on_cpus(compute: ComputeSpec, nodes: Sequence[Node], store_bytes: float) -> Allocation:
    threads = compute.num_cpus_per_actor
    actor_cpus = _actor_share(threads, nodes)
    actors = _actors_of_cpus(compute, nodes)
    free = sum(node.cpus for node in nodes) - actors * actor_cpus
    decode_cpus, decode_tasks = _decoders(free, _with_cpus(nodes))
    crowd, left = _crowded(actor_cpus, nodes)
    if len(nodes) > 1 and crowd <= actors:
        decode_cpus = min(decode_cpus, math.floor(1000 * (left - _WRITERS_SHARE)) / 1000)
    return Allocation(
        num_actors=actors,
        actor_cpus=actor_cpus,
        actor_gpus=0.0,
        actor_threads=threads,
        decode_cpus=decode_cpus,
        decode_tasks=decode_tasks,
        write_tasks=WRITERS * _with_cpus(nodes),
        store_bytes=store_bytes,
        batch_size=CPU_BATCH if compute.batch_size == "auto" else compute.batch_size,
    )


def _actors_of_cpus(compute: ComputeSpec, nodes: Sequence[Node]) -> int:
    """How many are asked for, or fit; an actor lies on one node."""
    threads = compute.num_cpus_per_actor
    fitting = sum(int(node.cpus // threads) for node in nodes)
    actors = compute.num_actors or fitting
    if not fitting:
        largest = max(nodes, key=lambda node: node.cpus)
        raise UsageError(
            f"an actor of {threads} CPUs fits on no node: the largest ({largest.host}) has "
            f"{largest.cpus:g}; lower <compute.num_cpus_per_actor>"
        )
    if actors > fitting:
        raise UsageError(
            f"{actors} actors of {threads} CPUs do not fit on the nodes, which hold {fitting} of "
            "them; lower <compute.num_actors> or <compute.num_cpus_per_actor>"
        )
    return actors


def _crowded(actor_cpus: float, nodes: Sequence[Node]) -> tuple[int, float]:
    """How many actors the largest node holds, and the CPUs left beside them: those of a lost node
    start anew there, where what it had decoded must be decoded again."""
    cpus = max(node.cpus for node in nodes)
    return (actors := int(cpus / actor_cpus + 1e-6)), cpus - actors * actor_cpus


def _actor_share(threads: int, nodes: Sequence[Node]) -> float:
    """CPUs of an actor; a little more where a crowd of them would leave nothing."""
    share = ACTOR_SHARE * threads
    crowd, left = _crowded(share, nodes)
    is_full = len(nodes) > 1 and left < _WRITERS_SHARE + _LEAST_DECODE_CPUS
    return share + _LEAST_DECODE_CPUS / crowd if is_full else share


def _with_cpus(nodes: Sequence[Node]) -> int:
    """A head node is often given no CPUs, so that it only manages the cluster."""
    return sum(node.cpus > 0 for node in nodes)


def _decoders(free: float, nodes: int) -> tuple[float, int]:
    """CPUs of a decode task, and how many such tasks fit at a time.

    At least two on a node that has the mean of what is left (so that some node can hold them),
    and one for every CPU; the writers' share comes off theirs.
    """
    of_node = free / nodes
    tasks = max(int(of_node + 0.01), 2)
    cpus = math.floor(1000 * (of_node - _WRITERS_SHARE) / tasks) / 1000
    return min(cpus, 1.0), nodes * tasks
