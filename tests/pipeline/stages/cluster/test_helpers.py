"""Processes that a run on one machine does without."""

from importlib import import_module
from typing import Any

import pytest
import ray

from pipeline.contract.spec import ComputeSpec
from pipeline.stages.cluster import ray_session as cluster
from pipeline.stages.cluster.helpers import without_helpers

Node: Any = import_module("ray._private.node").Node
STARTERS = ("start_api_server", "start_log_monitor", "start_monitor")


def starters() -> dict[str, Any]:
    return {name: getattr(Node, name) for name in STARTERS}


def test_the_next_ray_has_them_again() -> None:
    before = starters()

    def fail() -> None:
        with without_helpers():
            assert not any(starters()[name] is before[name] for name in STARTERS)
            Node.start_api_server(Node.__new__(Node), include_dashboard=False)
            raise OSError("no space on the disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert starters() == before


@pytest.mark.parametrize("debug", [False, True])
def test_who_debugs_has_all_of_them(monkeypatch: pytest.MonkeyPatch, debug: bool) -> None:
    before, found = starters(), []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: found.append(starters()))
    monkeypatch.setattr(cluster, "wait_for_room", lambda compute: None)
    with cluster.ray_as_found():
        cluster.join(ComputeSpec(), debug=debug)
    assert [some == before for some in found] == [debug]
