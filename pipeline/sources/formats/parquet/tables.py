"""The rows of Parquet files that are lists or reports, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources.formats.parquet.files import open_parquet
from pipeline.sources.formats.parquet.pages import PageGuard
from pipeline.sources.kept_values import bytes_of

BATCH_ROWS = 4096
BATCH_BYTES = 64 * 2**20
"""Larger batches become Python's values row by row."""
ROW_BYTES = 4 * 2**20
"""A larger row has no values."""


def table_rows(file: Any) -> Iterator[dict[str, Any] | None]:
    """The rows of a table, by name of the column, of which the first with each name counts. None
    for a row that is too large, or has a value that Python cannot have.

    Args:
        file: seekable, opened for reading.

    Raises:
        ValueError: it is not Parquet, is damaged, or would take too much memory.
        OSError: the storage failed.
    """
    guard = PageGuard(file)
    leaves = open_parquet(guard).schema
    texts = [
        leaves.column(number).path
        for number in range(len(leaves))
        if leaves.column(number).physical_type == "BYTE_ARRAY"
    ]
    # As dictionaries, values that many rows share are not repeated before they are counted.
    parquet = open_parquet(guard, read_dictionary=texts)
    for group in range(parquet.num_row_groups):
        guard.watch(_chunks(parquet, group))
        for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False):
            yield from _rows(batch)


def _chunks(parquet: pq.ParquetFile, group: int) -> Iterator[tuple[int, int]]:
    metadata = parquet.metadata.row_group(group)
    for number in range(metadata.num_columns):
        chunk = metadata.column(number)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        yield start, start + chunk.total_compressed_size


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    names = batch.schema.names
    first = batch.select([names.index(name) for name in dict.fromkeys(names)])
    if sum(map(bytes_of, first.columns)) <= BATCH_BYTES and (rows := _converted(first)) != [None]:
        yield from rows
        return
    for number in range(first.num_rows):
        row = first.slice(number, 1)
        is_small = sum(map(bytes_of, row.columns)) <= ROW_BYTES
        yield _converted(row)[0] if is_small else None


def _converted(rows: pa.RecordBatch) -> list[dict[str, Any]] | list[None]:
    """None alone if Python has no value for something, such as a time in the year 10000."""
    try:
        found: list[dict[str, Any]] = rows.to_pylist()
        return found
    except Exception:  # noqa: BLE001  # Arrow's conversions raise whatever they trip over
        return [None]
