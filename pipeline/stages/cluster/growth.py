"""The nodes of a cluster: what they have, and more of them, where an autoscaler can start some."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.exceptions import RayError
from ray.experimental.internal_kv import _internal_kv_get

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ComputeSpec
from pipeline.stages.allocation import allocate, bundles
from pipeline.stages.nodes import Node
from pipeline.stages.watching.reach import is_left_out

POLL_SECONDS = 1.0
_NOT_STARTED_BY_IT = "node_"
"""How the types of nodes begin that an autoscaler without a configuration makes up."""

_asked = threading.Event()
"""Whether the autoscaler was asked and keeps what it started until it is told otherwise."""
log = logging.getLogger(__name__)


def nodes() -> list[Node]:
    """What the living nodes have, but for those that were left out."""
    return [
        Node(
            cpus=node["Resources"].get("CPU", 0),
            gpus=node["Resources"].get("GPU", 0),
            memory=node["Resources"].get("memory", 0),
            host=node["NodeManagerAddress"],
        )
        for node in ray.nodes()
        if node["Alive"] and not is_left_out(node["NodeID"])
    ]


def wait_for_room(compute: ComputeSpec) -> None:
    """Return when the nodes have what the run asks for. If they do not, ask the autoscaler for it,
    if there is one, and wait as long as ``compute`` says; ``release`` takes the request back.

    Raises:
        UsageError: the run asks for more than there is.
    """
    try:
        _wait(compute)
    except BaseException:
        release()
        raise


def _wait(compute: ComputeSpec) -> None:
    give_up = time.monotonic() + compute.wait_for_nodes
    while (missing := _missing(compute)) is not None:
        if not can_grow():
            raise missing
        if time.monotonic() >= give_up:
            raise UsageError(
                f"the cluster started no nodes that suffice within {compute.wait_for_nodes:g} s "
                f"(<compute.wait_for_nodes>): {missing.args[0]}"
            )
        if not _asked.is_set():
            _ask(compute)
        time.sleep(POLL_SECONDS)


def _missing(compute: ComputeSpec) -> UsageError | None:
    try:
        allocate(compute, nodes())
    except UsageError as error:
        return error
    return None


def _ask(compute: ComputeSpec) -> None:
    wanted = bundles(compute)
    each = " and ".join(f"{amount:g} {name}" for name, amount in wanted[0].items())
    log.info(
        "asked the cluster's autoscaler for %d x %s; waiting up to %.0f s for its nodes "
        "(<compute.wait_for_nodes>)",
        *(len(wanted), each, compute.wait_for_nodes),
    )
    _asked.set()
    request_resources(bundles=wanted)


def release() -> None:
    """Let the autoscaler stop nodes again; what runs on them keeps them."""
    if _asked.is_set():
        request_resources(bundles=[])
        _asked.clear()


def can_grow() -> bool:
    """Whether an autoscaler can start nodes; every head runs one, which mostly only watches."""
    if is_autoscaler_v2():
        return True
    report = _report()
    types = {*report.get("active_nodes", {}), *report.get("node_type_mapping", {}).values()}
    return any(not name.startswith(_NOT_STARTED_BY_IT) for name in types)


def awaited() -> int:
    """How many nodes the autoscaler is starting; 0 if it does not say."""
    try:
        if is_autoscaler_v2():
            status = get_cluster_status(ray.get_runtime_context().gcs_address)
            return sum(one.count for one in status.pending_launches) + len(status.pending_nodes)
        report = _report()
    except RayError:
        return 0
    launched: dict[str, int] = report.get("pending_launches", {})
    return sum(launched.values()) + len(report.get("pending_nodes", ()))


def _report() -> dict[str, Any]:
    """What the autoscaler last said of its nodes."""
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or b"{}")
    report: dict[str, Any] = status.get("autoscaler_report", {})
    return report
