"""One run in place of many: the newest row of every image.

    live runs ──newest rows──► parts ──close_run──► a run that replaces them, as ``--full`` does

Whoever goes through ``latest.json`` or ``current.json`` sees the old runs or the new one, and the
old ones stay for whoever still reads them. It computes nothing: if it is killed, whatever is
started next on the output clears it away, or finishes its publication.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract import layout
from pipeline.contract.errors import RunError, UsageError, one_line
from pipeline.contract.manifest import Drift, Manifest, Timings
from pipeline.contract.schema import vanished_rows
from pipeline.contract.spec import CompactSpec, InputSpec
from pipeline.monitoring.comparison import comparable
from pipeline.output.identity import check_identity
from pipeline.output.lease import Lease
from pipeline.output.ledger.hashes import HashIndex, Mask, hash_strings
from pipeline.output.ledger.history import History
from pipeline.output.open_run import COMPACT, OpenRecord, OpenRun, Part, PartFooter
from pipeline.plan.reuse import with_columns
from pipeline.runs.closing import Account, Clock, close_run, utc_now
from pipeline.runs.compact.retention import remove_replaced
from pipeline.runs.relabel.live_rows import LiveRows
from pipeline.runs.relabel.source import find_classes
from pipeline.runs.relabel.unfinished import clear
from pipeline.sources.formats.registry import shard_names
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.parquet import open_table, write_table
from pipeline.storage.read_ahead import map_ahead
from pipeline.storage.store import Store
from pipeline.storage.uris import canonical

PART_ROWS = 65_536
PART_BYTES = 64 * 2**20
"""In memory; a part is written when it has as many rows, or as many bytes."""
_SHARDS = shard_names(InputSpec(uris=("anywhere",)))

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compaction:
    """What became of an output."""

    store: Store
    manifest: Manifest | None
    """Of the run that has all rows now; None if there was nothing to combine."""
    removed: tuple[str, ...]
    """Runs that were replaced long ago, and are gone."""

    @property
    def current_uri(self) -> str:
        """Where the files are listed whose rows count."""
        return self.store.locate(layout.CURRENT)

    def to_dict(self) -> dict[str, Any]:
        """For a script to read."""
        run = self.manifest
        return {
            "run_id": run and run.run_id,
            "combined": list(run.source_runs or ()) if run else [],
            "rows": sum(file.rows for file in run.files) if run else 0,
            "files": run.file_names if run else [],
            "removed": list(self.removed),
        }


def compact(spec: CompactSpec) -> Compaction:
    """Combine the live runs of an output into one, then remove what was replaced long ago.

    Raises:
        UsageError: nothing was written; the message says what to change.
        RunError: the same call does it again.
    """
    clock = Clock()
    store = Store(canonical(spec.output))
    _load(store)  # before the lease, which would make a directory of a mistyped name
    with Lease(store) as lease:
        try:
            clear(store, COMPACT)
            history = _load(store)
            manifest = _combine(spec, history, clock, lease)
            removed = remove_replaced(store, spec.keep_days) if spec.keep_days else []
        except STORAGE_ERRORS as error:
            raise RunError(
                f"the compaction stopped: {one_line(error)}; start the same command again"
            ) from error
    return Compaction(store, manifest, tuple(removed))


def _load(store: Store) -> History:
    """The live runs; all of one model."""
    try:
        history = History.load(store)
    except STORAGE_ERRORS as error:
        raise UsageError(f"cannot read {store.uri}: {one_line(error)}") from error
    if not history.runs:
        raise UsageError(f"{store.uri} holds no closed run; name the output of an earlier job")
    newest = history.runs[0]
    advice = "only rows of one model can be combined: run the job with <policy.full> first"
    for run in history.runs[1:]:
        check_identity(newest.identity, run.identity, f"the closed run {run.run_id}", advice)
    return history


def _combine(spec: CompactSpec, history: History, clock: Clock, lease: Lease) -> Manifest | None:
    """Write the rows that count as one run; None if they are in one already."""
    with clock.phase("plan"):
        rows = LiveRows.of(history)
        stale = _superseded(rows, history)
        gone = replace(rows, chosen=rows.vanished | (rows.chosen & stale))
        live = replace(rows, chosen=rows.chosen & ~stale)
    kept = len(live) + (0 if spec.drop_vanished else len(gone))
    if sum(bool(run.files) for run in history.runs) < 2 and kept == len(rows.uris):
        return None
    newest = history.runs[0]
    inputs = {"uris": _inputs(history), "format": COMPACT}
    record = OpenRecord(started=utc_now(), full=True, identity=newest.identity, inputs=inputs)
    open_run = OpenRun.begin(history.store, record, history.run_ids)
    schema = _schema(history)
    with clock.phase("combine"):
        _commit(live, open_run, schema)
    lease.check()
    names = [] if spec.drop_vanished else gone.names()
    account = Account(
        expected=len(live),
        skipped=0,
        plan={"combined": len(live), "vanished": len(names)},
        model=newest.model,
        identity=newest.identity,
        classes=find_classes(history) or (),
        source_runs=tuple(run.run_id for run in history.runs),
        compacted=tuple(map(_baseline, comparable(history.nights, newest.identity))),
        spec={COMPACT: {}, "inputs": {"uris": inputs["uris"]}, "policy": {"full": True}},
        timings=Timings(clock.seconds),
        vanished=vanished_rows(names, schema) if names else None,
    )
    return close_run(open_run, (), account)


def _superseded(rows: LiveRows, history: History) -> Mask:
    """Of every row, whether its shard was read to the end since, and does not have it any more. The
    ledger tells by the runs that the rows are in, which will be one.

    It tells by the hash of the URI: where two URIs share one, both rows stay as they are, which
    costs no more than that their shard is read once more.
    """
    ledger = history.ledger(_SHARDS)
    hashes, times = np.unique(rows.uris[rows.chosen | rows.vanished], return_counts=True)
    shared, _ = HashIndex(hashes[times > 1]).find(rows.uris)
    found, _ = HashIndex(ledger.uris[ledger.superseded]).find(rows.uris)
    return _of_certain_shards(rows, found & ~shared)


def _of_certain_shards(rows: LiveRows, stale: Mask) -> Mask:
    """Those of some rows whose shard shares its hash with no other one: of two that do, the ledger
    takes the members of the older for ones that the younger has lost."""
    if not stale.any():
        return stale
    of_stale = replace(rows, chosen=stale)
    index = HashIndex(np.unique(np.concatenate([hash_strings(s) for s in _shards(of_stale)])))
    names: dict[int, set[str]] = {}
    for shards in _shards(replace(rows, chosen=np.ones_like(stale))):
        some = pa.chunked_array([shards.drop_null().unique()])
        hashes = hash_strings(some)
        at = np.flatnonzero(index.find(hashes)[0])
        for name, key in zip(some.take(pa.array(at)).to_pylist(), hashes[at].tolist(), strict=True):
            names.setdefault(key, set()).add(name)
    shared = pa.array([n for those in names.values() if len(those) > 1 for n in those], pa.string())
    is_shared = [pc.is_in(shards, value_set=shared).to_numpy() for shards in _shards(of_stale)]
    certain = stale.copy()
    certain[np.flatnonzero(stale)[np.concatenate(is_shared)]] = False
    return certain


def _shards(rows: LiveRows) -> Iterator[pa.ChunkedArray]:
    """The shard that each row came from, null for single images."""
    return (_SHARDS.shards_of(batch["uri"]) for batch in rows.batches(PART_ROWS, ["uri"]))


def _inputs(history: History) -> list[str]:
    """Where all rows come from; nothing if they come from different INPUTs, so that none vanishes
    but from below the INPUT of a later run."""
    origins = {run.inputs for run in history.runs}
    return list(origins.pop()) if len(origins) == 1 else []


def _baseline(night: Manifest) -> Manifest:
    """What later runs are compared with."""
    return replace(night, files=(), vanished=None, drift=Drift(), plan={})


def _schema(history: History) -> pa.Schema:
    """The columns of all files, in the order of the newest: versions of the program differ."""

    def read(name: str) -> pa.Schema:
        with open_table(history.store, name) as parquet:
            return parquet.schema_arrow

    fields: dict[str, pa.Field] = {}
    for schema in map_ahead(read, history.files):
        for field in schema:
            fields.setdefault(field.name, field)
    return pa.schema(fields.values())


def _commit(rows: LiveRows, run: OpenRun, schema: pa.Schema) -> None:
    """Write rows into parts of the open run."""
    batches = (with_columns(batch, schema) for batch in rows.batches(PART_ROWS))
    for number, table in enumerate(_gathered(batches)):
        write_table(run.store, run.part_name(number), table)
        run.parts.append(Part(run.part_name(number), table.num_rows, PartFooter()))


def _gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Fewer, larger ones: a year of nights has files of a few rows."""
    held: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        held.append(table)
        rows, size = rows + table.num_rows, size + table.nbytes
        if rows >= PART_ROWS or size >= PART_BYTES:
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.concat_tables(held)
