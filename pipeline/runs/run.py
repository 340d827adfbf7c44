"""A run from start to end: list, subtract what is done, compute the rest, close, publish."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.contract.errors import UsageError
from pipeline.contract.provenance import Identity
from pipeline.contract.spec import FIRST_EXTENSIONS, IMAGE_EXTENSIONS, PolicySpec, RunSpec
from pipeline.contract.urls import public
from pipeline.model.arithmetic import Kept, choose
from pipeline.model.loaded import LoadedModel, read_checkpoint
from pipeline.model.network import Checkpoint
from pipeline.model.training.published import newest
from pipeline.output import lance
from pipeline.output.lease import Lease, usable
from pipeline.output.ledger.history import History
from pipeline.output.open_run import OpenRecord, OpenRun
from pipeline.output.publish import is_closed, publish
from pipeline.plan.diff import Plan
from pipeline.plan.forecast import Forecast
from pipeline.plan.waves import waves
from pipeline.runs.closing import Clock, utc_now
from pipeline.runs.computing.challenger import Challenge
from pipeline.runs.computing.committed_rows import CommittedRows
from pipeline.runs.computing.execution import Chosen, PlannedRun, identity_of, tasks_for
from pipeline.runs.computing.known_rows import known_rows, replaced_rows
from pipeline.runs.computing.listing import begun, listed
from pipeline.runs.computing.version import closed_advice, say_version
from pipeline.runs.endings import continued, run_errors, saved
from pipeline.runs.result import RunResult
from pipeline.sources.exclusion import Exclusion
from pipeline.sources.formats.registry import shard_names
from pipeline.sources.kept_columns import kept_columns
from pipeline.stages.cluster.places import check_decoder, check_gpus, places
from pipeline.stages.cluster.ray_session import check_address, ray_as_found
from pipeline.storage.objects.listing.stretches import Helpers
from pipeline.storage.store import Store
from pipeline.storage.uris import canonical

log = logging.getLogger(__name__)


@ray_as_found()
def run(spec: RunSpec, *, chosen: Chosen | None = None, debug: bool = False) -> RunResult:
    """Do everything that ``spec`` asks for and that is not done yet.

    Raises:
        UsageError: nothing was computed; the message says what to change.
        RunError: the run stays open; the same call continues it.
    """
    stop_at = spec.policy.stop_at(time.time())
    return continued(partial(_attempt, spec, stop_at, chosen or Chosen(), debug=debug))


def _attempt(spec: RunSpec, stop_at: float | None, chosen: Chosen, *, debug: bool) -> RunResult:
    clock = Clock()
    spec = replace(spec, model=newest(spec.model))
    check_address()
    store = Store(canonical(spec.output.uri))
    lance.check(spec.output.sink, store)
    check_gpus(spec.compute)
    with clock.phase("model"):
        checkpoint = read_checkpoint(spec)
        challenge = Challenge.read(spec, checkpoint)
        check_decoder(spec, debug=debug)
    with clock.phase("list"):
        kept = kept_columns(spec.inputs)
    exclusion = Exclusion(spec.inputs.exclude)
    found = chosen.listing

    def listing(helpers: Helpers) -> Iterator[pa.Table]:
        return iter(found) if found else listed(spec, store.uri, kept, exclusion, helpers)

    with ExitStack() as stack:
        with clock.phase("list"):  # before anything is written: a wrong INPUT leaves nothing behind
            ahead = stack.enter_context(begun(listing, spec.compute, debug=debug))
        with Lease(store) as lease, run_errors(), saved(store):
            interrupted = _finish_publication(spec, store)
            with clock.phase("plan"):
                planned = _take_up(spec, store, checkpoint, kept, exclusion, debug=debug)
                planned.challenger = challenge.beside(planned.model) if challenge else None
                planned.pictures = chosen.pictures
                drop = CommittedRows(spec.compute, debug, lease.check).drop
                work = waves(ahead, planned.plan, planned.open_run, drop)
                first = next(work)
            if not first.is_empty:
                with clock.phase("execute"):
                    planned.execute(first, work, stop_at, debug=debug)
            lease.check()
            merging = partial(tasks_for, output=store.uri, debug=debug)
            with clock.phase("close"), merging(planned.rows, spec.compute) as tasks:
                manifest = planned.close(clock, tasks)
            lance.update(spec.output.sink, store)
    return RunResult(store, manifest, spec.policy, interrupted)


@ray_as_found()
def forecast(spec: RunSpec) -> Forecast:
    """What ``run`` would do now. Reads no image and writes nothing.

    Raises:
        UsageError: as ``run`` does.
        RunError: the output cannot be read at the moment.
    """
    spec = replace(spec, model=newest(spec.model))
    store = Store(canonical(spec.output.uri))
    lance.check(spec.output.sink, store)
    check_gpus(spec.compute)
    checkpoint = read_checkpoint(spec)
    challenge = Challenge.read(spec, checkpoint)
    check_decoder(spec)
    kept = kept_columns(spec.inputs)
    with usable(store):
        found, history = _found(store)
    model = _model(spec, checkpoint, found, history)
    open_run = found or OpenRun(store)
    identity = identity_of(model, kept)
    say_version(spec.model.source, identity, history)
    _check(spec, history, identity, open_run)
    exclusion = Exclusion(spec.inputs.exclude)
    full = spec.policy.full or open_run.record.full
    plan = _plan(spec, history, open_run, exclusion, full=full, may_write=False)
    plan.survey(listed(spec, store.uri, kept, exclusion))
    return Forecast.of(plan, history, in_shadow=challenge is not None)


def _finish_publication(spec: RunSpec, store: Store) -> RunResult | None:
    """Publish the run that an earlier start closed, if it did not come to that. A compaction is
    also finished, or left out, for it computes nothing and nobody waits for it."""
    found = OpenRun.find(store)
    if found is None or not is_closed(found):
        if found is not None and found.record.is_copy:
            found.discard()
        return None
    result = RunResult(store, publish(found), spec.policy)
    return None if found.record.is_copy else result


def _take_up(
    spec: RunSpec,
    store: Store,
    checkpoint: Checkpoint,
    kept: pa.Schema,
    exclusion: Exclusion,
    *,
    debug: bool,
) -> PlannedRun:
    """Find out what is done, in closed runs and in the open one."""
    found, history = _found(store)
    model = _model(spec, checkpoint, found, history, debug=debug)
    identity = identity_of(model, kept)
    say_version(spec.model.source, identity, history)
    open_run = _reopen(spec, found, identity)
    _check(spec, history, identity, open_run)
    open_run = open_run or _begin(spec, history, model, identity)
    full = open_run.record.full
    plan = _plan(spec, history, open_run, exclusion, full=full, may_write=True, debug=debug)
    return PlannedRun(spec, model, kept, history, open_run, plan)


def _found(store: Store) -> tuple[OpenRun | None, History]:
    """The unfinished run, unless nothing is lost with it, and the closed ones."""
    found, history = OpenRun.find(store), History.load(store, for_rows=True)
    if found and found.record.is_copy:
        return None, history
    if found and history.runs and found.run_id < history.runs[0].run_id:
        # The listing of an object store did not show it to the run that has closed since.
        log.warning("leaving out the unfinished run %s: a later one has closed", found.run_id)
        return None, history
    return found, history


def _model(
    spec: RunSpec,
    checkpoint: Checkpoint,
    found: OpenRun | None,
    history: History,
    *,
    debug: bool = False,
) -> LoadedModel:
    """The network in the arithmetic of this run, which is also said."""
    kept = _kept(spec, checkpoint, found, history)
    arithmetic = choose(spec.model, kept, partial(places, spec.compute, debug=debug))
    if spec.model.dtype == "auto":
        log.info("<model.dtype> auto: %s", arithmetic)
    if arithmetic.warning:
        log.warning("%s", arithmetic.warning)
    return LoadedModel.of(checkpoint, spec, arithmetic)


def _kept(
    spec: RunSpec, checkpoint: Checkpoint, found: OpenRun | None, history: History
) -> Kept | None:
    """The rows that this run's will stand beside: of the run that it continues, else of the newest
    closed one, which ``--full`` replaces."""
    if found is not None and _goes_on(spec, checkpoint, found):
        return Kept(found.record.identity.dtype, f"the unfinished run {found.run_id}")
    if spec.policy.full or not history.runs:
        return None
    newest = history.runs[0]
    return Kept(newest.identity.dtype, f"the closed run {newest.run_id}")


def _goes_on(spec: RunSpec, checkpoint: Checkpoint, found: OpenRun) -> bool:
    """Whether this run continues one that has rows, or was to replace all with this network."""
    same = found.record.identity.weights_sha256 == checkpoint.weights_sha256
    is_begun = bool(found.parts) or (found.record.full and same)
    return is_begun and not spec.policy.discard_open_run


def _check(spec: RunSpec, history: History, identity: Identity, open_run: OpenRun | None) -> None:
    """Refuse to stand beside closed runs of another identity, unless asked to, now or when the run
    was begun that this one continues."""
    is_full = spec.policy.full or (open_run is not None and open_run.record.full)
    if not (is_full or spec.policy.allow_mixed):
        history.check(identity, closed_advice(spec.model.source, identity, history))


def _plan(
    spec: RunSpec,
    history: History,
    open_run: OpenRun,
    exclusion: Exclusion,
    *,
    full: bool,
    may_write: bool,
    debug: bool = False,
) -> Plan:
    names = shard_names(spec.inputs)
    load = replaced_rows if full else known_rows
    ledger = load(history, names, spec.compute, may_write=may_write, debug=debug)
    return Plan(
        ledger,
        open_run,
        frozenset(spec.policy.retry_failed),
        full=full,
        partial=spec.policy.is_partial,
        exclusion=exclusion,
        rows_of=CommittedRows(spec.compute, debug).ledger,
    )


def _reopen(spec: RunSpec, found: OpenRun | None, identity: Identity) -> OpenRun | None:
    """The run that an earlier attempt left open; one that has no row yet binds nobody."""
    if found is None:
        return None
    if spec.policy.discard_open_run:
        found.discard()
        return None
    inputs = _inputs(spec)
    began_with = found.record.inputs.get("extensions")
    if spec.inputs.extensions == IMAGE_EXTENSIONS and began_with == list(FIRST_EXTENSIONS):
        inputs["extensions"] = began_with  # the default of then; there are more by now
    try:
        found.check(identity, inputs)
    except UsageError:
        if found.parts:
            raise
        found.discard()
        return None
    log.info("continuing run %s: %d rows are done", found.run_id, found.rows)
    found.take_up(full=spec.policy.full)
    return found


def _begin(spec: RunSpec, history: History, model: LoadedModel, identity: Identity) -> OpenRun:
    record = OpenRecord(
        started=utc_now(),
        full=spec.policy.full,
        identity=identity,
        model=model.provenance.model,
        inputs=_inputs(spec),
    )
    return OpenRun.begin(history.store, record, history.run_ids)


def _inputs(spec: RunSpec) -> dict[str, Any]:
    """What of the INPUT an unfinished run must agree on; JSON types, as they are read back."""
    inputs = spec.inputs
    return {
        "uris": list(map(public, inputs.uris)),
        "format": inputs.format,
        "extensions": list(inputs.extensions),
        "uri_column": inputs.uri_column,
        "image_column": inputs.image_column,
    } | _part(spec.policy)


def _part(policy: PolicySpec) -> dict[str, Any]:
    """Nothing for a run over everything, as the records of earlier versions have it."""
    return {"limit": policy.limit, "share": policy.share} if policy.is_partial else {}
