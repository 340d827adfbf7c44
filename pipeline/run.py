"""A run from start to end: list, subtract what is done, compute the rest, close, publish."""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError

from pipeline.cluster import ray_session
from pipeline.decode import DecodeSettings
from pipeline.errors import ExitCode, RunError, one_line
from pipeline.graph import execute
from pipeline.history import History, check_open_run
from pipeline.inventory import STORAGE_ERRORS, inventory
from pipeline.lease import Lease
from pipeline.ledger import Ledger
from pipeline.model import LoadedModel
from pipeline.plan import Plan, make_plan
from pipeline.progress import Progress
from pipeline.publish import balance, close, is_closed, merge, publish
from pipeline.report import render
from pipeline.spec import RunSpec
from pipeline.staging import OpenRun
from pipeline.storage import Store, WorkerEnvironment, join_uri, split_uri
from pipeline.write import PartSink

THUMBNAILS = 48
_PACKAGES = ("cvt-batch", "ray", "torch", "pyarrow", "pillow", "numpy", "fsspec", "s3fs")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """A closed run, as its caller needs it."""

    store: Store
    manifest: dict[str, Any]
    max_failure_rate: float

    @property
    def run_id(self) -> str:
        run_id: str = self.manifest["run_id"]
        return run_id

    @property
    def counts(self) -> dict[str, int]:
        """The books: listed, ok, failed, skipped."""
        counts: dict[str, int] = self.manifest["counts"]
        return counts

    @property
    def failure_rate(self) -> float:
        """Share of the images computed in this run that failed."""
        return self.counts["failed"] / max(self.counts["ok"] + self.counts["failed"], 1)

    @property
    def exit_code(self) -> ExitCode:
        too_many = self.failure_rate > self.max_failure_rate
        return ExitCode.TOO_MANY_FAILURES if too_many else ExitCode.OK

    @property
    def data_uri(self) -> str:
        return self.store.locate(f"data/run={self.run_id}")

    @property
    def report_uri(self) -> str:
        return self.store.locate(f"runs/{self.run_id}/report.html")


