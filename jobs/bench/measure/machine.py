"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ray
import torch

from pipeline.runs.closing import versions

_MORE_PACKAGES = ("transformers", "torchvision", "openvino", "simplejpeg", "daft")


def hardware() -> dict[str, Any]:
    """This machine, as far as Linux describes it."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _first_line("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": cores(),
        "memory": _first_line("/proc/meminfo", "MemTotal"),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "gpus": gpus,
    }


def cluster() -> dict[str, float]:
    """The resources of the Ray cluster that this process is connected to."""
    known = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    return {"nodes": nodes, "cpus": known.get("CPU", 0.0), "gpus": known.get("GPU", 0.0)}


def cores() -> int:
    """CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def all_versions() -> dict[str, str]:
    """Versions of everything that affects speed; packages that are not installed are left out."""
    found = versions()
    for package in _MORE_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _first_line(path: str, key: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
