"""Wheels for the machine's Python, which need not be the one that runs this: pip finds them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from jobs.deploy.offline_bundle.needs import Package
from pipeline.contract.errors import RunError, one_line

PLATFORMS: Final = tuple(
    f"manylinux{tag}_x86_64" for tag in ("2014", "_2_17", "_2_24", "_2_27", "_2_28")
)
"""Wheel tags of a Linux on x86-64 with glibc 2.28 or newer."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """Where pip looks, and for which Python."""

    python_version: str
    """Such as "3.12"."""
    wheels: Path
    """A directory: what is there is not downloaded again."""
    constraint: Path | None = None
    """A constraints file of pip."""

    def resolve(self, requirements: Iterable[str]) -> dict[str, Package]:
        """Everything that the requirements need, by name.

        Raises:
            RunError: pip finds no set of versions, or no index.
        """
        bounds = [] if self.constraint is None else ["--constraint", str(self.constraint)]
        with tempfile.TemporaryDirectory() as scratch:
            report = Path(scratch, "report.json")
            flags = ["--dry-run", "--ignore-installed", "--target", scratch]
            self._pip("install", *flags, "--report", str(report), *bounds, *requirements)
            found: dict[str, Any] = json.loads(report.read_text())
        packages = [_package(entry["metadata"]) for entry in found["install"]]
        return {package.name: package for package in packages}

    def download(self, pins: Mapping[str, str]) -> list[Path]:
        """One wheel for each pair of name and version, in their order.

        Raises:
            RunError: one of them is not there for this Python.
        """
        exact = [f"{name}=={version}" for name, version in pins.items()]
        self._pip("download", "--no-deps", "--dest", str(self.wheels), *exact)
        wheels = {parse_wheel_filename(path.name)[:2]: path for path in self.wheels.glob("*.whl")}
        return [wheels[canonicalize_name(name), Version(pins[name])] for name in pins]

    def _pip(self, verb: str, *arguments: str) -> None:
        target = ["--only-binary=:all:", "--implementation=cp", f"--find-links={self.wheels}"]
        target += [f"--python-version={self.python_version}"]
        target += [f"--platform={tag}" for tag in PLATFORMS]
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", verb]
        done = subprocess.run(
            [*command, *target, *arguments], stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            raise RunError(f"pip {verb} failed: {one_line(lines[-1])}")


def _package(metadata: Mapping[str, Any]) -> Package:
    name = canonicalize_name(metadata["name"])
    return Package(name, metadata["version"], tuple(metadata.get("requires_dist", ())))
