"""Parquet files of a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.read_ahead import map_ahead
from pipeline.storage.store import Store


def read_table(store: Store, name: str, columns: Iterable[str] | None = None) -> pa.Table:
    """One Parquet file of the output."""
    with store.fs.open(store.path(name)) as file:
        return pq.ParquetFile(file).read(columns=list(columns) if columns else None)


def read_columns(store: Store, names: Iterable[str], columns: Iterable[str]) -> Iterator[pa.Table]:
    """Some columns of many files, in the order of ``names``."""
    return map_ahead(lambda name: read_table(store, name, columns), names)


def write_table(store: Store, name: str, table: pa.Table, **options: Any) -> None:
    """Write one Parquet file, atomically."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **{"compression": "zstd", **options})
    store.write_bytes(name, sink.getvalue().to_pybytes())
