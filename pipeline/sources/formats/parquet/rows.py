"""Images inside Parquet files, read as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.contract.errors import FetchError, ItemError, JobError, ShardError, one_line
from pipeline.sources.formats.item import Item, ReadOptions
from pipeline.sources.formats.parquet.files import MAGIC, find_image_column, open_parquet
from pipeline.sources.formats.parquet.pages import PageGuard
from pipeline.sources.kept_values import fitted_row
from pipeline.storage.files import check_size

BUFFER_BYTES = 4 * 2**20
"""Column chunks are read in pieces of this size, so that a row group of any size streams."""
BATCH_ROWS = 1
"""Values of a dictionary are repeated in every row of a batch, however large they are."""
FREE_ROWS = 2**20
"""A row group may have more only if it has a byte for each."""
FREE_BYTES = 2**30
MOST_TIMES = 2000
"""Once ``FREE_BYTES`` of images came from a row group, they may be this many times its size."""


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
    guard = PageGuard(file)
    parquet = _open(guard, options)
    column = find_image_column(parquet.schema_arrow, options.image_column)
    if column is None:
        names = ", ".join(parquet.schema_arrow.names)
        raise ShardError("shard_corrupt", f"no column of image bytes among {names}")
    if not parquet.metadata.num_rows:
        raise ShardError("shard_empty", "the Parquet file has no rows")
    start, damage = 0, None
    for group in range(parquet.num_row_groups):
        rows = _GroupReader(parquet, guard, group, column, max_bytes, options)
        try:
            yield from rows.items(base, start, done)
        except ShardError as error:
            damage = damage or error
        start += rows.count
    if damage:
        raise damage


def _open(file: PageGuard, options: ReadOptions) -> pq.ParquetFile:
    settings = {"buffer_size": BUFFER_BYTES, "page_checksum_verification": True}
    try:
        parquet = open_parquet(file, **settings)
        repeated = _repeated(parquet, options.kept)
        if repeated:  # values of a dictionary would be repeated in every element of a list
            parquet = open_parquet(file, read_dictionary=repeated, **settings)
        return parquet
    except (ItemError, JobError):
        raise
    except Exception as error:  # on damaged footers, Arrow raises whatever it trips over
        file.seek(0)
        begins_well = file.read(len(MAGIC)) == MAGIC
        code = "shard_truncated" if begins_well and "footer" in str(error) else "shard_corrupt"
        raise ShardError(code, f"not a Parquet file: {one_line(error)}") from error


def _repeated(parquet: pq.ParquetFile, kept: pa.Schema) -> list[str]:
    """The paths of texts inside lists and maps of kept columns."""
    leaves = [parquet.schema.column(number) for number in range(len(parquet.schema))]
    return [
        leaf.path
        for leaf in leaves
        if leaf.max_repetition_level
        and leaf.physical_type == "BYTE_ARRAY"
        and any(leaf.path.startswith(f"{name}.") for name in kept.names)
    ]


class _GroupReader:
    """One row group."""

    def __init__(
        self,
        parquet: pq.ParquetFile,
        guard: PageGuard,
        group: int,
        column: str,
        max_bytes: int,
        options: ReadOptions,
    ) -> None:
        self.parquet = parquet
        self.guard = guard
        self.group = group
        self.metadata = parquet.metadata.row_group(group)
        self.count = self.metadata.num_rows
        self.column = column
        self.max_bytes = max_bytes
        self.packed = 0
        """Bytes that the columns take in the file."""
        self.given = 0
        """Bytes of the images so far."""
        self.kept = pa.schema([f for f in options.kept if f.name in parquet.schema_arrow.names])

    def items(self, base: Item, start: int, done: Set[str]) -> Iterator[Item]:
        """Items for the rows that are not done, of which the first has this number."""
        uris = (f"{base.uri}#{row}" for row in range(start, start + self.count))
        if len(done) >= self.count and all(uri in done for uri in uris):
            return
        for row, (image, kept, size) in enumerate(self._rows(), start):
            uri = f"{base.uri}#{row}"
            if uri not in done:
                item = replace(base, uri=uri, kept={**(base.kept or {}), **kept}, kept_bytes=size)
                yield self._item(item, image)

    def _rows(self) -> Iterator[tuple[pa.Scalar | None, dict[str, Any], int]]:
        """The image of every row, its kept values, and how many bytes these have."""
        try:
            self._watch()
            for batch in self._batches():
                image = image_bytes(batch.column(batch.schema.names.index(self.column))[0])
                yield image, *fitted_row(batch, self.kept)
        except (ItemError, JobError):
            raise
        except Exception as error:  # likewise on damaged pages
            text = f"row group {self.group} of {self.parquet.num_row_groups}: {one_line(error)}"
            raise ShardError("shard_corrupt", text) from error

    def _watch(self) -> None:
        """Let nothing be read that takes out of all proportion."""
        chunks = [self.metadata.column(number) for number in self._leaves()]
        self.packed = sum(chunk.total_compressed_size for chunk in chunks)
        if self.count > max(FREE_ROWS, self.packed):
            raise ShardError("shard_corrupt", f"{self.count} rows in {self.packed} bytes")
        starts = [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks]
        sizes = [chunk.total_compressed_size for chunk in chunks]
        self.guard.watch((at, at + size) for at, size in zip(starts, sizes, strict=True))

    def _columns(self) -> list[str]:
        schema = self.parquet.schema_arrow
        stored = schema.types[schema.names.index(self.column)]
        image = f"{self.column}.bytes" if pa.types.is_struct(stored) else self.column
        return [image, *self.kept.names]

    def _leaves(self) -> list[int]:
        """Parquet's own columns that belong to these."""
        columns = self._columns()
        paths = [self.parquet.schema.column(n).path for n in range(len(self.parquet.schema))]
        prefixes = tuple(f"{name}." for name in columns)
        return [n for n, p in enumerate(paths) if p in columns or p.startswith(prefixes)]

    def _batches(self) -> Iterator[pa.RecordBatch]:
        batches: Iterator[pa.RecordBatch] = self.parquet.iter_batches(
            BATCH_ROWS, row_groups=[self.group], columns=self._columns(), use_threads=False
        )
        return batches

    def _item(self, item: Item, image: pa.Scalar | None) -> Item:
        size = image.as_buffer().size if image is not None else 0
        self.given += size
        if self.given > max(FREE_BYTES, MOST_TIMES * self.packed):
            raise ShardError("shard_corrupt", f"{self.given} bytes of images in {self.packed}")
        item = replace(item, size_bytes=size)
        try:
            check_size(size, self.max_bytes)
        except FetchError as error:
            return replace(item, error=error)
        return replace(item, data=image.as_py() if image is not None else b"")


def image_bytes(value: pa.Scalar) -> pa.Scalar | None:
    """The bytes of an image, however they are stored; None for null."""
    while isinstance(value, pa.ExtensionScalar | pa.DictionaryScalar) and value.is_valid:
        value = value.value
    if isinstance(value, pa.StructScalar) and value.is_valid:
        return image_bytes(value["bytes"])
    return value if value.is_valid else None
