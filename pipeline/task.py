"""A planned run: compute what is left, balance the books, close."""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa
import ray

from pipeline.cluster import Allocation, ray_session
from pipeline.decode import DecodeSettings
from pipeline.graph import execute
from pipeline.history import History
from pipeline.item import ReadOptions
from pipeline.model import LoadedModel
from pipeline.plan import Plan
from pipeline.progress import Progress, Reporter
from pipeline.publish import CLASSES_FILE, Tally, balance, close, merge
from pipeline.report import render
from pipeline.retrospect import Retrospect
from pipeline.reuse import Contents
from pipeline.spec import InputSpec, RunSpec
from pipeline.staging import Committed, Deferred, OpenRun
from pipeline.storage import WorkerEnvironment, join_uri, split_uri
from pipeline.write import PartSink

THUMBNAILS = 48
VANISHED_LISTED = 10_000
_PACKAGES = ("cvt-batch", "ray", "torch", "pyarrow", "pillow", "numpy", "fsspec", "s3fs")

log = logging.getLogger(__name__)


@dataclass
class Clock:
    """Wall seconds of the phases of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


@dataclass
class Task:
    """A planned run: compute what is left, then close."""

    spec: RunSpec
    model: LoadedModel
    history: History
    open_run: OpenRun
    plan: Plan
    deferred: Deferred = field(default_factory=Deferred)
    totals: dict[str, float] = field(default_factory=dict)
    """What the workers reported."""

    def execute(self, stop_at: float | None, *, debug: bool) -> None:
        """Compute; the open run owns the new parts afterwards."""
        with ray_session(self.spec.compute, debug=debug) as allocation:
            blocks = list(self.plan.blocks(self.spec.compute.block_size))
            if not self.plan.counts.shards:  # a shard is one block of work and many of images
                actors = min(allocation.num_actors, len(blocks))
                allocation = replace(allocation, num_actors=actors)
            log.info("%s", allocation.describe())
            expected = None if self.plan.counts.shards else self.plan.num_images
            with Progress(expected, done=self.plan.counts.finished) as progress:
                committed = self._stream(blocks, allocation, stop_at, progress.reporter)
                self.totals = progress.totals()
            self.open_run.parts += committed.parts
            self.deferred = committed.deferred

    def _stream(
        self,
        blocks: list[pa.Table],
        allocation: Allocation,
        stop_at: float | None,
        reporter: Reporter,
    ) -> Committed:
        environment = WorkerEnvironment.capture()
        compute, inputs = self.spec.compute, self.spec.inputs
        decode = DecodeSettings(
            processor=self.model.bundle.processor,
            mode=self.spec.model.decode,
            environment=environment,
            max_pixels=inputs.max_pixels,
            max_bytes=inputs.max_bytes,
            read=ReadOptions.of(inputs, self.model.kept),
            block_size=compute.block_size,
            stop_at=stop_at,
            known_contents=ray.put(self.contents.index()) if self._reuses_content else None,
            thumbnail_rate=THUMBNAILS / _guess_images(self.plan),
            reporter=reporter,
        )
        infer = self.model.infer_settings(
            on_gpu=allocation.on_gpu, threads=allocation.actor_threads, reporter=reporter
        )
        sink = PartSink(self.open_run, _rows_per_part(self.plan), environment)
        return execute(blocks, decode, ray.put(self.model.bundle), infer, sink, allocation)

    @property
    def contents(self) -> Contents:
        return Contents(self.history, self.model.identity)

    @property
    def _reuses_content(self) -> bool:
        return self.spec.policy.reuse_content and not self.open_run.record["full"]

    def close(self, clock: Clock) -> dict[str, Any]:
        """Balance the books and publish; the manifest."""
        run_id, provenance = self.open_run.run_id, self.model.provenance
        metadata = {
            "cvt.run_id": run_id,
            "cvt.model": provenance.model,
            "cvt.weights_sha256": provenance.weights_sha256,
            "cvt.fingerprint": provenance.fingerprint,
        }
        rows_per_file = self.spec.output.rows_per_file
        retrospect = Retrospect.of(
            self.history.runs if self.open_run.parts else (),
            self.model.identity,
            self.spec.output.review,
        )
        tally = merge(self.open_run, metadata, rows_per_file, self.contents.fill, retrospect.add)
        manifest = self._manifest(tally, clock)
        beside = retrospect.close(manifest)
        thumbnails = [shot for part in self.open_run.parts for shot in part.footer.thumbnails]
        page = render(manifest, tally.failure_examples, thumbnails[:THUMBNAILS], beside)
        if tally.labels:
            beside |= {CLASSES_FILE: self.model.classes}
        close(self.open_run, manifest, page, beside)
        return manifest

    def _manifest(self, tally: Tally, clock: Clock) -> dict[str, Any]:
        record = self.open_run.record
        policy = replace(self.spec.policy, full=record["full"])
        vanished = self.history.names(self.plan.ledger.vanished(), _roots(self.spec.inputs))
        return {
            "run_id": self.open_run.run_id,
            "started": record["started"],
            "finished": utc_now(),
            "attempts": record["attempts"],
            "counts": balance(self.plan, self.open_run, tally, self.deferred),
            "deferred": {"images": self.deferred.images, "shards": len(self.deferred.shards)},
            "failures": dict(tally.failures.most_common()),
            "labels": dict(tally.labels.most_common()),
            "plan": self.plan.counts.to_dict() | {"vanished": len(vanished)},
            "vanished": vanished[:VANISHED_LISTED],
            "files": tally.files,
            "model": self.model.provenance.to_dict(),
            "identity": self.model.identity,
            "spec": replace(self.spec, policy=policy).to_dict(),
            "timings": clock.seconds | {f"stage_{k}": round(v, 3) for k, v in self.totals.items()},
            "versions": versions(),
        }


def _roots(inputs: InputSpec) -> list[str]:
    """What every uri under an INPUT starts with."""
    return [join_uri(*split_uri(uri)).split("*")[0].split("?")[0] for uri in inputs.uris]


def _guess_images(plan: Plan) -> int:
    """Images to do, a shard counting as a thousand: only for choices that need no exact number."""
    return plan.num_images + 1000 * plan.counts.shards


def _rows_per_part(plan: Plan) -> int:
    """Small enough that a crash costs little, large enough that a run has at most some thousand
    parts: a two-hundredth of the run, between 256 and 16,384 rows."""
    return min(max(_guess_images(plan) // 200, 256), 16_384)


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
