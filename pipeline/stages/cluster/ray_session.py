"""Ray: joined or started, kept quiet, and left as it was found."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any

import ray
import torch
from ray._common.utils import get_system_memory
from ray._private.log import PlainRayHandler
from ray.exceptions import RayError

from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.contract.spec import ComputeSpec
from pipeline.contract.urls import public
from pipeline.stages.allocation import SMALLEST_STORE_BYTES, Allocation, allocate
from pipeline.stages.cluster.address import check_cluster, cluster_address
from pipeline.stages.cluster.environment import environment_as_found, use_own_token
from pipeline.stages.cluster.growth import can_grow, nodes, release, wait_for_room
from pipeline.stages.cluster.imports import OurImports, check_imports
from pipeline.stages.cluster.own.helpers import without_actors, without_helpers
from pipeline.stages.cluster.own.object_store import object_store_bytes
from pipeline.stages.watching.reach import leaving_out
from pipeline.storage.uris import printable

IDLE_WORKER_MS = 600_000
OUT_OF_MEMORY_TRIES = 10
"""Of a task that Ray ends because its node runs out of memory, about a minute in all; Ray itself
would try for ever, without a word."""
TASKS_REMEMBERED = 10_000
TRAIN_ROOM_SECONDS = 15
"""That Ray Train waits for room for its workers; it asks four times, then the driver counts what
nodes there are."""
SHARED_MEMORY = "/dev/shm"
START_TRIES = 3
_START_TIMEOUT = "timed out during startup"
_ADVICE = "; it keeps files and sockets in /tmp/ray, or in RAY_TMPDIR, whose name has to be short"
_START_ERRORS = (OSError, RuntimeError, ValueError, RayError)
"""A cluster of another version of Ray or Python, a token that is missing, a full disk, ..."""

_utils: Any = import_module("ray._private.utils")  # its types are incomplete

log = logging.getLogger(__name__)


@contextmanager
def ray_session(
    compute: ComputeSpec, *, weights_bytes: int = 0, debug: bool = False
) -> Iterator[Allocation]:
    """Join the cluster named by RAY_ADDRESS (set in submitted jobs), or start Ray locally.

    A session that is already connected is used and stays connected.

    Args:
        weights_bytes: of the network, which must fit into a node's memory.

    Raises:
        UsageError: Ray cannot be reached, or the run asks for more than the cluster has.
        RunError: Ray did not start.
    """
    with ray_as_found():
        is_ours = not on_cluster()
        join(compute, debug=debug)
        store: float = ray.cluster_resources().get("object_store_memory", SMALLEST_STORE_BYTES)
        room = allocate(
            compute,
            nodes(),
            store_bytes=store,
            weights_bytes=weights_bytes,
            can_grow=compute.is_elastic and can_grow(),
        )
        release()  # actors, which start now, keep their nodes
        with without_actors() if is_ours and not debug else nullcontext(), leaving_out():
            yield room


@contextmanager
def ray_as_found() -> Iterator[None]:
    """Whoever connects to Ray inside can leave it so: at the end all is as it was before."""
    with _logs_as_found():
        if ray.is_initialized():
            yield
            return
        with environment_as_found():
            _tell_ray()
            try:
                yield
            finally:
                if ray.is_initialized():
                    release()
                    ray.shutdown()


@contextmanager
def _logs_as_found() -> Iterator[None]:
    """At the end Ray's loggers and handlers say as much as they did before, and those of a Ray Data
    that was imported meanwhile what they say by themselves."""
    ours = logging.getLogger("ray")
    before, heard = ours.level, {console: console.level for console in _consoles()}
    try:
        yield
    finally:
        ours.setLevel(before)
        for console in _consoles():
            console.setLevel(heard.get(console, logging.INFO))


def _tell_ray() -> None:
    """Set what Ray will be told through the environment, and the variable that Ray sets itself.

    Done before there are threads: a new variable may move the whole environment, and native code
    (the network's, the resolver's) that reads it meanwhile in a thread crashes the process.
    """
    os.environ.setdefault("RAY_task_oom_retries", str(OUT_OF_MEMORY_TRIES))
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(TRAIN_ROOM_SECONDS))
    os.environ.setdefault("PYTHONBREAKPOINT", "ray.util.rpdb._driver_set_trace")
    if not log.isEnabledFor(logging.DEBUG):
        # Otherwise Ray's C++ side warns about every actor that may be restarted.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if cluster_address() is None:  # a Ray of our own, not one that happens to run on this machine
        use_own_token()
        # Ray ends workers that are idle for a second, and then has to start others.
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(IDLE_WORKER_MS))
        # Ray remembers what became of 100,000 tasks, each batch being one: hundreds of MiB.
        os.environ.setdefault("RAY_task_events_max_num_task_in_gcs", str(TASKS_REMEMBERED))


def on_cluster() -> bool:
    """Whether the run has a Ray to join, and will not start one of its own."""
    return ray.is_initialized() or cluster_address() is not None


def check_address() -> None:
    """Make sure that the Ray to join, if there is one, answers.

    Raises:
        UsageError: it does not.
    """
    address = cluster_address()
    if not ray.is_initialized() and address is not None:
        with nullcontext() if log.isEnabledFor(logging.DEBUG) else _muted():
            check_cluster(address)


def join(compute: ComputeSpec, *, debug: bool = False) -> None:
    """Connect as ``ray_session`` says, unless that is done, and wait for nodes that suffice, if an
    autoscaler can start them.

    Raises:
        UsageError: the cluster cannot be reached, or the run asks for more than it has,
            or its workers would not find our modules.
        RunError: Ray did not start.
    """
    connect(compute, debug=debug)
    wait_for_room(compute)


def connect(compute: ComputeSpec, *, debug: bool = False, environments: bool = False) -> None:
    """Connect as ``ray_session`` says, unless that is done; see ``ray_as_found``.

    Args:
        environments: whether actors will have environments of their own, as those of Ray Train do.

    Raises:
        UsageError: the cluster cannot be reached, or its workers would not find our modules.
        RunError: Ray did not start.
    """
    if ray.is_initialized():
        check_imports()
    else:
        check_address()
        on_gpus = compute.num_gpus != 0 and torch.cuda.is_available()
        _connect(debug, on_gpus=on_gpus, environments=environments)
    _quiet_data(_level(debug))


def _connect(debug: bool, *, on_gpus: bool, environments: bool) -> None:
    address = cluster_address()
    level = _level(debug)
    # Ray logs much that only its developers need; its files under /tmp/ray keep all of it. Its
    # errors also come as exceptions, and those become our one line.
    logging.getLogger("ray").setLevel(level)
    options: dict[str, Any] = {
        "logging_level": level,
        "log_to_driver": debug,
        "job_config": OurImports(elsewhere=address is not None),
    }
    if address is None:
        store = _object_store_bytes() if on_gpus else SMALLEST_STORE_BYTES
        options |= {"include_dashboard": False, "object_store_memory": store}
    try:
        with _our_sigterm(), _presentable_command(), _quietly(debug, environments):
            start_ray(address or "local", options)
    except _START_ERRORS as error:
        what, advice = "start Ray on this machine", _ADVICE
        if address is not None:
            what, advice = f"join the Ray cluster at RAY_ADDRESS {one_line(address)}", ""
        raise UsageError(f"cannot {what}: {one_line(error.__cause__ or error)}{advice}") from error


def _object_store_bytes() -> int:
    memory: int = get_system_memory()  # of the container, if this is one
    shared = shutil.disk_usage(SHARED_MEMORY).free if os.path.isdir(SHARED_MEMORY) else memory
    return object_store_bytes(os.cpu_count() or 1, memory, shared)


def start_ray(address: str, options: dict[str, Any]) -> None:
    """Start or join Ray. A local one has 30 seconds to come up, which is not always enough on a
    busy machine; Ray cannot be given more, so this tries again.

    Raises:
        RunError: it timed out in every try.
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
        f"Ray did not start in {START_TRIES} tries because the machine is too busy; start the same "
        "command again when it is less busy"
    )


