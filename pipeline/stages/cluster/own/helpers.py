"""The processes of Ray's that a run on one machine has no use for. Each takes about a second of CPU
time to come up, beside our workers, and Ray has no option for them."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import ray

from pipeline.stages.cluster.own.forks import Nursery

_node: Any = import_module("ray._private.node").Node  # the types of all of these are incomplete
_raylet: Any = import_module("ray._raylet")
_services: Any = import_module("ray._private.services")
_utils: Any = import_module("ray._private.utils")
_worker: Any = import_module("ray._private.worker")
_TRIED = "2.60."
"""Versions of Ray for which something may stand in; others start what they start."""
_UNUSED = (
    "start_api_server",  # a dashboard without pages, which counts how Ray is used
    "start_log_monitor",  # sends to the driver what workers print, which only --debug shows
    "start_monitor",  # the autoscaler, which knows no other machine
)
_AGENTS = {
    "dashboard_agent": (
        "METRICS_AGENT_PORT_NAME",
        "METRICS_EXPORT_PORT_NAME",
        "DASHBOARD_AGENT_LISTEN_PORT_NAME",
    ),
    "runtime_env_agent": ("RUNTIME_ENV_AGENT_PORT_NAME",),
}
"""Processes without which ``raylet`` ends, and the ports that it waits for."""
_WORKERS = "python_worker_command"
_EARLY_WORKERS = "num_prestart_python_workers"
_NO_PORT = -1
"""What an agent says that does not listen."""
_SLEEP = "import os, time; raylet = int(os.environ.get('RAY_RAYLET_PID') or os.getppid()); "
_SLEEP += "any(time.sleep(2) for _ in iter(lambda: os.getppid() == raylet, False))"
_IDLE = subprocess.list2cmdline([sys.executable, "-I", "-S", "-c", _SLEEP])
"""A process that does nothing as long as the one lives that started it."""
_DATA = "ray.data._internal."


@contextmanager
def without_helpers(*, environments: bool = False) -> Iterator[None]:
    """A Ray that is started inside has no dashboard, no log monitor, no autoscaler, and no agents:
    one is idle, of the other workers are forks.

    Args:
        environments: whether actors will be given environments of their own, as by Ray Train; the
            agent that makes them then works, and no worker is a fork.
    """
    parts: list[tuple[Any, ...]] = [(_node, name, _nothing) for name in _UNUSED]
    if ray.__version__.startswith(_TRIED):
        start = _with_stand_ins(_services.start_ray_process, environments or _has_environments())
        parts.append((_services, "start_ray_process", start))
        # Ray imports all that a dashboard needs, only to see whether there could be one.
        parts.append((_utils, "get_dashboard_dependency_error", lambda: ImportError("not needed")))
    with _replaced(parts):
        yield


@contextmanager
def without_actors() -> Iterator[None]:
    """Ray Data does without its own actors inside: those that collect what a dashboard would show,
    share the nodes among drivers, and know on which node an actor is. For a Ray of our own, which
    has one driver and one node."""
    if not ray.__version__.startswith(_TRIED):
        yield
        return
    operators, utils = f"{_DATA}execution.operators", f"{_DATA}utils"
    coordinator = f"{_DATA}cluster_autoscaler.default_autoscaling_coordinator"
    tracker = "get_or_create_actor_location_tracker"
    parts = (
        (f"{_DATA}stats", "get_or_create_stats_actor", _Statistics),
        (coordinator, "get_or_create_autoscaling_coordinator", _Coordinator),
        (f"{operators}.actor_pool_map_operator", tracker, _Locations),
        (f"{utils}.cached_ray_internals", tracker, _Locations),
    )
    with _replaced([(import_module(module), *replaced) for module, *replaced in parts]):
        yield


@contextmanager
def _replaced(parts: Sequence[tuple[Any, ...]]) -> Iterator[None]:
    """Give attributes other values, each an owner, a name and the value; leave out what is not
    there."""
    found = [(*part, getattr(*part[:2])) for part in parts if hasattr(*part[:2])]
    for owner, name, value, _ in found:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, _, before in found:
            setattr(owner, name, before)


def _nothing(*_: object, **__: object) -> None:
    """In place of a function that starts a process, or tells somebody something."""


def _with_stand_ins(start: Callable[..., Any], environments: bool) -> Callable[..., Any]:
    """Ray's function that starts its processes, but for those that ``raylet`` starts."""

    def start_process(command: list[str], kind: str, *rest: Any, **options: Any) -> Any:
        changed = _changed(command, environments) if kind == "raylet" else command
        return start(changed, kind, *rest, **options)

    return start_process


def _changed(command: Sequence[str], environments: bool) -> list[str]:
    """The command of ``raylet`` with stand-ins; the ports of agents are on record before it
    starts."""
    said = dict(word[2:].split("=", 1) for word in command if word.startswith("--") and "=" in word)
    stand_ins = _stand_ins(said, environments)
    for agent, ports in _AGENTS.items():
        if f"{agent}_command" in stand_ins:
            for port in ports:
                name = getattr(_raylet, port)
                _raylet.persist_port(said["session_dir"], said["node_id"], name, _NO_PORT)
    words = {f"--{name}={said[name]}": f"--{name}={value}" for name, value in stand_ins.items()}
    return [words.get(word, word) for word in command]


def _stand_ins(said: Mapping[str, str], environments: bool) -> dict[str, str]:
    """New values of options of ``raylet``, of which ``said`` has all. Workers are forks where they
    need no environments of their own, and where there are sockets without files."""
    values = {f"{agent}_command": _IDLE for agent in _AGENTS}
    if environments:
        del values["runtime_env_agent_command"]
    elif _WORKERS in said and sys.platform == "linux":
        nursery = Nursery.new()
        values["dashboard_agent_command"] = nursery.command
        values[_WORKERS] = nursery.launching(said[_WORKERS])
        values[_EARLY_WORKERS] = "0"  # which belong to no job, and nobody needs them so early
    return {name: value for name, value in values.items() if name in said}


def _has_environments() -> bool:
    """Whether workers get environments of their own, as under ``uv run``, which an agent makes."""
    return bool(_worker._maybe_modify_runtime_env({}, False))


@dataclass(frozen=True)
class _Method:
    """In place of a method of an actor: answers in the process that asks, at once."""

    remote: Callable[..., ray.ObjectRef[Any] | None]


def _here(actors: Sequence[str]) -> ray.ObjectRef[dict[str, str]]:
    return ray.put(dict.fromkeys(actors, ray.get_runtime_context().get_node_id()))


class _Statistics:
    """In place of the actor that collects statistics for the dashboard."""

    gen_dataset_id: ClassVar = _Method(lambda: ray.put(secrets.token_hex(16)))
    register_dataset: ClassVar = _Method(_nothing)
    update_execution_metrics: ClassVar = _Method(_nothing)
    update_iteration_metrics: ClassVar = _Method(_nothing)


class _Coordinator:
    """In place of the actor that shares the nodes among drivers: this one has all."""

    def __init__(self) -> None:
        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        all_of_them = ray.put(nodes)
        self.request_resources = self.cancel_request = _Method(_nothing)
        self.get_reserved_resources = _Method(lambda requester: all_of_them)


class _Locations:
    """In place of the actor that knows where actors are: all are here. Travels to them."""

    update_actor_location: ClassVar = _Method(_nothing)
    get_actor_locations: ClassVar = _Method(_here)
