"""The live rows of an output: the newest of each image that is there, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.schema import Status
from pipeline.output.ledger.hashes import Hashes, HashIndex, Mask, Positions, hash_strings
from pipeline.output.ledger.history import History
from pipeline.storage.parquet import open_table, read_columns
from pipeline.storage.store import Store

_KEY_COLUMNS = ("uri", "source_version", "sha256", "error_code")
_COLUMNS = (*_KEY_COLUMNS, "status")
_NAMES_AT_ONCE = 65_536
_URIS_AT_ONCE = 2**20
"""Held to be compared, some 200 MB of them."""


@dataclass(frozen=True)
class LiveRows:
    """Some of the rows of an output; takes 25 bytes of memory per row of its files."""

    store: Store
    files: dict[str, int]
    """Rows by name of the file, the newest run first."""
    uris: Hashes
    """For every row of the files, the hash of its URI."""
    keys: Hashes
    """For every row of the files, a hash of what it says about its image."""
    chosen: Mask
    """For every row of the files, whether it is one of these rows."""
    vanished: Mask
    """For every row of the files, whether it is the newest of its URI and says that the image is no
    longer there."""

    @classmethod
    def of(cls, history: History) -> Self:
        """The newest row of each URI in the live runs, unless its image vanished."""
        files = {file: 0 for run in history.runs for file in run.file_names}
        uris, keys = [np.array([], np.uint64)], [np.array([], np.uint64)]
        is_present = [np.array([], bool)]
        tables = read_columns(history.store, files, _COLUMNS)
        for name, table in zip(files, tables, strict=True):
            files[name] = table.num_rows
            uris.append(hash_strings(table["uri"]))
            keys.append(_hash_rows(table))
            is_present.append(pc.not_equal(table["status"], Status.VANISHED.value).to_numpy())
        present = np.concatenate(is_present)
        none = np.zeros(len(present), bool)
        rows = cls(history.store, files, np.concatenate(uris), np.concatenate(keys), none, none)
        newest = rows.newest()
        return replace(rows, chosen=newest & present, vanished=newest & ~present)

    def newest(self) -> Mask:
        """Of every row, whether it is the newest of its URI. Equal hashes are not believed: of
        some billion URIs two are likely to share one, and neither may cost the other its row."""
        _, first, at, times = np.unique(
            self.uris, return_index=True, return_inverse=True, return_counts=True
        )
        newest = np.zeros(len(self.uris), bool)
        newest[first] = True
        repeated = times[at] > 1
        portions = ceil(repeated.sum() / _URIS_AT_ONCE)
        for number in range(portions):
            some = repeated & (at % portions == number)
            newest[np.flatnonzero(some)[replace(self, chosen=some)._first()]] = True
        return newest

    def _first(self) -> Positions:
        """Which of these rows are the first of their URI."""
        batches = self.batches(_NAMES_AT_ONCE, ["uri"])
        numbers: dict[str, int] = {}
        uris = chain.from_iterable(batch["uri"].to_pylist() for batch in batches)
        for position, uri in enumerate(uris):
            numbers.setdefault(uri, position)
        return np.fromiter(numbers.values(), np.intp, len(numbers))

    def __len__(self) -> int:
        return int(self.chosen.sum())

    def without(self, other: LiveRows) -> LiveRows:
        """These rows, except those that ``other`` has with the same key."""
        known, _ = HashIndex(np.unique(other.keys[other.chosen])).find(self.keys)
        return replace(self, chosen=self.chosen & ~known)

    def missing_in(self, other: LiveRows) -> list[str]:
        """The URIs of these rows that ``other`` has no row of, in order."""
        known, _ = HashIndex(np.unique(other.uris[other.chosen])).find(self.uris)
        return replace(self, chosen=self.chosen & ~known).names()

    def names(self) -> list[str]:
        """The URIs of these rows, in order."""
        batches = self.batches(_NAMES_AT_ONCE, ["uri"])
        return sorted(uri for batch in batches for uri in batch["uri"].to_pylist())

    def batches(self, rows: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows themselves, at most ``rows`` at a time, with all or some of their columns."""
        start = 0
        for name, length in self.files.items():
            chosen = self.chosen[start : start + length]
            start += length
            if chosen.any():
                yield from self._read(name, chosen, rows, columns)

    def _read(
        self, name: str, chosen: Mask, rows: int, columns: list[str] | None
    ) -> Iterator[pa.Table]:
        with open_table(self.store, name) as parquet:
            start = 0
            for batch in parquet.iter_batches(batch_size=rows, columns=columns):
                wanted = chosen[start : start + batch.num_rows]
                start += batch.num_rows
                if wanted.any():
                    table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
                    yield table.filter(pa.array(wanted))


def _hash_rows(table: pa.Table) -> Hashes:
    """64-bit hashes of whole keys; the odd factors keep equal columns from cancelling out."""
    total = np.zeros(table.num_rows, np.uint64)
    for name in _KEY_COLUMNS:
        total = total * np.uint64(0x9E3779B97F4A7C15) + hash_strings(table[name])
    return total
