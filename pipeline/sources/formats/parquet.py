"""Images inside Parquet files: which column holds them, and reading it as a stream."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.contract.errors import (
    FetchError,
    ItemError,
    JobError,
    ShardError,
    UsageError,
    one_line,
)
from pipeline.contract.spec import IMAGE_COLUMNS, InputSpec
from pipeline.sources.formats.item import Item, ReadOptions
from pipeline.storage.files import check_size
from pipeline.storage.filesystems import open_binary

PARQUET_SUFFIXES = (".parquet", ".pq")
MAGIC = b"PAR1"
BUFFER_BYTES = 4 * 2**20
"""Column chunks are read in pieces of this size, so that a row group of any size streams."""
BATCH_ROWS = 8


def find_image_column(schema: pa.Schema, wanted: str | None) -> str | None:
    """The column that holds encoded images, as binary or as Hugging Face datasets' struct of bytes
    and path; None if there is none."""
    for name in (wanted,) if wanted else IMAGE_COLUMNS:
        if name in schema.names and _is_image(schema.field(name).type):
            return name
    return None


def _is_image(stored: pa.DataType) -> bool:
    if pa.types.is_struct(stored):
        at = stored.get_field_index("bytes")
        return at >= 0 and _is_image(stored.field(at).type)
    return bool(pa.types.is_binary(stored) or pa.types.is_large_binary(stored))


def parquet_columns(uri: str, inputs: InputSpec) -> pa.Schema:
    """The columns beside the images.

    Raises:
        UsageError: the file cannot be read as Parquet.
        OSError: the storage failed.
    """
    schema = parquet_schema(uri)
    image_column = find_image_column(schema, inputs.image_column)
    return pa.schema([field for field in schema if field.name != image_column])


def parquet_schema(uri: str) -> pa.Schema:
    """The columns of a file.

    Raises:
        UsageError: the file cannot be read as Parquet.
        OSError: the storage failed.
    """
    try:
        with open_binary(uri) as file:
            return plain_schema(open_parquet(file))
    except ValueError as error:
        raise UsageError(f"{uri} cannot be read as Parquet: {one_line(error)}") from error


def is_parquet(file: Any) -> bool:
    """Whether a file begins and ends as Parquet does; leaves the file at its start."""
    found: bool = file.read(len(MAGIC)) == MAGIC
    if found:
        file.seek(-len(MAGIC), os.SEEK_END)
        found = file.read() == MAGIC
    file.seek(0)
    return found


def open_parquet(file: Any) -> pq.ParquetFile:
    """A Parquet file that is read as a stream.

    Raises:
        ValueError: its footer is damaged, or it is not Parquet.
        OSError: the storage failed.
    """
    try:
        return pq.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
    except OSError as error:
        if error.errno is None:  # Arrow's own, about a damaged footer
            raise ValueError(error) from error
        raise


def plain_schema(parquet: pq.ParquetFile) -> pa.Schema:
    """The columns, with the types of the values, not those in which they are stored."""
    return pa.schema([(field.name, _plain_type(field.type)) for field in parquet.schema_arrow])


def _plain_type(stored: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(stored):
        return stored.value_type
    return stored.storage_type if isinstance(stored, pa.BaseExtensionType) else stored


def parquet_members(
    file: Any, base: Item, done: Set[str], max_bytes: int, options: ReadOptions
) -> Iterator[Item]:
    """The rows of a Parquet file as images, except those in ``done``, named by their number in the
    file. The rows before the damage in a damaged row group are read, and so are later groups.

    Args:
        file: seekable, opened for reading.

    Raises:
        ShardError: some or all rows cannot be read; or there are none.
        FetchError: the storage failed.
    """
    parquet = _open(file)
    column = find_image_column(parquet.schema_arrow, options.image_column)
    if column is None:
        names = ", ".join(parquet.schema_arrow.names)
        raise ShardError("shard_corrupt", f"no column of image bytes among {names}")
    if not parquet.metadata.num_rows:
        raise ShardError("shard_empty", "the Parquet file has no rows")
    start, damage = 0, None
    for group in range(parquet.num_row_groups):
        end = start + parquet.metadata.row_group(group).num_rows
        uris = [f"{base.uri}#{row}" for row in range(start, end)]
        rows = _GroupReader(parquet, group, column, max_bytes, options)
        try:
            yield from rows.items(base, uris, done)
        except ShardError as error:
            damage = damage or error
        start = end
    if damage:
        raise damage


def _open(file: Any) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(
            file, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )
    except (ItemError, JobError):
        raise
    except Exception as error:  # on damaged footers, Arrow raises whatever it trips over
        file.seek(0)
        begins_well = file.read(len(MAGIC)) == MAGIC
        code = "shard_truncated" if begins_well and "footer" in str(error) else "shard_corrupt"
        raise ShardError(code, f"not a Parquet file: {one_line(error)}") from error


class _GroupReader:
    """One row group."""

    def __init__(
        self, parquet: pq.ParquetFile, group: int, column: str, max_bytes: int, options: ReadOptions
    ) -> None:
        self.parquet = parquet
        self.group = group
        self.column = column
        self.max_bytes = max_bytes
        self.kept = [f for f in options.kept if f.name in parquet.schema_arrow.names]

    def items(self, base: Item, uris: list[str], done: Set[str]) -> Iterator[Item]:
        """Items for the rows that are not done; ``uris`` are those of all rows."""
        if all(uri in done for uri in uris):
            return
        for uri, (data, kept) in zip(uris, self._rows(), strict=False):
            if uri not in done:
                yield self._item(replace(base, uri=uri, kept={**(base.kept or {}), **kept}), data)

    def _rows(self) -> Iterator[tuple[bytes | None, dict[str, Any]]]:
        try:
            for batch in self._batches():
                images = batch.column(self.column)
                if pa.types.is_struct(images.type):
                    images = pc.struct_field(images, "bytes")
                kept = {f.name: batch.column(f.name).cast(f.type).to_pylist() for f in self.kept}
                for row, data in enumerate(images.to_pylist()):
                    yield data, {name: values[row] for name, values in kept.items()}
        except (ItemError, JobError):
            raise
        except Exception as error:  # likewise on damaged pages
            text = f"row group {self.group} of {self.parquet.num_row_groups}: {one_line(error)}"
            raise ShardError("shard_corrupt", text) from error

    def _batches(self) -> Iterator[pa.RecordBatch]:
        stored = self.parquet.schema_arrow.field(self.column).type
        image = f"{self.column}.bytes" if pa.types.is_struct(stored) else self.column
        batches: Iterator[pa.RecordBatch] = self.parquet.iter_batches(
            BATCH_ROWS,
            row_groups=[self.group],
            columns=[image, *(f.name for f in self.kept)],
            use_threads=False,
        )
        return batches

    def _item(self, item: Item, data: bytes | None) -> Item:
        data = data or b""
        item = replace(item, size_bytes=len(data))
        try:
            check_size(len(data), self.max_bytes)
        except FetchError as error:
            return replace(item, error=error)
        return replace(item, data=data)
