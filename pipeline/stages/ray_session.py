"""Ray: where it runs, and how the stages share what it has.

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

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray
import ray.data  # configures the loggers that _quiet adjusts
from ray._private.log import PlainRayHandler

from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.contract.spec import ComputeSpec

ACTOR_SHARE = 0.9
WRITERS_SHARE = 0.02
LOCAL_OBJECT_STORE_BYTES = 2**30
IDLE_WORKER_MS = 600_000
START_TRIES = 3
_START_TIMEOUT = "timed out during startup"

log = logging.getLogger(__name__)


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
        raise UsageError(f"--num-gpus {wanted:g} asks for more than the {gpus:g} of the cluster")
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
        batch_size=compute.batch_size or 64,
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
            "lower --num-actors or --num-cpus-per-actor"
        )
    decode_cpus, decode_tasks = _decoders(cpus - actors * actor_cpus, nodes)
    return Allocation(
        num_actors=actors,
        actor_cpus=actor_cpus,
        actor_gpus=0.0,
        actor_threads=threads,
        decode_cpus=decode_cpus,
        decode_tasks=decode_tasks,
        batch_size=compute.batch_size or 8,
    )


def _decoders(free: float, nodes: int) -> tuple[float, int]:
    """CPUs of a decode task, and how many such tasks find room at a time.

    At least two on a node with the mean of what is left (so that there is one that carries them),
    of one CPU each where there is room.
    """
    cpus = round(min(1.0, (free / nodes - WRITERS_SHARE) / 2), 3)
    return cpus, nodes * int((free / nodes - WRITERS_SHARE) / cpus + 0.01)


@contextmanager
def ray_session(compute: ComputeSpec, *, debug: bool = False) -> Iterator[Allocation]:
    """Join the cluster named by RAY_ADDRESS (a submitted job has it), or start Ray locally.

    A session that is already connected is used and left as it is.
    """
    started = not ray.is_initialized()
    if started:
        _connect(debug)
    try:
        resources: dict[str, float] = ray.cluster_resources()
        yield allocate(
            compute,
            cpus=resources.get("CPU", 0),
            gpus=resources.get("GPU", 0),
            nodes=_nodes_with_cpus(),
        )
    finally:
        if started:
            ray.shutdown()


def _nodes_with_cpus() -> int:
    """A head is often given none, so that it only keeps the cluster's books."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    return max(len(nodes), 1)


def _connect(debug: bool) -> None:
    address = os.environ.get("RAY_ADDRESS")
    level = logging.INFO if debug else logging.ERROR
    _quiet(level)
    options: dict[str, Any] = {"logging_level": level, "log_to_driver": debug}
    if not address:  # then a Ray of our own, not one that happens to run on this machine
        # Ray ends workers that were idle for a second, and has to start others soon after.
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(IDLE_WORKER_MS))
        options |= {"include_dashboard": False, "object_store_memory": LOCAL_OBJECT_STORE_BYTES}
    try:
        with _our_sigterm(), nullcontext() if debug else _muted():
            start_ray(address or "local", options)
    except (ConnectionError, ValueError) as error:
        raise UsageError(f"cannot reach Ray at {address or 'local'}: {one_line(error)}") from error


def start_ray(address: str, options: dict[str, Any]) -> None:
    """A Ray of our own has 30 seconds to come up, which on a machine with much else to do is
    little: Ray takes no other limit, but another try.

    Raises:
        RunError: no try was enough.
    """
    for _ in range(START_TRIES):
        try:
            ray.init(address=address, **options)
            return
        except Exception as error:
            if _START_TIMEOUT not in str(error):
                raise
            ray.shutdown()
    raise RunError(
        f"Ray did not start in {START_TRIES} tries, the machine is too busy; start the same "
        "command again when it is less so"
    )


def _quiet(level: int) -> None:
    """Ray tells much that only its developers need; its files under /tmp/ray keep all of it.
    Its errors come as exceptions, too, and those become our one line."""
    logging.getLogger("ray").setLevel(level)
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, PlainRayHandler):
            handler.setLevel(level if level < logging.ERROR else logging.CRITICAL)
    if level >= logging.ERROR:
        # Or Ray's C++ side warns of every actor that may be restarted.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")


@contextmanager
def _our_sigterm() -> Iterator[None]:
    """Ray puts a handler of its own in the place of the caller's; it ends the process by abort."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _muted() -> Iterator[None]:
    """Nothing of this process reaches stderr: Ray's C++ side announces the log level it was given.
    What goes wrong is raised all the same."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
