"""Where a run will compute: this machine, or the nodes of its cluster, which are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import ray
import torch
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.contract.layout import LEASE
from pipeline.contract.spec import ComputeSpec, RunSpec
from pipeline.model.arithmetic import Place, this_cpu, this_gpu
from pipeline.stages.cluster.ray_session import join, on_cluster
from pipeline.stages.infer.nvjpeg import why_not
from pipeline.storage.store import Store

T = TypeVar("T")
ANSWER_SECONDS = 300
"""For a node to start a process and answer."""


def places(compute: ComputeSpec, *, debug: bool = False) -> list[Place]:
    """The hardware of every machine that can hold an actor now: of those with GPUs, unless there
    are none or the run does without. Joins the cluster, if there is one; see ``ray_as_found``.

    Raises:
        RunError: a node does not answer.
        UsageError: the cluster cannot be reached or has nothing to compute on, or PyTorch has no
            GPU where Ray has one.
    """
    if not on_cluster():
        return [(this_gpu() if compute.num_gpus != 0 else None) or this_cpu()]
    join(compute, debug=debug)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    with_gpus = [node for node in nodes if node["Resources"].get("GPU")]
    if with_gpus and compute.num_gpus != 0:
        return _ask(with_gpus, this_gpu)
    with_cpus = [node for node in nodes if node["Resources"].get("CPU")]
    if not with_cpus:
        raise UsageError("the cluster has no CPUs to compute on; start a node that has some")
    return _ask(with_cpus, this_cpu)


def check_gpus(compute: ComputeSpec) -> None:
    """Refuse to ask for more GPUs than this machine has, if the run starts a Ray of its own.

    Raises:
        UsageError: it has fewer.
    """
    wanted, found = compute.num_gpus or 0, torch.cuda.device_count()
    if wanted > found and not on_cluster():
        raise UsageError(
            f"<compute.num_gpus> {wanted:g} is more than the {found} GPUs that PyTorch finds on "
            "this machine; leave it out to take what there is"
        )


def check_decoder(spec: RunSpec, *, debug: bool = False) -> None:
    """Refuse to decode on GPUs where a machine that can hold an actor cannot. Joins the cluster, if
    there is one.

    Raises:
        RunError: a node does not answer.
        UsageError: one cannot, or there are no GPUs; the message names it.
    """
    if spec.model.decode != "gpu":
        return
    reasons = _reasons_not_to_decode(spec.compute, debug=debug)
    if not reasons:
        raise UsageError("<model.decode> gpu needs GPUs, and this run has none; use fast")
    for host, reason in reasons.items():
        if reason is not None:
            raise UsageError(
                f"<model.decode> gpu is not possible on {host}: {reason}; install the torchvision "
                "that fits its PyTorch, or use fast"
            )


def _reasons_not_to_decode(compute: ComputeSpec, *, debug: bool) -> dict[str, str | None]:
    """By the machines that can hold an actor with a GPU, None where nothing is in the way."""
    if compute.num_gpus == 0 or not (on_cluster() or torch.cuda.is_available()):
        return {}
    if not on_cluster():
        return {"this machine": why_not()}
    join(compute, debug=debug)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    what, way_out = "say whether it decodes", ", or skip the question with <model.decode> fast"
    return dict(zip(_hosts(nodes), _answers(nodes, why_not, what, way_out), strict=True))


def check_shared(store: Store) -> None:
    """Refuse an output on a disk that a node of the cluster does not see, for what is written there
    is found by nobody else. Its lease is held, and looked for. Needs Ray to be joined.

    Raises:
        RunError: a node does not answer.
        UsageError: a node does not see it; the message names it.
    """
    if not store.is_local:
        return
    this = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if all(node["NodeID"] == this for node in nodes):
        return

    def holder() -> object:
        """Of the lease, as far as a machine can see."""
        return (store.read_json(LEASE) or {}).get("owner")

    held = holder()
    answers = _answers(nodes, holder, f"say whether it sees {store.uri}")
    for host, found in zip(_hosts(nodes), answers, strict=True):
        if found != held:
            raise UsageError(
                f"<output.uri> {store.uri} is on a disk of this machine, which {host} of the "
                "cluster does not see; name a directory that all nodes share, or a bucket"
            )


def _hosts(nodes: Sequence[dict[str, Any]]) -> list[str]:
    return [node["NodeManagerAddress"] for node in nodes]


def _ask(nodes: Sequence[dict[str, Any]], probe: Callable[[], Place | None]) -> list[Place]:
    way_out = ", or skip the question with <model.dtype> float32"
    answers = _answers(nodes, probe, "report its hardware", way_out)
    return [_named(answer, host) for answer, host in zip(answers, _hosts(nodes), strict=True)]


def _answers(
    nodes: Sequence[dict[str, Any]], probe: Callable[[], T], what: str, way_out: str = ""
) -> list[T]:
    """What the probe returns on each node.

    Args:
        what: a node fails to do, if it does not answer.
        way_out: what a user can do beside starting the command again.

    Raises:
        RunError: one does not answer.
    """
    hosts = _hosts(nodes)
    asked = [_sent(probe, node["NodeID"]) for node in nodes]
    _, late = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)
    if late:
        silent = ", ".join(host for host, ref in zip(hosts, asked, strict=True) if ref in late)
        raise RunError(
            f"{silent} did not {what} within {ANSWER_SECONDS} s; start the same command again"
            f"{way_out}"
        )
    try:
        return list(ray.get(asked))
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        raise RunError(
            f"a node could not {what}: {one_line(cause)}; start the same command again"
        ) from error


def _sent(probe: Callable[[], T], node_id: str) -> ray.ObjectRef[T]:
    """A task that reserves no GPU need not wait for one, and sees all of its node's. Its process
    ends with it, since it may hold memory of them."""
    where = NodeAffinitySchedulingStrategy(node_id, soft=True)  # elsewhere, should the node be lost
    task: Any = ray.remote(num_cpus=0, max_calls=1 if probe is this_gpu else 0)(probe)
    sent: ray.ObjectRef[T] = task.options(scheduling_strategy=where).remote()
    return sent


def _named(answer: Place | None, host: str) -> Place:
    if answer is None:
        raise UsageError(
            f"Ray sees a GPU on {host}, but PyTorch none; install PyTorch with CUDA there, or set "
            "<compute.num_gpus> to 0"
        )
    return replace(answer, host=host)
