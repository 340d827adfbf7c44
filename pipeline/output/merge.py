"""Parts of an open run become files of even size, sorted by uri, and are counted on the way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.contract import layout
from pipeline.contract.manifest import DataFile
from pipeline.contract.schema import Status, present
from pipeline.output.ledger import Hashes, hash_strings
from pipeline.output.open_run import OpenRun, Part
from pipeline.storage.parquet import read_table, write_table
from pipeline.storage.store import Store

TARGET_FILE_BYTES = 256 * 2**20
ROW_GROUP_ROWS = 65_536
FAILURES_SHOWN = 50
_UNIQUE_COLUMNS = ("uri", "sha256", "source_version", "size_bytes")
"""Columns whose values hardly ever repeat."""
_EMBEDDING = "embedding."


@dataclass
class Tally:
    """Counts over the rows of a run, taken while they are merged."""

    ok: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    failure_examples: list[dict[str, str]] = field(default_factory=list)
    hashes: list[Hashes] = field(default_factory=list)
    files: list[DataFile] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return self.failures.total()

    @property
    def rows(self) -> int:
        """Of images that are there."""
        return self.ok + self.failed

    def add(self, table: pa.Table) -> None:
        """Count the rows of a table."""
        self.hashes.append(hash_strings(table["uri"]))
        failed = table.filter(pc.equal(table["status"], Status.FAILED.value))
        self.ok += pc.sum(pc.equal(table["status"], Status.OK.value)).as_py() or 0
        self.failures.update(_value_counts(failed["error_code"]))
        if "label" in table.column_names:
            self.labels.update(_value_counts(table["label"].drop_null()))
        columns = failed.select(["uri", "error_code", "error_message"])
        room = FAILURES_SHOWN - len(self.failure_examples)
        self.failure_examples += columns.slice(0, room).to_pylist()

    def repeated(self) -> int:
        """How many rows repeat the URI of another row."""
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
    vanished: pa.Table | None = None,
) -> Tally:
    """Merge the parts of a run into files of even size, each sorted by uri.

    Args:
        complete: sees every table before it is written, to fill in what was left for the end.
        watch: sees its rows as they are written, but for those of vanished images.
        vanished: the rows of images that are no longer there, the last to be written.
    """
    tally = Tally()
    run.store.remove(layout.publish_dir(run.run_id))
    more = [vanished] if vanished is not None else []
    size = rows_per_file or _rows_per_file(run, sum(len(table) for table in more))
    tables = chain((_read(run.store, part) for part in run.parts), more)
    for number, table in enumerate(_rebatch(tables, size)):
        name = layout.data_file(number)
        ordered = complete(table).sort_by("uri").replace_schema_metadata(metadata)
        tally.add(ordered)
        watch(present(ordered))
        staged = f"{layout.publish_data_dir(run.run_id)}/{name}"
        write_table(run.store, staged, ordered, **_parquet_options(ordered.schema))
        published = f"{layout.data_dir(run.run_id)}/{name}"
        tally.files.append(DataFile(published, ordered.num_rows))
    return tally


def _read(store: Store, part: Part) -> pa.Table:
    return read_table(store, part.name).replace_schema_metadata(None)


def _rows_per_file(run: OpenRun, more: int) -> int:
    """For files of even size, ``more`` rows besides those of the parts, which hardly take any room;
    if there are several, none is below two thirds of the target."""
    sizes = run.store.list(layout.parts_dir(run.run_id))
    stored = sum(sizes.get(part.name, 0) for part in run.parts)
    rows = sum(part.rows for part in run.parts) + more
    files = max(1, round(stored / TARGET_FILE_BYTES))
    return max(1, math.ceil(rows / files))


def _rebatch(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Tables of exactly ``rows`` rows (the last one may be shorter), taking one at a time."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        while sum(len(table) for table in held) >= rows:
            whole = pa.concat_tables(held)
            yield whole.slice(0, rows)
            held = [whole.slice(rows)]
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
