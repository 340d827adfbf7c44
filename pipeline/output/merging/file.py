"""One file of a run, merged in bounded memory.

First the URIs of its rows are read and sorted. Then the rows follow, some row groups at a time: the
parts that have some of them are read, one after the other. Parts that were computed in about the
order of their names are read once, some of them twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.contract import layout
from pipeline.contract.manifest import DataFile
from pipeline.contract.schema import present, without_internal
from pipeline.output.ledger.hashes import Hashes, hash_strings
from pipeline.output.merging.plan import FilePlan, Slice
from pipeline.output.merging.tally import Tally, split_by_range
from pipeline.output.staged import stage
from pipeline.storage.objects.s3.uploads import Upload
from pipeline.storage.parquet import open_table, read_columns, read_table
from pipeline.storage.store import Store

ROW_GROUP_ROWS = 65_536
MOST_GROUP_BYTES = 40 * 2**20
"""Of a row group, in memory."""
WINDOW_BYTES = 2 * MOST_GROUP_BYTES
"""Of the rows that are read together, and held twice for a moment. Beside them, a task holds the
file that it writes, unless that goes to a local disk or to S3."""
_ROWS_WEIGHED = 1024
_UNIQUE_COLUMNS = ("uri", "sha256", "source_version", "size_bytes")
"""Columns whose values hardly ever repeat."""
_EMBEDDING = "embedding."

Numbers = npt.NDArray[np.int64]


class Watch(Protocol):
    """Sums up rows that stream by."""

    def add(self, table: pa.Table) -> None:
        """Sum up some rows."""
        ...

    def include(self, other: Any) -> None:
        """Add what another of its kind has summed up."""
        ...


class Unwatched:
    """Sums up nothing."""

    def add(self, table: pa.Table) -> None: ...

    def include(self, other: Any) -> None: ...


@dataclass(frozen=True)
class Job:
    """What all files of a run have in common."""

    store: Store
    run_id: str
    attempt: str
    metadata: Mapping[str, str]
    complete: Callable[[pa.Table], pa.Table]
    watch: Watch
    """That has seen nothing yet."""
    ranges: int
    """Into how many the hashes of URIs are divided."""


@dataclass(frozen=True)
class Piece:
    """What a merged file adds to what is known of the run."""

    tally: Tally
    seen: Watch
    uploads: Mapping[str, Upload]
    """What will complete the file, by its name; nothing if it will be moved."""


@dataclass(frozen=True)
class _Rows:
    """The rows of a file, sorted by uri."""

    at: Numbers
    """The slice of the plan that each comes from."""
    number: Numbers
    """Its number within the part."""
    hashes: Hashes
    """Of the URIs, in no order."""

    @classmethod
    def of(cls, plan: FilePlan, store: Store) -> Self:
        names = [one.name for one in plan.slices]
        columns: list[pa.Array] = []
        at, numbers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for number, table in enumerate(read_columns(store, names, ["uri"])):
            one = plan.slices[number]
            uris = table["uri"].slice(one.start, one.stop - one.start)
            held = plan.holds(uris)
            columns += uris.filter(pa.array(held)).chunks
            numbers.append(np.flatnonzero(held) + one.start)
            at.append(np.full(len(numbers[-1]), number))
        uris = pa.chunked_array(columns, pa.string())
        order = pc.sort_indices(uris).to_numpy()
        return cls(np.concatenate(at)[order], np.concatenate(numbers)[order], hash_strings(uris))

    def __len__(self) -> int:
        return len(self.at)

    def window(self, start: int, stop: int) -> tuple[Numbers, Numbers]:
        """``at`` and ``number`` of some of them."""
        return self.at[start:stop], self.number[start:stop]


def merge_file(job: Job, plan: FilePlan) -> tuple[Piece, list[Hashes]]:
    """Write one file. The same call writes the same file again.

    Returns:
        What the file adds to the tally and to what the watch has seen, and the hashes of its URIs
        by range.
    """
    tally, seen, uploads = Tally(), deepcopy(job.watch), {}
    rows = _Rows.of(plan, job.store)
    if len(rows):
        file = layout.data_file(plan.number)
        name = f"{layout.data_dir(job.run_id)}/{file}"
        aside = f"{layout.publish_data_dir(job.run_id, job.attempt)}/{file}"
        groups = _watched(_groups(rows, plan, job), job.metadata, tally, seen)
        if upload := stage(job.store, name, aside, partial(_write_parquet, groups)):
            uploads[name] = upload
        tally.files.append(DataFile(name, len(rows)))
    return Piece(tally, seen, uploads), split_by_range(rows.hashes, job.ranges)


def _groups(rows: _Rows, plan: FilePlan, job: Job) -> Iterator[pa.Table]:
    """The rows in order, a row group at a time."""
    row = _bytes_of_a_row(job.store, plan.slices[rows.at[0]].name)
    group = min(max(MOST_GROUP_BYTES // row, 1), ROW_GROUP_ROWS)
    window = max(WINDOW_BYTES // row // group, 1) * group
    for begin in range(0, len(rows), window):
        yield from _in_order(*rows.window(begin, begin + window), plan, job, group)


def _in_order(
    at: Numbers, numbers: Numbers, plan: FilePlan, job: Job, group: int
) -> Iterator[pa.Table]:
    """Some rows in their order; whatever was read for them is freed when they are all out."""
    gathered, order = _gathered(plan.slices, at, numbers, job.store)
    table = job.complete(gathered)
    for start in range(0, len(order), group):
        yield table.take(order[start : start + group])


def _bytes_of_a_row(store: Store, name: str) -> int:
    """In memory, about; what is not published does not decide where a row group ends."""
    with open_table(store, name) as parquet:
        names = [name for name in parquet.schema_arrow.names if not name.startswith("_")]
        batch = next(parquet.iter_batches(_ROWS_WEIGHED, columns=names))
    return int(batch.nbytes / batch.num_rows) + 1


def _gathered(
    slices: Sequence[Slice], at: Numbers, numbers: Numbers, store: Store
) -> tuple[pa.Table, pa.Array]:
    """Rows by slice and number within its part, and the indices that put them into the order in
    which they were asked for."""
    pieces = []
    for one in np.unique(at):
        pieces.append(_taken(store, slices[one].name, numbers[at == one]))
    order = np.argsort(at, kind="stable")
    indices = np.empty_like(order)
    indices[order] = np.arange(len(order))
    return _joined(pieces).combine_chunks(), pa.array(indices)


def _joined(pieces: Sequence[pa.Table]) -> pa.Table:
    """Rows of several parts, not all of which have the same internal columns."""
    return pa.concat_tables(pieces, promote_options="default")


def _taken(store: Store, name: str, numbers: Numbers) -> pa.Table:
    """Rows of a part. The allocator would keep the rest of it for what it is asked for next."""
    taken = read_table(store, name).replace_schema_metadata(None).take(pa.array(numbers))
    pa.default_memory_pool().release_unused()
    return taken


def _watched(
    groups: Iterator[pa.Table], metadata: Mapping[str, str], tally: Tally, seen: Watch
) -> Iterator[pa.Table]:
    """The same row groups with this metadata, counted and watched on the way."""
    for group in groups:
        table = without_internal(group).replace_schema_metadata(dict(metadata))
        tally.add(table)
        seen.add(present(group))
        yield table


def _write_parquet(groups: Iterator[pa.Table], file: Any) -> None:
    """A file of these row groups, of which there are some."""
    first = next(groups)
    with pq.ParquetWriter(file, first.schema, **_parquet_options(first.schema)) as writer:
        for table in chain([first], groups):
            writer.write_table(table, len(table))


def _parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Made for scans of single columns: dictionaries where values repeat, no compression where it
    saves a twelfth and doubles the time (float embeddings), and the order, so that readers can skip
    by uri."""
    leaves = _leaves(schema)
    return {
        "use_dictionary": [path for path, repeats in leaves.items() if repeats],
        "compression": {p: "none" if p.startswith(_EMBEDDING) else "zstd" for p in leaves},
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
