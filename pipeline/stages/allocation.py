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

A pool whose size changes (``--num-actors 1:8``) finds room for its least size at the start. The
shares are those of its largest, so that there is room whatever it grows to: on the nodes that are
there, as many as fit on them; if the cluster can grow, on nodes like them, however many there come.
Ray Data starts no actor for which there are no CPUs, or GPUs, in the cluster as it is.

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
from dataclasses import dataclass, replace

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ComputeSpec
from pipeline.stages.nodes import (
    Node,
    check_memory,
    cpus_beside_gpus,
    crowded,
    fitting_on_cpus,
    fitting_on_gpus,
    gpu_share,
    with_cpus,
)

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
    """The most there may be."""
    least_actors: int
    """With which the pool begins."""
    growth: int = 1
    """How many times as large the cluster may become while it runs."""
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

    def limited(self, actors: int) -> Allocation:
        """With no more than so many actors."""
        fewer = min(self.num_actors, actors)
        return replace(self, num_actors=fewer, least_actors=min(self.least_actors, fewer))

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
        least = "" if self.least_actors == self.num_actors else f"{self.least_actors} to "
        actors = f"{least}{self.num_actors} actor{'s' if self.num_actors > 1 else ''}"
        if self.on_gpu:
            return f"{actors} with {self.actor_gpus:g} GPU each, batches of {self.batch_size}"
        return (
            f"{actors} with {self.actor_threads} CPU thread"
            f"{'s' if self.actor_threads > 1 else ''} each, batches of {self.batch_size}"
        )


def allocate(
    compute: ComputeSpec,
    nodes: Sequence[Node],
    *,
    store_bytes: float = SMALLEST_STORE_BYTES,
    weights_bytes: int = 0,
    can_grow: bool = False,
) -> Allocation:
    """Divide the CPUs and GPUs of a cluster's nodes between model actors and decode tasks.

    Args:
        compute: what the run asks for.
        store_bytes: of the object stores of the whole cluster.
        weights_bytes: of the network, the least that an actor holds in memory.
        can_grow: whether there may come more nodes while it runs.

    Raises:
        UsageError: the run asks for more than there is, or for actors that fit on no node.
    """
    cpus = sum(node.cpus for node in nodes)
    gpus = sum(node.gpus for node in nodes)
    if not cpus:
        raise UsageError("the cluster has no CPUs to compute on; start a node that has some")
    check_memory(weights_bytes, nodes)
    wanted = gpus if compute.num_gpus is None else compute.num_gpus
    if not wanted:
        return _on_cpus(compute, nodes, store_bytes, can_grow)
    if wanted > gpus and not compute.is_elastic:
        raise UsageError(f"<compute.num_gpus> {wanted:g} is more than the {gpus:g} of the cluster")
    return _on_gpus(compute, wanted, nodes, store_bytes, can_grow)


def bundles(compute: ComputeSpec) -> list[dict[str, float]]:
    """What the actors of a run need to begin, each for itself, in Ray's names; of a run that takes
    what there is, what its first actor needs."""
    if compute.num_gpus:
        least, share = _gpus_of(compute.num_gpus, compute)
        return [{"GPU": share, "CPU": 1}] * least
    least = compute.actors.least if compute.actors else 1
    return [{"CPU": compute.num_cpus_per_actor}] * least


def _on_gpus(
    compute: ComputeSpec, gpus: float, nodes: Sequence[Node], store_bytes: float, can_grow: bool
) -> Allocation:
    cpus = sum(node.cpus for node in nodes)
    least, share = _gpus_of(gpus, compute)
    fitting = fitting_on_gpus(share, least, nodes)
    most = _most(compute, least, None if can_grow else fitting)
    if compute.num_gpus is not None:
        most = max(least, min(most, int(gpus / share)))
    actors = min(most, fitting)
    actor_cpus = min(1.0, cpus / (2 * actors), *cpus_beside_gpus(share, actors, nodes))
    actor_cpus = math.floor(1000 * actor_cpus) / 1000
    decode_cpus, decode_tasks = _decoders(cpus - actors * actor_cpus, with_cpus(nodes))
    return Allocation(
        num_actors=most,
        least_actors=least,
        growth=math.ceil(most / actors),
        actor_cpus=actor_cpus,
        actor_gpus=share,
        actor_threads=1,
        decode_cpus=decode_cpus,
        decode_tasks=decode_tasks,
        write_tasks=WRITERS * with_cpus(nodes),
        store_bytes=store_bytes,
        batch_size=GPU_BATCH if compute.batch_size == "auto" else compute.batch_size,
    )


def _gpus_of(gpus: float, compute: ComputeSpec) -> tuple[int, float]:
    """How many actors there are on so many GPUs, and the share of each. Those that may become more
    have a GPU each, or less, so that others find one."""
    if compute.actors is None:
        actors = max(int(gpus), 1)
        return actors, gpu_share(gpus, actors)
    share = gpu_share(gpus, compute.actors.least)
    return compute.actors.least, min(share, 1.0) if compute.is_elastic else share


def _most(compute: ComputeSpec, least: int, room: int | None) -> int:
    """How many actors a pool may have that begins with ``least``; in a cluster that can grow there
    is room for any number, None."""
    if not compute.is_elastic or compute.actors is None:
        return least
    return compute.actors.most if room is None else min(compute.actors.most, room)


def _on_cpus(
    compute: ComputeSpec, nodes: Sequence[Node], store_bytes: float, can_grow: bool
) -> Allocation:
    threads, asked = compute.num_cpus_per_actor, compute.actors
    fitting = fitting_on_cpus(threads, asked.least if asked else None, nodes)
    least = asked.least if asked else fitting
    most = _most(compute, least, None if can_grow else fitting)
    actors = min(most, fitting)
    many = len(nodes) > 1 or most > fitting
    actor_cpus = _actor_share(threads, nodes, many)
    free = sum(node.cpus for node in nodes) - actors * actor_cpus
    decode_cpus, decode_tasks = _decoders(free, with_cpus(nodes))
    crowd, left = crowded(actor_cpus, nodes)
    if many and crowd <= most:
        decode_cpus = min(decode_cpus, math.floor(1000 * (left - _WRITERS_SHARE)) / 1000)
    return Allocation(
        num_actors=most,
        least_actors=least,
        growth=math.ceil(most / actors),
        actor_cpus=actor_cpus,
        actor_gpus=0.0,
        actor_threads=threads,
        decode_cpus=decode_cpus,
        decode_tasks=decode_tasks,
        write_tasks=WRITERS * with_cpus(nodes),
        store_bytes=store_bytes,
        batch_size=CPU_BATCH if compute.batch_size == "auto" else compute.batch_size,
    )


def _actor_share(threads: int, nodes: Sequence[Node], many: bool) -> float:
    """CPUs of an actor; a little more where a crowd of them would leave nothing."""
    share = ACTOR_SHARE * threads
    crowd, left = crowded(share, nodes)
    is_full = many and left < _WRITERS_SHARE + _LEAST_DECODE_CPUS
    return share + _LEAST_DECODE_CPUS / crowd if is_full else share


def _decoders(free: float, nodes: int) -> tuple[float, int]:
    """CPUs of a decode task, and how many such tasks fit at a time.

    At least two on a node that has the mean of what is left (so that some node can hold them),
    and one for every CPU; the writers' share comes off theirs.
    """
    of_node = free / nodes
    tasks = max(int(of_node + 0.01), 2)
    cpus = math.floor(1000 * (of_node - _WRITERS_SHARE) / tasks) / 1000
    return min(cpus, 1.0), nodes * tasks
