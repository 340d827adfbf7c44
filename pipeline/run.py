"""A run from start to end: list, subtract what is done, compute the rest, close, publish."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from ray.exceptions import RayError

from pipeline.errors import ExitCode, RunError, one_line
from pipeline.forecast import Forecast
from pipeline.history import History, check_open_run
from pipeline.inventory import STORAGE_ERRORS, inventory
from pipeline.lease import Lease
from pipeline.ledger import Ledger
from pipeline.model import LoadedModel
from pipeline.plan import Plan, make_plan
from pipeline.publish import is_closed, publish
from pipeline.retrospect import alarms
from pipeline.spec import RunSpec
from pipeline.staging import OpenRun
from pipeline.storage import Store, join_uri, split_uri
from pipeline.task import Clock, Task, utc_now

_ANSI = re.compile(r"\x1b\[[0-9;]*m")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """A closed run, as its caller needs it."""

    store: Store
    manifest: dict[str, Any]
    max_failure_rate: float
    fail_on_drift: bool = False

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
        return ExitCode.TOO_MANY_FAILURES if self.complaint else ExitCode.OK

    @property
    def complaint(self) -> str | None:
        """Why a run that closed still counts as a failure, in one line."""
        if self.failure_rate > self.max_failure_rate:
            return (
                f"{self.failure_rate:.1%} of the images failed, more than --max-failure-rate "
                f"{self.max_failure_rate:.1%}; the failed rows of the table name the reasons"
            )
        if self.fail_on_drift and self.alarms:
            return f"the run differs from earlier ones ({'; '.join(self.alarms)}); see its report"
        return None

    @property
    def alarms(self) -> list[str]:
        """What differs from earlier runs by more than its threshold, a line for each."""
        return alarms(self.manifest)

    @property
    def data_uri(self) -> str:
        return self.store.locate(f"data/run={self.run_id}")

    @property
    def report_uri(self) -> str:
        return self.store.locate(f"runs/{self.run_id}/report.html")


def run(spec: RunSpec, *, debug: bool = False) -> RunResult:
    """Do everything that ``spec`` asks for and that is not done yet.

    Raises:
        UsageError: nothing was computed; the message says what to change.
        RunError: the run stays open; the same call continues it.
    """
    clock = Clock()
    stop_at = spec.policy.stop_at(time.time())
    store = Store(join_uri(*split_uri(spec.output.uri)))
    with clock.phase("model"):
        model = LoadedModel.load(spec)
    with clock.phase("list"):  # before anything is written: a wrong INPUT leaves nothing behind
        listing = list(inventory(spec.inputs, exclude=store.uri, kept=model.kept))
    with Lease(store) as lease, _run_errors():
        with clock.phase("plan"):
            task = _take_up(spec, store, model, listing)
        log.info("plan: %s", describe(task.plan))
        if not task.plan.is_empty:
            with clock.phase("execute"):
                task.execute(stop_at, debug=debug)
        lease.check()
        with clock.phase("close"):
            manifest = task.close(clock)
    return RunResult(store, manifest, spec.policy.max_failure_rate, spec.policy.fail_on_drift)


def forecast(spec: RunSpec) -> Forecast:
    """What ``run`` would do now. Reads no image and writes nothing.

    Raises:
        UsageError: as ``run`` does.
    """
    store = Store(join_uri(*split_uri(spec.output.uri)))
    model = LoadedModel.load(spec)
    identity = model.identity
    listing = inventory(spec.inputs, exclude=store.uri, kept=model.kept)
    open_run = OpenRun.find(store) or OpenRun(store, "", {"full": False})
    history = _history(spec, store, identity)
    full = spec.policy.full or open_run.record["full"]
    return Forecast.of(_plan(spec, listing, history, open_run, full=full), history)


def _take_up(spec: RunSpec, store: Store, model: LoadedModel, listing: Iterable[pa.Table]) -> Task:
    """Find out what is done, in closed runs and in the open one, and what is left."""
    open_run = _reopen(spec, store, model.identity)
    history = _history(spec, store, model.identity)
    open_run = open_run or _begin(spec, store, model.identity)
    plan = _plan(spec, listing, history, open_run, full=open_run.record["full"])
    open_run.drop_stale(plan.staged)
    return Task(spec, model, history, open_run, plan)


def _history(spec: RunSpec, store: Store, identity: dict[str, Any]) -> History:
    """The closed runs, if this one may stand beside them."""
    history = History.load(store)
    if not (spec.policy.full or spec.policy.allow_mixed):
        history.check(identity)
    return history


def _plan(
    spec: RunSpec,
    listing: Iterable[pa.Table],
    history: History,
    open_run: OpenRun,
    *,
    full: bool,
) -> Plan:
    ledger = Ledger.from_tables([]) if full else history.ledger()
    return make_plan(listing, ledger, open_run, frozenset(spec.policy.retry_failed))


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
        "started": utc_now(),
        "attempts": 1,
        "full": spec.policy.full,
        "identity": identity,
        "inputs": _inputs(spec),
    }
    return OpenRun.begin(store, record)


def _inputs(spec: RunSpec) -> dict[str, Any]:
    """What of the INPUT an unfinished run must agree on; JSON types, as they are read back."""
    inputs = spec.inputs
    return {
        "uris": list(inputs.uris),
        "format": inputs.format,
        "extensions": list(inputs.extensions),
        "uri_column": inputs.uri_column,
        "image_column": inputs.image_column,
    }


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
    return f"{found or 'nothing listed'}{shards}"


@contextmanager
def _run_errors() -> Iterator[None]:
    """What stops a run that has begun, as one line that says that it can be continued."""
    try:
        yield
    except (RayError, *STORAGE_ERRORS) as error:
        raise RunError(
            f"the run stopped: {_cause(error)}; start the same command again to continue it"
        ) from error


def _cause(error: Exception) -> str:
    """What went wrong in a worker, without the way that it took through Ray."""
    inner = getattr(error, "cause", None)
    if inner is not None:
        return one_line(inner)
    lines = [line for line in _ANSI.sub("", str(error)).splitlines() if line.strip()]
    # Ray carries a worker's traceback as text; its last line is the exception.
    return one_line(lines[-1] if "creation task" in lines[0] else lines[0]) if lines else ""
