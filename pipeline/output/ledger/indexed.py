"""The hashes of a data file's rows, in a file of their own: a plan reads these, and not the rows.

Rows are in the order of the hash by which they are assigned to a range, and each row group holds
one of as many ranges of equal width as there are groups: whoever holds a part of the ledger reads
its groups alone. Each row also says where it is in the data file, so that names are found again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.contract import layout
from pipeline.contract.errors import DamagedFileError
from pipeline.output.ledger.hashes import (
    ALL,
    HASHED,
    LEDGER_COLUMNS,
    USUAL_SHARDS,
    HashIndex,
    HashRange,
    Positions,
    hash_strings,
    owners_of,
    ranges_of,
)
from pipeline.storage.parquet import open_table
from pipeline.storage.store import Store

GROUP_ROWS = 32_768
"""In a row group, about."""
_ROW = "row"


def write_hashes(store: Store, data_file: str) -> int:
    """Write the hashes of a data file; returns how many rows it has.

    Raises:
        DamagedFileError: it is no data file.
        FileNotFoundError: it is gone.
    """
    with open_table(store, data_file) as parquet:
        batches = parquet.iter_batches(columns=list(LEDGER_COLUMNS))
        hashed = [USUAL_SHARDS.hashed(pa.Table.from_batches([batch])) for batch in batches]
    table = pa.concat_tables([HASHED.empty_table(), *hashed])
    table = table.append_column(_ROW, pa.array(np.arange(len(table), dtype=np.int32)))
    owners = owners_of(table)
    groups = 1 << (len(table) // GROUP_ROWS).bit_length()
    order = np.argsort(owners)
    bounds = np.searchsorted(ranges_of(owners[order], groups), np.arange(groups + 1))
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        for start, stop in pairwise(bounds):
            rows = table.take(pa.array(order[start:stop]))
            writer.write_table(rows, row_group_size=max(len(rows), 1))
    store.write_bytes(layout.history_hashes(data_file), sink.getvalue().to_pybytes())
    return len(table)


def read_hashes(store: Store, data_file: str, rows: int, part: HashRange = ALL) -> pa.Table:
    """The ``HASHED`` rows of a data file of so many rows whose hashes were written, as far as they
    are in the part.

    Raises:
        DamagedFileError: what was written is damaged.
        FileNotFoundError: it is gone.
    """
    with open_table(store, layout.history_hashes(data_file)) as parquet:
        if parquet.metadata.num_rows != rows:
            raise DamagedFileError(f"{layout.history_hashes(data_file)} is about other rows")
        groups = _groups(parquet.num_row_groups, part)
        table = parquet.read_row_groups(groups, columns=HASHED.names)
    if part == ALL:
        return table
    return table.filter(pa.array(part.holds(owners_of(table))))


def _groups(number: int, part: HashRange) -> list[int]:
    """Those of so many row groups that have rows of the part."""
    first = part.number * number // part.of
    last = -(-(part.number + 1) * number // part.of)
    return list(range(first, last))


def names_of(store: Store, data_file: str, wanted: HashIndex) -> list[str]:
    """The URIs, in a data file whose hashes were written, that have one of these hashes.

    Raises:
        DamagedFileError: one of the files is damaged.
        FileNotFoundError: one is gone.
    """
    with open_table(store, layout.history_hashes(data_file)) as parquet:
        found: list[npt.NDArray[np.int32]] = [np.array([], np.int32)]
        for batch in parquet.iter_batches(columns=["uri", _ROW]):
            found.append(batch[_ROW].to_numpy()[wanted.find(batch["uri"].to_numpy())[0]])
    with open_table(store, data_file) as parquet:
        rows = np.sort(np.concatenate(found)).astype(np.intp)
        return [uri for column in _uris_at(parquet, rows) for uri in column.to_pylist()]


def _uris_at(parquet: pq.ParquetFile, rows: Positions) -> Iterator[pa.ChunkedArray]:
    """The URIs of these rows, of which only their row groups are read."""
    start = 0
    for group in range(parquet.num_row_groups):
        stop = start + parquet.metadata.row_group(group).num_rows
        low, high = np.searchsorted(rows, [start, stop])
        if low < high:
            uris = parquet.read_row_group(group, columns=["uri"])["uri"]
            yield uris.take(pa.array(rows[low:high] - start))
        start = stop


def names_among(store: Store, data_file: str, wanted: HashIndex) -> list[str]:
    """The same of a data file whose hashes were not written."""
    found: list[str] = []
    with open_table(store, data_file) as parquet:
        for batch in parquet.iter_batches(columns=["uri"]):
            uris = pa.chunked_array([batch["uri"]])
            found += pc.filter(uris, pa.array(wanted.find(hash_strings(uris))[0])).to_pylist()
    return found
