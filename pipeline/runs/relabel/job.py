"""New labels without a network: from the scores or embeddings that an output stores.

Reads the live rows of one output and publishes them, relabelled, as a run of another. Failed rows
are carried over. A second call relabels only rows that are new or have changed.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.contract.manifest import Manifest, Timings
from pipeline.contract.provenance import Identity, Provenance
from pipeline.contract.schema import CORRECTION, vanished_rows
from pipeline.contract.spec import DEFAULT_TOP_K, PolicySpec, RelabelSpec
from pipeline.model.label_columns import check_threshold_names, class_thresholds
from pipeline.monitoring.review.kept import KeptPictures
from pipeline.output import lance
from pipeline.output.corrections.collected import carry_over
from pipeline.output.identity import short_hash
from pipeline.output.lease import Lease
from pipeline.output.ledger.history import History
from pipeline.output.open_run import OpenRecord, OpenRun, Part, PartFooter
from pipeline.runs.closing import Account, Clock, close_run, utc_now
from pipeline.runs.relabel.computed import Computed
from pipeline.runs.relabel.corrected import Corrected
from pipeline.runs.relabel.linear_head import Head
from pipeline.runs.relabel.live_rows import LiveRows
from pipeline.runs.relabel.rescore import Groups, Rescorer
from pipeline.runs.relabel.source import check_embeddings, load_source, stored_classes
from pipeline.runs.relabel.unfinished import clear
from pipeline.runs.result import RunResult
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store
from pipeline.storage.uris import canonical, split_uri

FORMAT = "relabel"
"""Marks the record of an open run as that of a relabelling."""

_UNSURE = (
    "%d rows might have a different `%s` if more scores were stored; "
    "classify with a larger <output.top_k>, or store embeddings and use <relabel.head>"
)

log = logging.getLogger(__name__)


def relabel(spec: RelabelSpec) -> RunResult:
    """Relabel all that is new or changed.

    Raises:
        UsageError: nothing was written; the message says what to change.
        RunError: the run stays open; the same call does it again.
    """
    clock = Clock()
    if split_uri(spec.source) == split_uri(spec.output):
        raise UsageError("<output.uri> is the output to read; name another one for the new table")
    output = Store(canonical(spec.output))
    lance.check(spec.sink, output)
    job = _Job.prepare(spec)
    with Lease(output) as lease:
        try:
            clear(output, FORMAT)
            carry_over(job.source.store, output, spec.label_map or {})
            history = History.load(output)
            if not spec.full:
                history.check(job.identity)
            manifest = job.run(output, history, clock, lease)
            lance.update(spec.sink, output)
        except STORAGE_ERRORS as error:
            raise RunError(
                f"relabelling stopped: {one_line(error)}; start the same command again"
            ) from error
    return RunResult(output, manifest, PolicySpec(max_failure_rate=1.0))


@dataclass
class _Job:
    """A relabelling that is known to be possible."""

    spec: RelabelSpec
    source: History
    rescorer: Rescorer
    identity: Identity
    model: Provenance
    corrected: Corrected | None = None

    @classmethod
    def prepare(cls, spec: RelabelSpec) -> _Job:
        source = load_source(spec.source)
        old = source.runs[0].identity
        if spec.model is not None:
            computed = Computed.of(spec.model, spec, source)
            rescorer = _rescorer(spec, source, old, computed.head)
            return cls(spec, source, rescorer, computed.identity, computed.provenance)
        head = Head.load(spec.head) if spec.head else None
        if head is not None:
            check_embeddings(source, "<relabel.head>", head.weight.shape[1])
        elif old.scores is None:
            raise UsageError(f"{spec.source} stores no scores; give <relabel.head> to compute some")
        rescorer = _rescorer(spec, source, old, head)
        identity = _identity(spec, old, rescorer)
        model = replace(source.runs[0].model, fingerprint=identity.fingerprint)
        return cls(spec, source, rescorer, identity, model, _corrected(spec, old, rescorer))

    def run(self, output: Store, history: History, clock: Clock, lease: Lease) -> Manifest:
        """Relabel, count, publish."""
        record = OpenRecord(
            started=utc_now(),
            full=self.spec.full,
            identity=self.identity,
            inputs={"uris": [self.spec.source], "format": FORMAT},
        )
        with clock.phase("plan"):
            rows, known = LiveRows.of(self.source), LiveRows.of(history)
            fresh = self._fresh(rows, known)
            gone = known.missing_in(rows)
        open_run = OpenRun.begin(output, record, history.run_ids)
        with clock.phase("relabel"):
            self._commit(fresh, open_run)
        lease.check()
        account = self._account(len(fresh), len(rows) - len(fresh), clock)
        if gone:
            account = replace(account, vanished=vanished_rows(gone, _schema(open_run, history)))
        return close_run(open_run, history.nights, account, known=history)

    def _fresh(self, rows: LiveRows, known: LiveRows) -> LiveRows:
        """The rows that the output does not have, or not as they are now."""
        if self.corrected is not None:
            self.corrected.check(rows)
        if self.spec.full:
            return rows
        fresh = rows.without(known)
        if self.corrected is None:
            return fresh
        return replace(fresh, chosen=fresh.chosen | self.corrected.changed(rows, known))

    def _relabelled(self, batch: pa.Table) -> pa.Table:
        """Rows with new labels: those of the scores, or of people."""
        table = self.rescorer(batch)
        kept = self.source.runs[0].identity.kept or {}
        if CORRECTION.name in table.column_names and CORRECTION.name not in kept:
            table = table.drop_columns(CORRECTION.name)  # the scores overrule it
        return table if self.corrected is None else self.corrected(table)

    def _commit(self, rows: LiveRows, run: OpenRun) -> None:
        """Relabel rows into parts of the open run."""
        seen = [closed.run_id for closed in self.source.runs] if self.spec.review else []
        pictures = KeptPictures.of_runs(self.source.store, seen)
        for number, batch in enumerate(rows.batches(self.rescorer.batch_rows)):
            name, table = run.part_name(number), pictures.beside(self._relabelled(batch))
            write_table(run.store, name, table)
            run.parts.append(Part(name, table.num_rows, PartFooter().spanning(table["uri"])))
        for column, unsure in self.rescorer.unsure.items():
            if unsure:
                log.warning(_UNSURE, unsure, column)

    def _account(self, fresh: int, standing: int, clock: Clock) -> Account:
        return Account(
            expected=fresh,
            skipped=standing,
            plan={"relabelled": fresh, "unchanged": standing, "unsure": self.rescorer.unsure},
            model=self.model,
            identity=self.identity,
            classes=self.rescorer.groups.new,
            source_runs=tuple(run.run_id for run in self.source.runs),
            spec={FORMAT: self.spec.to_dict(), "policy": {"full": self.spec.full}},
            timings=Timings(clock.seconds),
            review=self.spec.review,
        )


def _schema(run: OpenRun, history: History) -> pa.Schema:
    """Of the files of an output: of the run at work, or if that has no row, of earlier ones."""
    parts = [part.name for part in run.parts]
    newest = [name for closed in history.runs for name in closed.file_names]
    with run.store.fs.open(run.store.path([*parts, *newest][0])) as file:
        return pq.read_schema(file).remove_metadata()


def _rescorer(spec: RelabelSpec, source: History, old: Identity, head: Head | None) -> Rescorer:
    classes = head.classes if head else stored_classes(source)
    scores = spec.scores or (head and head.scores) or old.scores or "softmax"
    renamed = spec.label_map or {}
    if unknown := renamed.keys() - set(classes):
        raise UsageError(f"<relabel.label_map> names unknown classes: {', '.join(sorted(unknown))}")
    groups = Groups.of_map(classes, renamed)
    check_threshold_names(spec.thresholds, groups.new)
    stored = old.top_k or DEFAULT_TOP_K
    top_k = spec.top_k or stored
    if head is None and top_k > stored:
        raise UsageError(
            f"<output.top_k> is {top_k}, but {spec.source} stores only {stored} scores"
        )
    thresholds: tuple[float, ...] = ()
    if head is not None or spec.thresholds is not None:
        thresholds = class_thresholds(spec.thresholds, scores, groups.new)
    return Rescorer(scores, groups, top_k, thresholds, head)


def _corrected(spec: RelabelSpec, old: Identity, rescorer: Rescorer) -> Corrected | None:
    if not spec.corrections:
        return None
    if CORRECTION.name in (old.kept or {}):
        raise UsageError(
            f"{spec.source} has a column {CORRECTION.name} from its input, which "
            "<relabel.corrections> would write; leave it out with <inputs.keep>"
        )
    return Corrected.read(spec.corrections, spec.label_map or {}, rescorer.groups.new)


def _identity(spec: RelabelSpec, old: Identity, rescorer: Rescorer) -> Identity:
    """The identity of the source, and what was done on top of it."""
    names = "\n".join(rescorer.groups.new)
    renamed = json.dumps(spec.label_map, sort_keys=True) if spec.label_map else None
    step = {
        "label_map": short_hash(renamed) if renamed else None,
        "head": rescorer.head.fingerprint if rescorer.head else None,
    }
    if spec.corrections:
        step["corrections"] = "people's"  # whatever they say: it may change from day to day
    chain = json.dumps([old.fingerprint, step], sort_keys=True)
    return replace(
        old,
        fingerprint=short_hash(chain) if any(step.values()) else old.fingerprint,
        relabelled=(*(old.relabelled or ()), step),
        classes_sha256=short_hash(names),
        scores=rescorer.scores,
        top_k=rescorer.top_k,
        thresholds=rescorer.thresholds,
    )