def _quiet_data(level: int) -> None:
    """Ray Data tells each step of its executions on stderr, whoever has connected to Ray. It is
    imported here, and so by no run that has nothing to compute; Ray's workers come up meanwhile."""
    import_module("ray.data")
    for handler in _consoles():
        handler.setLevel(level if level < logging.ERROR else logging.CRITICAL)


def _consoles() -> list[logging.Handler]:
    handlers = logging.getLogger("ray.data").handlers
    return [handler for handler in handlers if isinstance(handler, PlainRayHandler)]


def _level(debug: bool) -> int:
    """Of Ray's own log."""
    return logging.INFO if debug else logging.ERROR


@contextmanager
def _our_sigterm() -> Iterator[None]:
    """Ray replaces the caller's handler with its own, which aborts the process; restore it."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _presentable_command() -> Iterator[None]:
    """Ray shows to whoever sees its dashboard how this process was started: without the secrets of
    URLs. And it cannot show what is not valid Unicode, such as names of files on old disks."""
    command = _utils.get_entrypoint_name
    _utils.get_entrypoint_name = lambda: printable(public(command()))
    try:
        yield
    finally:
        _utils.get_entrypoint_name = command


@contextmanager
def _quietly(debug: bool, environments: bool) -> Iterator[None]:
    """Without what only --debug shows."""
    if debug:
        yield
        return
    with without_helpers(environments=environments), _muted():
        yield


@contextmanager
def _muted() -> Iterator[None]:
    """Send stderr nowhere, because Ray's C++ side announces the log level it was given. Errors are
    still raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
