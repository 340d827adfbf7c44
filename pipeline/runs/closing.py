"""How every run ends: its parts are merged, its rows counted and checked, and it is published.

    parts ──merge──► files, a tally ──balance──► counts ──► manifest ──► report ──► publish
                       └── watched on the way, compared with earlier runs ──┘

Used by a run, by a relabelling, and by the runs that tests make up. A run that was killed while
closing is closed again from its parts or, if the manifest was written, only published.
"""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.errors import RunError
from pipeline.contract.manifest import Counts, DeferredCounts, Manifest, Timings
from pipeline.contract.provenance import Identity, Provenance
from pipeline.monitoring.comparison import Comparison, Retrospect
from pipeline.monitoring.model.shadow import ShadowModel
from pipeline.monitoring.report import THUMBNAILS, render
from pipeline.monitoring.review.page import review_page
from pipeline.output.corrections.overview import Overview
from pipeline.output.ledger.history import History
from pipeline.output.merging.merge import HERE, merge
from pipeline.output.merging.tally import Tally
from pipeline.output.merging.tasks import Tasks
from pipeline.output.open_run import OpenRun
from pipeline.output.publish import publish, seal
from pipeline.storage.read_ahead import together
from pipeline.storage.store import Store

_PACKAGES = (
    "cvt-batch", "ray", "torch", "torchvision", "openvino", "pillow", "pillow-heif",
    "pillow-jxl-plugin", "simplejpeg", "numpy", "pyarrow", "fsspec", "s3fs",
)  # fmt: skip

log = logging.getLogger(__name__)

VANISHED_LISTED = 10_000
"""The most names of vanished images in a manifest."""


@dataclass
class Clock:
    """Wall seconds of the phases of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the body; times with the same name add up."""
        started = time.perf_counter()
        yield
        total = self.seconds.get(name, 0.0) + time.perf_counter() - started
        self.seconds[name] = round(total, 3)


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a run says of itself when it closes; everything else is in its rows."""

    expected: int
    """How many rows it must have."""
    skipped: int
    """Rows of earlier runs that remain valid."""
    model: Provenance
    identity: Identity
    classes: Sequence[str]
    """Names by ``label_id``."""
    spec: Mapping[str, Any]
    model_before: str | None = None
    """The model of the last run, if that was another one."""
    arithmetic: str | None = None
    """What the run computed in, and why."""
    actors: Mapping[str, int] | None = None
    """How many computed."""
    timings: Timings = field(default_factory=Timings)
    """Of the phases before the closing."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    """What there was to do, for people to read."""
    deferred: DeferredCounts = field(default_factory=DeferredCounts)
    vanished: pa.Table | None = None
    """Rows of images that are no longer there."""
    source_runs: tuple[str, ...] | None = None
    compacted: tuple[Manifest, ...] | None = None
    review: int = 0
    """How many images of each kind to list for a person."""
    shadow: ShadowModel | None = None
    """A second model whose labels the parts have, beside the rows."""
    rows_per_file: int | None = None
    """None for files of a size that suits scans."""
    complete: Callable[[pa.Table], pa.Table] = lambda table: table
    """Fills in what was left for the end; it leaves the rows in their order."""


def close_run(
    run: OpenRun,
    earlier: Sequence[Manifest],
    account: Account,
    tasks: Tasks = HERE,
    known: History | None = None,
) -> Manifest:
    """Close a run whose rows are committed.

    Args:
        earlier: the live runs that it joins, newest first.
        tasks: where its files are merged.
        known: the runs of the output, if they have been read since the lease was taken.

    Raises:
        RunError: a row is missing or repeated; the run stays open.
    """
    retrospect = Retrospect.of(
        earlier if run.parts else (), account.identity, account.review, account.shadow
    )
    metadata = _file_metadata(run, account.model)
    merged = partial(
        merge,
        run,
        metadata,
        account.rows_per_file,
        account.complete,
        retrospect.rows,
        account.vanished,
        tasks,
    )
    tally, said = together(merged, partial(_said, run.store))
    counts = balance(run, tally, account.expected, account.skipped)
    comparison = retrospect.conclude(tally)
    manifest = _manifest(run, account, tally, counts, comparison)
    page = render(manifest, tally.failure_examples, _thumbnails(run), comparison.tables, said)
    classes = {layout.CLASSES: account.classes} if tally.labels else {}
    review = _review(manifest, comparison, account)
    sealed = seal(run, manifest, page, comparison.tables | classes | review)
    return publish(run, tasks.map, known, sealed)


def _said(store: Store) -> Overview:
    """What people said of the output's images by now, when its merge begins; a damaged file of
    theirs fails no run."""
    said = Overview.of_output(store)
    for damage in said.damaged:
        log.warning("left out of the report: %s", damage)
    return said


def balance(run: OpenRun, tally: Tally, expected: int, skipped: int) -> Counts:
    """Check that there are exactly the rows expected, and count: listed = ok + failed + skipped.

    What the deadline left to the next run is not counted, as if it were not listed.

    Raises:
        RunError: a row is missing or repeated; the run stays open.
    """
    if tally.rows != expected or tally.repeated:
        raise RunError(
            f"the books of run {run.run_id} do not balance: {expected} rows expected, "
            f"{tally.rows} found, {tally.repeated} of them repeated; the run stays open, "
            "start the same command again"
        )
    return Counts(expected + skipped, tally.ok, tally.failed, skipped)


def _review(manifest: Manifest, comparison: Comparison, account: Account) -> dict[str, str]:
    """The page of the review queue, if there is one, by its name."""
    queue = comparison.tables.get(layout.REVIEW)
    if queue is None:
        return {}
    return {layout.REVIEW_PAGE: review_page(manifest, queue, account.classes)}


def _manifest(
    run: OpenRun, account: Account, tally: Tally, counts: Counts, comparison: Comparison
) -> Manifest:
    return Manifest(
        run_id=run.run_id,
        started=run.record.started,
        finished=utc_now(),
        attempts=run.record.attempts,
        counts=counts,
        deferred=account.deferred,
        failures=dict(tally.failures.most_common()),
        labels=dict(tally.labels.most_common()),
        plan=account.plan,
        vanished=_names(account.vanished),
        files=tuple(tally.files),
        model=account.model,
        model_before=account.model_before,
        identity=account.identity,
        arithmetic=account.arithmetic,
        actors=account.actors,
        source_runs=account.source_runs,
        compacted=account.compacted,
        spec=account.spec,
        timings=account.timings,
        versions=versions(),
        summary=comparison.summary,
        drift=comparison.drift,
        shadow=comparison.shadow,
    )


def _names(vanished: pa.Table | None) -> tuple[str, ...] | None:
    return None if vanished is None else tuple(vanished["uri"][:VANISHED_LISTED].to_pylist())


def _file_metadata(run: OpenRun, model: Provenance) -> dict[str, str]:
    """What every published file records about its origin."""
    return {
        "cvt.run_id": run.run_id,
        "cvt.model": model.model,
        "cvt.weights_sha256": model.weights_sha256,
        "cvt.fingerprint": model.fingerprint,
    }


def _thumbnails(run: OpenRun) -> list[dict[str, Any]]:
    shots = [shot.to_dict() for part in run.parts for shot in part.footer.thumbnails]
    return shots[:THUMBNAILS]


def utc_now() -> str:
    """Now, as manifests write it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def versions() -> dict[str, str]:
    """Versions of everything that the numbers depend on."""
    found = {"python": platform.python_version(), "platform": sys.platform}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # running from a checkout that was not installed
            found[package] = "not installed"
    return found
