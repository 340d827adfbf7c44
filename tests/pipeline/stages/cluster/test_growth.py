"""Asking an autoscaler for nodes: only where one can start some, and never for longer than said."""

import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.autoscaler.v2.schema import ClusterStatus, LaunchRequest, NodeInfo

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ComputeSpec
from pipeline.stages.cluster import growth as module
from pipeline.stages.cluster.growth import awaited, nodes, release, wait_for_room

Requests = list[list[dict[str, float]]]
HEAD = {
    "NodeID": "h",
    "Alive": True,
    "NodeManagerAddress": "head",
    "Resources": {"memory": 2.0**30},
}


def worker(**resources: float) -> dict[str, Any]:
    return HEAD | {"NodeManagerAddress": "worker", "Resources": resources}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "is_autoscaler_v2", lambda: False)
    yield
    module._asked.clear()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Its nodes."""
    present: list[dict[str, Any]] = [HEAD]
    monkeypatch.setattr(ray, "nodes", lambda: present)
    return present


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    """What the autoscaler was asked for."""
    made: Requests = []
    monkeypatch.setattr(module, "request_resources", lambda bundles: made.append(bundles))
    return made


def tells(monkeypatch: pytest.MonkeyPatch, report: dict[str, Any] | None) -> None:
    """The autoscaler's status; None if there is none."""
    status = None if report is None else json.dumps({"autoscaler_report": report}).encode()
    monkeypatch.setattr(module, "_internal_kv_get", lambda key: status)


GROWING = {"active_nodes": {}, "node_type_mapping": {"fff0": "headgroup"}}
WATCHING = {"active_nodes": {"node_ab": 1}, "node_type_mapping": {"ab": "node_ab"}}


@pytest.mark.parametrize("report", [None, {}, WATCHING])
def test_nodes_that_nobody_starts_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
    cluster: list[dict[str, Any]],
    requests: Requests,
    report: dict[str, Any] | None,
) -> None:
    tells(monkeypatch, report)
    with pytest.raises(UsageError, match=r"^the cluster has no CPUs to compute on; start a node"):
        wait_for_room(ComputeSpec())
    assert not requests


def test_nodes_that_come(
    monkeypatch: pytest.MonkeyPatch,
    cluster: list[dict[str, Any]],
    requests: Requests,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def ask(bundles: list[dict[str, float]]) -> None:
        requests.append(bundles)
        cluster.extend(worker(CPU=4) for _ in bundles)

    monkeypatch.setattr(module, "request_resources", ask)
    tells(monkeypatch, GROWING)
    caplog.set_level(logging.INFO)
    wait_for_room(ComputeSpec(num_actors=2, num_cpus_per_actor=4))
    assert requests == [[{"CPU": 4}, {"CPU": 4}]]
    assert [line.message for line in caplog.records] == [
        "asked the cluster's autoscaler for 2 x 4 CPU; waiting up to 600 s for its nodes "
        "(<compute.wait_for_nodes>)"
    ]
    release()
    release()
    assert requests[1:] == [[]]


@pytest.mark.parametrize("is_v2", [False, True])
def test_nodes_that_do_not_come(
    monkeypatch: pytest.MonkeyPatch, cluster: list[dict[str, Any]], requests: Requests, is_v2: bool
) -> None:
    tells(monkeypatch, None if is_v2 else GROWING)
    monkeypatch.setattr(module, "is_autoscaler_v2", lambda: is_v2)
    cluster.append(worker(CPU=4))
    expected = r"within 0\.1 s \(compute\.wait_for_nodes\): .* 2 is more than the 0"
    with pytest.raises(UsageError, match=expected):
        wait_for_room(ComputeSpec(num_gpus=2, wait_for_nodes=0.1))
    assert requests == [[{"GPU": 1, "CPU": 1}] * 2, []]  # once, and taken back


def test_nobody_is_asked_for_what_is_there(
    monkeypatch: pytest.MonkeyPatch, cluster: list[dict[str, Any]], requests: Requests
) -> None:
    tells(monkeypatch, GROWING)
    cluster.append(worker(CPU=4))
    wait_for_room(ComputeSpec())
    release()
    assert not requests


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (None, 0),
        (GROWING, 0),
        ({"pending_launches": {"a": 2}, "pending_nodes": [["ip", "a", "waiting"]]}, 3),
    ],
)
def test_nodes_that_are_being_started(
    monkeypatch: pytest.MonkeyPatch, report: dict[str, Any] | None, expected: int
) -> None:
    tells(monkeypatch, report)
    assert awaited() == expected


def test_nodes_that_the_newer_autoscaler_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    status = ClusterStatus(
        pending_launches=[LaunchRequest("", "gpus", 2, LaunchRequest.Status.PENDING, 0)],
        pending_nodes=[NodeInfo("", "", "gpus", "i", "1.2.3.4")],
    )
    monkeypatch.setattr(module, "is_autoscaler_v2", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="a:1"))
    monkeypatch.setattr(module, "get_cluster_status", lambda address: status)
    assert awaited() == 3


def test_what_nodes_have(cluster: list[dict[str, Any]]) -> None:
    cluster.append(worker(CPU=4, GPU=2, memory=8) | {"Alive": False})
    cluster.append(worker(CPU=4, GPU=2, memory=8))
    assert [(n.cpus, n.gpus, n.memory, n.host) for n in nodes()] == [
        (0, 0, 2**30, "head"),
        (4, 2, 8, "worker"),
    ]