@dataclass
class Clock:
    """Wall seconds of the phases of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


def run(spec: RunSpec, *, debug: bool = False) -> RunResult:
    """Do everything that ``spec`` asks for and that is not done yet.

    Raises:
        UsageError: nothing was computed; the message says what to change.
        RunError: the run stays open; the same call continues it.
    """
    clock = Clock()
    store = Store(join_uri(*split_uri(spec.output.uri)))
    with clock.phase("model"):
        model = LoadedModel.load(spec)
    with clock.phase("list"):  # before anything is written: a wrong INPUT leaves nothing behind
        listing = list(inventory(spec.inputs, exclude=store.uri))
    totals: dict[str, float] = {}
    with Lease(store) as lease, _run_errors():
        with clock.phase("plan"):
            open_run, plan = _plan(spec, store, model.identity, listing)
        if not plan.is_empty:
            with clock.phase("execute"):
                totals = _execute(spec, model, open_run, plan, debug=debug)
        lease.check()
        with clock.phase("close"):
            manifest = _close(spec, model, open_run, plan, clock, totals)
    return RunResult(store, manifest, spec.policy.max_failure_rate)


def _plan(
    spec: RunSpec, store: Store, identity: dict[str, Any], listing: Iterable[pa.Table]
) -> tuple[OpenRun, Plan]:
    """Find out what is done, in closed runs and in the open one, and what is left."""
    open_run = _reopen(spec, store, identity)
    history = History.load(store)
    if not (spec.policy.full or spec.policy.allow_mixed):
        history.check(identity)
    open_run = open_run or _begin(spec, store, identity)
    ledger = Ledger.from_tables([]) if open_run.record["full"] else history.ledger()
    plan = make_plan(listing, ledger, open_run, frozenset(spec.policy.retry_failed))
    log.info("%s", describe(plan))
    return open_run, plan


def _reopen(spec: RunSpec, store: Store, identity: dict[str, Any]) -> OpenRun | None:
    """The run that an earlier attempt left open; one that only wants moving is moved."""
    found = OpenRun.find(store)
    if found is None:
        return None
    if is_closed(found):
        publish(found)
        return None
    if spec.policy.discard_open_run:
        found.discard()
        return None
    check_open_run(found, identity, _inputs(spec))
    log.info("continuing run %s: %d rows are done", found.run_id, sum(p.rows for p in found.parts))
    found.record["attempts"] += 1
    found.record["full"] |= spec.policy.full
    found.save()
    return found


def _begin(spec: RunSpec, store: Store, identity: dict[str, Any]) -> OpenRun:
    record = {
        "started": _now(),
        "attempts": 1,
        "full": spec.policy.full,
        "identity": identity,
        "inputs": _inputs(spec),
    }
    return OpenRun.begin(store, record)


def _inputs(spec: RunSpec) -> dict[str, Any]:
    """What of the INPUT an unfinished run must agree on; JSON types, as they are read back."""
    return {"uris": list(spec.inputs.uris), "format": spec.inputs.format}


def describe(plan: Plan) -> str:
    """The plan in one line."""
    counts = plan.counts
    known = {
        "new": counts.new,
        "changed": counts.changed,
        "tried again": counts.retried,
        "unchanged": counts.unchanged,
        "finished before the interruption": counts.finished,
        "vanished": counts.vanished,
    }
    shards = f" ({counts.shards} of them shards)" if counts.shards else ""
    found = ", ".join(f"{number} {name}" for name, number in known.items() if number)
    return f"plan: {found or 'nothing listed'}{shards}"


def _execute(
    spec: RunSpec, model: LoadedModel, open_run: OpenRun, plan: Plan, *, debug: bool
) -> dict[str, float]:
    """Compute what is left; the open run owns the new parts afterwards."""
    with ray_session(spec.compute, debug=debug) as allocation:
        blocks = list(plan.blocks(spec.compute.block_size))
        if not plan.counts.shards:  # a shard is one block of work and many of images
            actors = min(allocation.num_actors, len(blocks))
            allocation = replace(allocation, num_actors=actors)
        log.info("%s", allocation.describe())
        expected = None if plan.counts.shards else plan.num_images
        with Progress(expected, done=plan.counts.finished) as progress:
            environment = WorkerEnvironment.capture()
            decode = DecodeSettings(
                processor=model.bundle.processor,
                environment=environment,
                max_pixels=spec.inputs.max_pixels,
                max_bytes=spec.inputs.max_bytes,
                block_size=spec.compute.block_size,
                thumbnail_rate=THUMBNAILS / _guess_images(plan),
                reporter=progress.reporter,
            )
            infer = model.infer_settings(
                on_gpu=allocation.on_gpu,
                threads=allocation.actor_threads,
                reporter=progress.reporter,
            )
            sink = PartSink(open_run, _rows_per_part(plan), environment)
            bundle = ray.put(model.bundle)
            open_run.parts += execute(blocks, decode, bundle, infer, sink, allocation)
            return progress.totals()


def _guess_images(plan: Plan) -> int:
    """Images to do, a shard counting as a thousand: only for choices that need no exact number."""
    return plan.num_images + 1000 * plan.counts.shards


def _rows_per_part(plan: Plan) -> int:
    """Small enough that a crash costs little, large enough that a run has at most some thousand
    parts: a two-hundredth of the run, between 256 and 16,384 rows."""
    return min(max(_guess_images(plan) // 200, 256), 16_384)


def _close(
    spec: RunSpec,
    model: LoadedModel,
    open_run: OpenRun,
    plan: Plan,
    clock: Clock,
    totals: dict[str, float],
) -> dict[str, Any]:
    """Balance the books and publish; the manifest."""
    metadata = {
        "cvt.run_id": open_run.run_id,
        "cvt.model": spec.model.source,
        "cvt.weights_sha256": model.provenance.weights_sha256,
        "cvt.fingerprint": model.provenance.fingerprint,
    }
    tally = merge(open_run, metadata, spec.output.rows_per_file)
    manifest = {
        "run_id": open_run.run_id,
        "started": open_run.record["started"],
        "finished": _now(),
        "attempts": open_run.record["attempts"],
        "counts": balance(plan, open_run, tally),
        "failures": dict(tally.failures.most_common()),
        "labels": dict(tally.labels.most_common()),
        "plan": plan.counts.to_dict(),
        "files": tally.files,
        "model": model.provenance.to_dict(),
        "identity": model.identity,
        "spec": _with_mode(spec, full=open_run.record["full"]).to_dict(),
        "timings": clock.seconds | {f"stage_{k}": round(v, 3) for k, v in totals.items()},
        "versions": _versions(),
    }
    thumbnails = [shot for part in open_run.parts for shot in part.footer.thumbnails]
    page = render(manifest, tally.failure_examples, thumbnails[:THUMBNAILS])
    close(open_run, manifest, page)
    return manifest


def _with_mode(spec: RunSpec, *, full: bool) -> RunSpec:
    """An attempt that continues a ``--full`` run is part of one, whatever its own flags."""
    return replace(spec, policy=replace(spec.policy, full=full))


@contextmanager
def _run_errors() -> Iterator[None]:
    """What stops a run that has begun, as one line that says that it can be continued."""
    try:
        yield
    except (RayError, *STORAGE_ERRORS) as error:
        cause = one_line(getattr(error, "cause", None) or error)
        raise RunError(
            f"the run stopped: {cause}; start the same command again to continue it"
        ) from error


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": sys.platform}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # running from a checkout that was not installed
            versions[package] = "not installed"
    return versions
