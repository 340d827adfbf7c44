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
    try:
        with store.fs.open(store.path(name)) as file:
            yield pq.ParquetFile(file)
    except pa.ArrowException as error:
        raise DamagedFileError(
            f"{store.locate(name)} is damaged: {one_line(error)}; {_ADVICE}"
        ) from error


def read_table(store: Store, name: str, columns: Iterable[str] | None = None) -> pa.Table:
    """One Parquet file of the output.

    Raises:
        DamagedFileError: it is none, or lacks one of the columns.
    """
    wanted = None if columns is None else list(columns)
    with open_table(store, name) as parquet:
        present = parquet.schema_arrow.names
        if missing := [column for column in wanted or () if column not in present]:
            raise DamagedFileError(
                f"{store.locate(name)} is damaged: it has no column {missing[0]}; {_ADVICE}"
            )
        return parquet.read(columns=wanted)


def read_columns(store: Store, names: Iterable[str], columns: Iterable[str]) -> Iterator[pa.Table]:
    """Some columns of many files, in the order of ``names``."""
    return map_ahead(lambda name: read_table(store, name, columns), names)


def write_table(store: Store, name: str, table: pa.Table, **options: Any) -> None:
    """Write one Parquet file, atomically."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **{"compression": "zstd", **options})
    store.write_bytes(name, sink.getvalue().to_pybytes())
