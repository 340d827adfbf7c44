"""Ray: joined or started, quiet, and left as it was found."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import ray
import ray.data  # configures the loggers that _quiet adjusts
import torch
from ray._common.utils import get_system_memory
from ray._private.log import PlainRayHandler

from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.contract.spec import ComputeSpec
from pipeline.stages.allocation import (
    SMALLEST_STORE_BYTES,
    Allocation,
    allocate,
    object_store_bytes,
)

IDLE_WORKER_MS = 600_000
SHARED_MEMORY = "/dev/shm"
START_TRIES = 3
_START_TIMEOUT = "timed out during startup"

log = logging.getLogger(__name__)


@contextmanager
def ray_session(compute: ComputeSpec, *, debug: bool = False) -> Iterator[Allocation]:
    """Join the cluster named by RAY_ADDRESS (a submitted job has it), or start Ray locally.

    A session that is already connected is used and left as it is.
    """
    started = not ray.is_initialized()
    if started:
        _connect(debug, on_gpus=compute.num_gpus != 0 and torch.cuda.is_available())
    try:
        resources: dict[str, float] = ray.cluster_resources()
        yield allocate(
            compute,
            cpus=resources.get("CPU", 0),
            gpus=resources.get("GPU", 0),
            nodes=_nodes_with_cpus(),
            store_bytes=resources.get("object_store_memory", SMALLEST_STORE_BYTES),
        )
    finally:
        if started:
            ray.shutdown()


def _nodes_with_cpus() -> int:
    """A head is often given none, so that it only keeps the cluster's books."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    return max(len(nodes), 1)


def _connect(debug: bool, *, on_gpus: bool) -> None:
    address = os.environ.get("RAY_ADDRESS")
    level = logging.INFO if debug else logging.ERROR
    _quiet(level)
    options: dict[str, Any] = {"logging_level": level, "log_to_driver": debug}
    if not address:  # then a Ray of our own, not one that happens to run on this machine
        # Ray ends workers that were idle for a second, and has to start others soon after.
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(IDLE_WORKER_MS))
        store = _object_store_bytes() if on_gpus else SMALLEST_STORE_BYTES
        options |= {"include_dashboard": False, "object_store_memory": store}
    try:
        with _our_sigterm(), nullcontext() if debug else _muted():
            start_ray(address or "local", options)
    except (ConnectionError, ValueError) as error:
        raise UsageError(f"cannot reach Ray at {address or 'local'}: {one_line(error)}") from error


def _object_store_bytes() -> int:
    memory: int = get_system_memory()  # of the container, if this is one
    shared = shutil.disk_usage(SHARED_MEMORY).free if os.path.isdir(SHARED_MEMORY) else memory
    return object_store_bytes(os.cpu_count() or 1, memory, shared)


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
