"""Closing a run: the books are balanced, parts are merged into files, and the run becomes visible.

    _open/<id>/parts/*                 what the attempts committed
    _open/<id>/publish/data/part-*     merged, sorted by uri, sized for scans
    _open/<id>/publish/*               the report and the tables beside it
    _open/<id>/publish/manifest.json   from here on the run is closed; what follows is only moving
    data/run=<id>/, runs/<id>/, latest.json, in this order

Every step can be repeated. Whoever finds ``publish/manifest.json`` finishes the moving first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.contract.errors import RunError
from pipeline.output.history import DATA, LATEST, RUNS
from pipeline.output.ledger import Hashes, hash_strings
from pipeline.output.open_run import Deferred, OpenRun, Part, read_table, write_table
from pipeline.plan.diff import Plan
from pipeline.storage.store import Store

TARGET_FILE_BYTES = 256 * 2**20
ROW_GROUP_ROWS = 65_536
FAILURES_SHOWN = 50
CLASSES_FILE = "classes.json"
"""Beside the manifest: the names of the classes, by ``label_id``."""
_UNIQUE_COLUMNS = ("uri", "sha256", "source_version", "size_bytes")
"""Whose values hardly ever repeat."""
_EMBEDDING = "embedding."


@dataclass
class Tally:
    """What the rows of a run say, summed up while they are merged."""

    ok: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    failure_examples: list[dict[str, str]] = field(default_factory=list)
    hashes: list[Hashes] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return self.failures.total()

    @property
    def rows(self) -> int:
        return self.ok + self.failed

    def add(self, table: pa.Table) -> None:
        """Count the rows of a table."""
        self.hashes.append(hash_strings(table["uri"]))
        failed = table.filter(pc.equal(table["status"], "failed"))
        self.ok += table.num_rows - failed.num_rows
        self.failures.update(_value_counts(failed["error_code"]))
        if "label" in table.column_names:
            self.labels.update(_value_counts(table["label"].drop_null()))
        columns = failed.select(["uri", "error_code", "error_message"])
        room = FAILURES_SHOWN - len(self.failure_examples)
        self.failure_examples += columns.slice(0, room).to_pylist()

    def repeated(self) -> int:
        """How many rows have a uri that another row has too."""
        hashes = np.concatenate(self.hashes) if self.hashes else np.array([], np.uint64)
        return len(hashes) - len(np.unique(hashes))


def _value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(c["values"]): c["counts"] for c in pc.value_counts(column).to_pylist()}


def merge(
    run: OpenRun,
    metadata: dict[str, str],
    rows_per_file: int | None,
    complete: Callable[[pa.Table], pa.Table] = lambda table: table,
    watch: Callable[[pa.Table], object] = lambda table: None,
) -> Tally:
    """Merge the parts of a run into files of even size, each sorted by uri.

    ``complete`` sees every table before it is written, to fill in what was left for the end;
    ``watch`` sees it as it is written.
    """
    tally = Tally()
    run.store.remove(f"{run.directory}/publish")
    size = rows_per_file or _rows_per_file(run)
    for number, table in enumerate(_rebatch(run.store, run.parts, size)):
        name = f"part-{number:05d}.parquet"
        ordered = complete(table).sort_by("uri").replace_schema_metadata(metadata)
        tally.add(ordered)
        watch(ordered)
        staged = f"{run.directory}/publish/data/{name}"
        write_table(run.store, staged, ordered, **_parquet_options(ordered.schema))
        tally.files.append({"name": f"{DATA}/run={run.run_id}/{name}", "rows": ordered.num_rows})
    return tally


def _rows_per_file(run: OpenRun) -> int:
    """Of files of even size: however many there are, none is below two thirds of the target."""
    sizes = run.store.list(f"{run.directory}/parts")
    stored = sum(sizes.get(part.name, 0) for part in run.parts)
    rows = sum(part.rows for part in run.parts)
    files = max(1, round(stored / TARGET_FILE_BYTES))
    return max(1, math.ceil(rows / files))


def _rebatch(store: Store, parts: list[Part], rows: int) -> Iterator[pa.Table]:
    """Tables of exactly ``rows`` rows (the last one of the rest), reading one part at a time."""
    held: list[pa.Table] = []
    for part in parts:
        held.append(read_table(store, part.name).replace_schema_metadata(None))
        while sum(len(table) for table in held) >= rows:
            table = pa.concat_tables(held)
            yield table.slice(0, rows)
            held = [table.slice(rows)]
    rest = pa.concat_tables(held) if held else None
    if rest is not None and rest.num_rows:
        yield rest


def _parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Made for scans of single columns: dictionaries where values repeat, no compression where it
    saves a twelfth and doubles the time (float embeddings), and the order, so that readers can skip
    by uri."""
    leaves = _leaves(schema)
    return {
        "use_dictionary": [path for path, repeats in leaves.items() if repeats],
        "compression": {p: "none" if p.startswith(_EMBEDDING) else "zstd" for p in leaves},
        "row_group_size": ROW_GROUP_ROWS,
        "sorting_columns": pq.SortingColumn.from_ordering(schema, [("uri", "ascending")]),
    }


