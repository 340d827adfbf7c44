"""Parquet files of a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.contract.errors import DamagedFileError, one_line
from pipeline.storage.read_ahead import map_ahead
from pipeline.storage.store import Store

_ADVICE = "restore it, or do everything again with <policy.full>"


@contextmanager
def open_table(store: Store, name: str) -> Iterator[pq.ParquetFile]:
    """One Parquet file of the output, as long as the context.

    Raises:
        DamagedFileError: it is none, or turns out inside to be damaged.
    """
    with store.fs.open(store.path(name)) as file, _damage_named(store, name):
        yield pq.ParquetFile(file)


@contextmanager
def _damage_named(store: Store, name: str) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise DamagedFileError(
            f"{store.locate(name)} is damaged: {one_line(error)}; {_ADVICE}"
        ) from error


def read_table(store: Store, name: str, columns: Iterable[str] | None = None) -> pa.Table:
    """One Parquet file of the output.

    Raises:
        DamagedFileError: it is none, or lacks one of the columns.
    """
    with open_table(store, name) as parquet:
        return _read(parquet, store.locate(name), columns)


def read_whole_table(store: Store, name: str, columns: Iterable[str]) -> pa.Table:
    """The same for a file that fits in memory and consists of little else than these columns: all
    of it is read at once, by a single request.

    Raises:
        DamagedFileError: it is none, or lacks one of the columns.
    """
    data = store.read_bytes(name)
    with _damage_named(store, name):
        return _read(pq.ParquetFile(pa.BufferReader(data)), store.locate(name), columns)


def _read(parquet: pq.ParquetFile, place: str, columns: Iterable[str] | None) -> pa.Table:
    wanted = None if columns is None else list(columns)
    present = parquet.schema_arrow.names
    if missing := [column for column in wanted or () if column not in present]:
        raise DamagedFileError(f"{place} is damaged: it has no column {missing[0]}; {_ADVICE}")
    return parquet.read(columns=wanted)


def read_columns(store: Store, names: Iterable[str], columns: Iterable[str]) -> Iterator[pa.Table]:
    """Some columns of many files, in the order of ``names``."""
    return map_ahead(lambda name: read_table(store, name, columns), names)


def write_table(store: Store, name: str, table: pa.Table, **options: Any) -> None:
    """Write one Parquet file, atomically."""
    store.write_bytes(name, table_bytes(table, **options))


def table_bytes(table: pa.Table, **options: Any) -> bytes:
    """A Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **{"compression": "zstd", **options})
    data: bytes = sink.getvalue().to_pybytes()
    return data
