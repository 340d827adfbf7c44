"""Closing a run: the books must balance, then the manifest and the report are made."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from pipeline.output.merge import Tally, books
from pipeline.output.open_run import Deferred, OpenRun
from pipeline.plan.diff import Plan

VANISHED_LISTED = 10_000
_PACKAGES = (
    "cvt-batch", "ray", "torch", "openvino", "pillow", "simplejpeg", "numpy", "pyarrow", "fsspec",
    "s3fs",
)  # fmt: skip


def balance(
    plan: Plan,
    run: OpenRun,
    tally: Tally,
    deferred: Deferred = Deferred(),  # noqa: B008  # frozen
) -> dict[str, int]:
    """The books: listed = ok + failed + skipped, and as many rows as the plan expects.

    What the deadline left to the next run stands in no column of the books, as if not listed.

    Raises:
        RunError: a row is missing or stands twice; the run stays open.
    """
    expected = plan.expected_rows(run.closed_shards(), deferred)
    return books(run, tally, expected, skipped=plan.counts.unchanged)


@dataclass
class Clock:
    """Wall seconds of the phases of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the body; what comes again under a name is added to it."""
        started = time.perf_counter()
        yield
        total = self.seconds.get(name, 0.0) + time.perf_counter() - started
        self.seconds[name] = round(total, 3)


def utc_now() -> str:
    """Now, as manifests write it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def versions() -> dict[str, str]:
    """Of everything that the numbers depend on."""
    found = {"python": platform.python_version(), "platform": sys.platform}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # running from a checkout that was not installed
            found[package] = "not installed"
    return found