def _leaves(schema: pa.Schema) -> dict[str, bool]:
    """Parquet's own columns, nested ones by their path, and whether values are likely to repeat."""
    file = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), file)
    parquet = pq.ParquetFile(pa.BufferReader(file.getvalue())).schema
    columns = [parquet.column(number) for number in range(len(parquet))]
    numbers = ("FLOAT", "DOUBLE", "FIXED_LEN_BYTE_ARRAY")
    return {
        column.path: column.physical_type not in numbers and column.path not in _UNIQUE_COLUMNS
        for column in columns
    }


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


def books(run: OpenRun, tally: Tally, expected: int, *, skipped: int) -> dict[str, int]:
    """The books of a run that must have ``expected`` rows; raises as ``balance`` does."""
    if tally.rows != expected or tally.repeated():
        raise RunError(
            f"the books of run {run.run_id} do not balance: {expected} rows expected, "
            f"{tally.rows} found, {tally.repeated()} of them repeated; the run stays open, "
            "start the same command again"
        )
    return {
        "listed": expected + skipped,
        "ok": tally.ok,
        "failed": tally.failed,
        "skipped": skipped,
    }


def close(
    run: OpenRun,
    manifest: dict[str, Any],
    report: str,
    beside: Mapping[str, pa.Table | list[str]] | None = None,
) -> None:
    """Write the manifest, the report and whatever goes ``beside`` them, by name (a table as
    Parquet, a list as JSON), next to the merged files; then publish."""
    staged = f"{run.directory}/publish"
    for name, value in (beside or {}).items():
        if isinstance(value, pa.Table):
            write_table(run.store, f"{staged}/{name}", value)
        else:
            run.store.write_json(f"{staged}/{name}", value)
    run.store.write_bytes(f"{staged}/report.html", report.encode())
    run.store.write_json(f"{staged}/manifest.json", manifest)
    publish(run)


def is_closed(run: OpenRun) -> bool:
    """Whether all that is left to do is the moving."""
    return run.store.exists(f"{run.directory}/publish/manifest.json")


def publish(run: OpenRun) -> dict[str, Any]:
    """Make a closed run visible; ``latest.json`` moves last. Safe to repeat. Its manifest."""
    store, staged, target = run.store, f"{run.directory}/publish", f"{RUNS}/{run.run_id}"
    manifest: dict[str, Any] = store.read_json(f"{staged}/manifest.json")
    if manifest["files"]:
        store.move(f"{staged}/data", f"{DATA}/run={run.run_id}")
    for path in store.list(staged):
        name = path.removeprefix(f"{staged}/")
        if "/" not in name and name != "manifest.json":
            store.write_bytes(f"{target}/{name}", store.read_bytes(path))
    store.write_json(f"{target}/manifest.json", manifest)
    latest = {"run_id": run.run_id, "manifest": f"{target}/manifest.json"}
    store.write_json(LATEST, latest | {"counts": manifest["counts"]})
    run.discard()
    return manifest
