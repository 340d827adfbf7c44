"""Starting Ray."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from pipeline.contract.errors import RunError, UsageError
from pipeline.contract.spec import ComputeSpec
from pipeline.stages.allocation import SMALLEST_STORE_BYTES
from pipeline.stages.cluster import ray_session as cluster
from pipeline.stages.cluster.own.object_store import object_store_bytes
from tests.support.commands import REPOSITORY


class TestStart:
    """A busy machine, on which Ray gives up after 30 seconds."""

    @pytest.fixture
    def failures(self, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
        """What the next calls of ray.init raise."""
        waiting: list[Exception] = []

        def init(**options: object) -> None:
            if waiting:
                raise waiting.pop(0)

        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        return waiting

    def timeout(self) -> Exception:
        return Exception("The current node timed out during startup. This could happen because")

    def test_is_tried_again(self, failures: list[Exception]) -> None:
        failures += [self.timeout(), self.timeout()]
        cluster.start_ray("local", {})
        assert not failures

    def test_ends_in_one_line(self, failures: list[Exception]) -> None:
        failures += [self.timeout() for _ in range(9)]
        with pytest.raises(RunError, match=r"3 tries because the machine is too busy; start"):
            cluster.start_ray("local", {})

    def test_other_errors_are_not_tried_again(self, failures: list[Exception]) -> None:
        failures += [ValueError("no such address"), self.timeout()]
        with pytest.raises(ValueError, match="no such address"):
            cluster.start_ray("local", {})
        assert len(failures) == 1


@pytest.mark.parametrize(
    ("has_gpu", "wanted", "is_large"),
    [(True, None, True), (True, 1, True), (True, 0, False), (False, None, False)],
)
def test_a_run_on_gpus_gets_a_store_in_which_all_cores_can_decode(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, wanted: float | None, is_large: bool
) -> None:
    memory = 128 * 2**30
    started: dict[str, Any] = {}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(cluster, "get_system_memory", lambda: memory)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=memory))
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: started.update(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    resources = {"CPU": 16, "GPU": 1, "object_store_memory": 3e9}
    node = {"NodeID": "a", "Alive": True, "NodeManagerAddress": "here", "Resources": resources}
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    with cluster.ray_session(ComputeSpec(num_gpus=wanted)) as allocation:
        assert allocation.store_bytes == 3e9
    large = object_store_bytes(16, memory, memory)
    assert started["object_store_memory"] == (large if is_large else SMALLEST_STORE_BYTES)


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        (
            "local",
            OSError(30, "Read-only file system", "/tmp/ray"),
            r"^cannot start Ray on this machine: .*Read-only.*; it keeps files .* in RAY_TMPDIR",
        ),
        ("head:1", RuntimeError("Version mismatch"), "^cannot join .* head:1: Version mismatch$"),
        ("head:1", ConnectionError("refused"), "^cannot join .* at RAY_ADDRESS head:1: refused$"),
    ],
)
def test_a_ray_that_cannot_be_had_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, address: str, error: Exception, said: str
) -> None:
    def init(**options: object) -> None:
        raise error

    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(cluster, "check_cluster", lambda address: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UsageError, match=said):
        cluster.join(ComputeSpec())


@pytest.mark.parametrize(
    ("name", "value"),
    [("RAY_task_oom_retries", "10"), ("RAY_task_events_max_num_task_in_gcs", "10000")],
)
def test_no_task_is_tried_for_ever_on_a_node_without_memory_nor_all_are_remembered(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    found: list[str | None] = []
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: found.append(os.environ.get(name)))
    monkeypatch.setattr(cluster, "wait_for_room", lambda compute: None)
    with cluster.ray_as_found():
        cluster.join(ComputeSpec())
    assert found == [value]
    assert name not in os.environ


GROWTH = """
import os
import ray
from pipeline.contract.spec import ComputeSpec
from pipeline.stages.cluster import ray_session

def set_item(environ, name, value):
    if name not in environ:
        print("added", name)
    was_set(environ, name, value)

with ray_session.ray_as_found():
    was_set, type(os.environ).__setitem__ = type(os.environ).__setitem__, set_item
    with ray_session.ray_session(ComputeSpec(num_actors=1)) as allocation:
        print(allocation.num_actors)
        parent = ray.get(ray.remote(lambda: os.getppid()).remote())
        print(open(f"/proc/{parent}/cmdline").read().split("\\0")[2].rpartition("/")[2])
"""


@pytest.mark.ray
def test_the_environment_does_not_grow_once_there_may_be_threads() -> None:
    """The process crashes if another thread reads the environment in C while it does. The workers
    are forks."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONBREAKPOINT"}
    command = [sys.executable, "-c", GROWTH]
    printed = subprocess.run(command, env=env, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE)
    assert printed.stdout.split() == [b"1", b"nursery.py"]
