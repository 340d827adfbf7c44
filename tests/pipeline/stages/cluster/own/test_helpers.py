"""Processes that a run on one machine does without."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import ray

from pipeline.contract.spec import ComputeSpec
from pipeline.stages.cluster import ray_session as cluster
from pipeline.stages.cluster.own import helpers
from pipeline.stages.cluster.own.helpers import without_actors, without_helpers

Node: Any = import_module("ray._private.node").Node
raylet: Any = import_module("ray._raylet")
services: Any = import_module("ray._private.services")
utils: Any = import_module("ray._private.utils")
WORKER = str(Path(services.RAY_PATH, services.RAY_PRIVATE_DIR, "workers", "default_worker.py"))
STARTERS = ("start_api_server", "start_log_monitor", "start_monitor")


def starters() -> dict[str, Any]:
    others = {"process": services.start_ray_process, "error": utils.get_dashboard_dependency_error}
    return {name: getattr(Node, name) for name in STARTERS} | others


def test_the_next_ray_has_them_again() -> None:
    before = starters()

    def fail() -> None:
        with without_helpers():
            assert not any(starters()[name] is before[name] for name in before)
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


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of the processes that Ray would start."""
    commands: list[list[str]] = []
    monkeypatch.setattr(services, "start_ray_process", lambda it, kind, **how: commands.append(it))
    return commands


@pytest.mark.parametrize("has_environments", [False, True])
def test_agents_are_idle_unless_they_are_needed(
    monkeypatch: pytest.MonkeyPatch,
    started: list[list[str]],
    tmp_path: Path,
    has_environments: bool,
) -> None:
    if has_environments:
        monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "tests.support.commands.unknown")
        monkeypatch.setattr(
            "ray._private.worker.load_class", lambda name: lambda env: {"env_vars": {"A": "1"}}
        )
    kept = ["raylet", "--head", f"--session_dir={tmp_path}", "--node_id=ab"]
    agents = ["--dashboard_agent_command=python a.py --x=1", "--runtime_env_agent_command=python b"]
    workers = [f"--python_worker_command=python setup.py {WORKER} --port=1"]
    workers += ["--num_prestart_python_workers=2"]
    agents += workers
    with without_helpers():
        services.start_ray_process([*kept, *agents], "raylet", fate_share=True)
        services.start_ray_process(["gcs_server", *agents], "gcs_server", fate_share=True)
    assert started[1] == ["gcs_server", *agents]
    assert started[0][:4] == kept
    assert ["getppid" in word for word in started[0][4:6]] == [
        has_environments,
        not has_environments,
    ]
    if has_environments:
        assert started[0][6:] == workers
    else:
        nursery = re.escape(started[0][4].split("nursery.py ")[1].split()[0])
        launched = rf"setup\.py -I -S \S+launcher\.py {nursery} {re.escape(WORKER)} --port=1"
        assert re.search(launched, started[0][6])
        assert started[0][7] == "--num_prestart_python_workers=0"
    ports = 3 if has_environments else 4
    assert [file.read_text() for file in tmp_path.iterdir()] == ["-1"] * ports


def test_an_idle_agent_that_starts_after_the_end_of_raylet_ends() -> None:
    gone = {"RAY_RAYLET_PID": str(os.getpid() + 1)}
    command = [sys.executable, "-I", "-S", "-c", helpers._SLEEP]
    subprocess.run(command, env=os.environ | gone, check=True, timeout=300)


def test_another_ray_starts_what_it_starts(
    monkeypatch: pytest.MonkeyPatch, started: list[list[str]]
) -> None:
    monkeypatch.setattr(ray, "__version__", "2.61.0")
    before = services.start_ray_process, utils.get_dashboard_dependency_error, stats_actor()
    with without_helpers(), without_actors():
        now = services.start_ray_process, utils.get_dashboard_dependency_error, stats_actor()
        assert now == before


def stats_actor() -> Any:
    return import_module("ray.data._internal.stats").get_or_create_stats_actor


@pytest.mark.parametrize("debug", [False, True])
def test_ray_data_has_its_actors_where_somebody_could_ask_them(
    monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    before = stats_actor()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for name in ("join", "release", "allocate", "nodes"):
        monkeypatch.setattr(cluster, name, lambda *_, **__: None)
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr(ray, "nodes", list)
    monkeypatch.setattr(ray, "put", lambda value: value)
    with cluster.ray_session(ComputeSpec(), debug=debug):
        assert (stats_actor() == before) is debug
    assert stats_actor() == before
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    with cluster.ray_session(ComputeSpec()):
        assert stats_actor() == before
