"""What earlier runs did: an index over the rows that they committed.

The published files are the only record. The index keeps two 64-bit hashes and an error code per
row, about 17 bytes, so that the ledger of tens of millions of images fits on a driver.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.intp]

LEDGER_COLUMNS = ("uri", "source_version", "status", "error_code")

_EMPTY = pa.schema([(name, pa.string()) for name in LEDGER_COLUMNS]).empty_table()
_SHARD_URI = r"^(?P<shard>.*\.(?:tar|tar\.gz|tgz))(?:#.*)?$"


def hash_strings(column: pa.ChunkedArray | pa.Array) -> Hashes:
    """64-bit hashes of a string column, equal strings to equal hashes within one process."""
    values = pc.fill_null(column, "").to_numpy(zero_copy_only=False)
    hashes: Hashes = pd.util.hash_array(values.astype(object, copy=False), categorize=False)
    return hashes


def shard_of(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """The uri of the shard that each row came from, null for images of their own."""
    return pc.struct_field(pc.extract_regex(uris, _SHARD_URI), "shard")


@dataclass(frozen=True)
class HashIndex:
    """Sorted unique hashes; looks up many keys at once."""

    keys: Hashes

    def find(self, keys: Hashes) -> tuple[Mask, Positions]:
        """``(found, position)``; a position is meaningful only where found."""
        if not len(self.keys):
            return np.zeros(len(keys), bool), np.zeros(len(keys), np.intp)
        positions = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return self.keys[positions] == keys, positions


@dataclass(frozen=True)
class Matches:
    """How listed objects compare with the ledger, one element per object."""

    known: Mask
    """The uri has a row."""
    same: Mask
    """... of the same source_version."""
    rows: npt.NDArray[np.int64]
    """How many rows the ledger has of the object: 1 for an image, the members of a shard."""
    failed: npt.NDArray[np.int16]
    """Index into ``Ledger.codes`` of the row's error, -1 for none."""


@dataclass
class Ledger:
    """Rows of earlier runs, the newest row of each uri, and the same summed up by shard."""

    index: HashIndex
    versions: Hashes
    codes: list[str]
    code_index: npt.NDArray[np.int16]
    shards: HashIndex
    shard_versions: Hashes
    shard_rows: npt.NDArray[np.int64]
    row_shards: Hashes = field(repr=False)
    """Hash of the shard that each row came from, 0 for none."""
    seen: Mask = field(repr=False)
    """Rows whose object the current listing has met; the others have vanished."""
    current: Mask = field(repr=False)
    """Rows whose object the current listing has met in the same version."""

    @classmethod
    def from_tables(cls, newest_first: Iterable[pa.Table]) -> Ledger:
        """Build from tables with ``LEDGER_COLUMNS``, the newest run first."""
        columns = [_hash_columns(table) for table in newest_first]
        columns = columns or [_hash_columns(_EMPTY)]
        uris, versions, shards, errors = (
            np.concatenate([part[i] for part in columns]) for i in range(4)
        )
        # np.unique returns first occurrences, which are the newest rows.
        keys, first = np.unique(uris, return_index=True)
        codes, code_index = np.unique(errors[first].astype(str), return_inverse=True)
        offset = 1 if len(codes) and codes[0] == "" else 0
        shard_keys, shard_versions, shard_rows = _sum_shards(shards[first], versions[first], first)
        return cls(
            index=HashIndex(keys),
            versions=versions[first],
            codes=[str(code) for code in codes[offset:]],
            code_index=(code_index - offset).astype(np.int16),
            shards=HashIndex(shard_keys),
            shard_versions=shard_versions,
            shard_rows=shard_rows,
            row_shards=shards[first],
            seen=np.zeros(len(keys), bool),
            current=np.zeros(len(keys), bool),
        )

    def __len__(self) -> int:
        return len(self.index.keys)

    def match_images(self, uris: pa.ChunkedArray, versions: pa.ChunkedArray) -> Matches:
        """Compare listed images with the rows of the same uri."""
        known, at = self.index.find(hash_strings(uris))
        same = known & (self.versions[at] == hash_strings(versions)) if len(self) else known
        self.seen[at[known]] = True
        self.current[at[same]] = True
        failed = np.full(len(known), -1, np.int16)
        failed[known] = self.code_index[at[known]]
        return Matches(known, same, known.astype(np.int64), failed)

    def match_shards(self, uris: pa.ChunkedArray, versions: pa.ChunkedArray) -> Matches:
        """Compare listed shards with the rows of their members."""
        keys = hash_strings(uris)
        known, at = self.shards.find(keys)
        same = known.copy()
        same[known] = self.shard_versions[at[known]] == hash_strings(versions)[known]
        self.seen |= np.isin(self.row_shards, keys[known])
        self.current |= np.isin(self.row_shards, keys[same])
        rows = np.zeros(len(known), np.int64)
        rows[known] = self.shard_rows[at[known]]
        return Matches(known, same, rows, np.full(len(known), -1, np.int16))

    def is_current(self, uris: pa.ChunkedArray) -> Mask:
        """Which of these rows stand for an object that the listing met in the same version."""
        known, at = self.index.find(hash_strings(uris))
        return known & self.current[at] if len(self) else known


def _hash_columns(table: pa.Table) -> tuple[Hashes, Hashes, Hashes, npt.NDArray[Any]]:
    """Hashes of uri, version and shard (0 for none), and the error codes ("" for none)."""
    shards = shard_of(table["uri"])
    shard_hashes = np.where(shards.is_valid().to_numpy(), hash_strings(shards), np.uint64(0))
    errors = pc.fill_null(table["error_code"], "").to_numpy(zero_copy_only=False)
    return hash_strings(table["uri"]), hash_strings(table["source_version"]), shard_hashes, errors


def _sum_shards(
    shards: Hashes, versions: Hashes, age: Positions
) -> tuple[Hashes, Hashes, npt.NDArray[np.int64]]:
    """Per shard: its hash, its newest version, and the rows that it has of that version."""
    members = np.flatnonzero(shards)
    members = members[np.argsort(age[members], kind="stable")]
    keys, first, inverse = np.unique(shards[members], return_index=True, return_inverse=True)
    newest = versions[members][first]
    current = versions[members] == newest[inverse]
    return keys, newest, np.bincount(inverse[current], minlength=len(keys)).astype(np.int64)
