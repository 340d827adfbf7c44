"""Hashes of names and versions: what the ledger knows of rows, instead of their strings.

An object is looked up by a 64-bit hash of its URI. It counts as done only if a second hash agrees,
by another key and over URI and version: 128 bits in all. Of a billion objects, two share the first
hash with a chance of 3 %; the second then differs, and the one that is not in the ledger counts as
changed: it is computed, and not lost. Both hashes are shared with a chance of 1.5e-21.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.spec import SHARD_SUFFIXES
from pipeline.storage.uris import with_ancestors

Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Positions = npt.NDArray[np.intp]
Ages = int | npt.NDArray[np.int32]
"""How many runs closed since: of all rows of a table, or of each."""

LEDGER_COLUMNS = ("uri", "source_version", "status", "error_code")

HASHED = pa.schema(
    [
        ("uri", pa.uint64()),
        ("shard", pa.uint64()),
        ("version", pa.uint64()),
        ("status", pa.string()),
        ("error_code", pa.string()),
    ]
)
"""Rows of the ledger without their names; ``shard`` is 0 for single images."""

_FIRST_KEY = "0123456789123456"
_SECOND_KEY = "cvt-batch ledger"
_BETWEEN = "\0"
_KEYS = ("_uri_hash", "_version_hash", "_owner_hash")


def hash_strings(column: pa.ChunkedArray) -> Hashes:
    """64-bit hashes of a string column; equal strings have equal hashes in every process."""
    return _hash(column, _FIRST_KEY)


def hash_versions(uris: pa.ChunkedArray, versions: pa.ChunkedArray) -> Hashes:
    """64-bit hashes of versions, each together with the URI of the object that has it."""
    columns = pc.fill_null(uris, ""), pc.fill_null(versions, "")
    return _hash(pc.binary_join_element_wise(*columns, _BETWEEN), _SECOND_KEY)


def _hash(column: pa.ChunkedArray, key: str) -> Hashes:
    hashes: list[Hashes] = [np.array([], np.uint64)]
    for chunk in column.chunks:  # one by one, because Python's strings take much memory
        values = pc.fill_null(chunk, "").to_numpy(zero_copy_only=False)
        values = values.astype(object, copy=False)
        hashes.append(pd.util.hash_array(values, hash_key=key, categorize=False))
    return np.concatenate(hashes)


@dataclass(frozen=True)
class ShardNames:
    """What tells the row of a shard's member from that of a single image: how its URI begins."""

    suffixes: tuple[str, ...]
    """The usual endings of shards, in lower case."""
    others: frozenset[str] = frozenset()
    """Shards with other endings."""

    def shards_of(self, uris: pa.ChunkedArray) -> pa.ChunkedArray:
        """The URI of the shard that each row came from, null for single images."""
        endings = "|".join(map(re.escape, self.suffixes))
        pattern = f"(?is)^(?P<shard>.*(?:{endings}))(?:#.*)?$"
        shards = pc.struct_field(pc.extract_regex(uris, pattern), "shard")
        if not self.others:
            return shards
        pairs = zip(uris.to_pylist(), shards.to_pylist(), strict=True)
        found = [self._other_shard_of(uri) or shard for uri, shard in pairs]
        return pa.chunked_array([pa.array(found, pa.string())])

    def _other_shard_of(self, uri: str) -> str | None:
        return next((shard for shard in with_ancestors(uri) if shard in self.others), None)

    def hashed(self, rows: pa.Table) -> pa.Table:
        """``HASHED`` rows of a table with ``LEDGER_COLUMNS``."""
        shards = self.shards_of(rows["uri"])
        is_member = shards.is_valid()
        owners = pc.if_else(is_member, shards, rows["uri"])
        columns = [
            hash_strings(rows["uri"]),
            np.where(is_member, hash_strings(shards), np.uint64(0)),
            hash_versions(owners, rows["source_version"]),
            rows["status"],
            rows["error_code"],
        ]
        return pa.table(columns, HASHED)


USUAL_SHARDS = ShardNames(tuple(chain.from_iterable(SHARD_SUFFIXES.values())))
"""By the endings of the shards that are found without being named."""


@dataclass(frozen=True)
class Keys:
    """By what listed objects are looked up, one element per object."""

    uris: Hashes
    versions: Hashes
    owners: Hashes
    """Of the URI by which the object is assigned to a range of hashes, with all that belongs to it:
    of its shard if its name is that of a member, else its own."""

    @classmethod
    def of(cls, listing: pa.Table, names: ShardNames) -> Keys:
        """Of the objects of a LISTING, to which they may be attached."""
        if _KEYS[0] in listing.column_names:
            return cls(*(listing[name].to_numpy() for name in _KEYS))
        uris = listing["uri"]
        owners, hashes = uris, hash_strings(uris)
        if pc.any(pc.match_substring(uris, "#")).as_py():  # else no name is that of a member
            owners = pc.coalesce(names.shards_of(uris), uris)
        of_owners = hashes if owners is uris else hash_strings(owners)
        return cls(hashes, hash_versions(owners, listing["source_version"]), of_owners)

    @classmethod
    def attach(cls, listing: pa.Table, names: ShardNames) -> pa.Table:
        """A LISTING with three more columns, which spare others to compute the hashes."""
        if _KEYS[0] in listing.column_names:
            return listing
        for name, column in zip(_KEYS, vars(cls.of(listing, names)).values(), strict=True):
            listing = listing.append_column(name, pa.array(column))
        return listing

    @staticmethod
    def detach(listing: pa.Table) -> pa.Table:
        """The LISTING as it was before."""
        return listing.drop_columns([name for name in _KEYS if name in listing.column_names])

    def take(self, positions: Positions) -> Keys:
        """Those of some of the objects."""
        return Keys(*(column[positions] for column in vars(self).values()))


@dataclass(frozen=True)
class HashRange:
    """One of so many ranges of equal width, into which all hashes are divided."""

    number: int = 0
    of: int = 1

    def holds(self, owners: Hashes) -> Mask:
        """Which hashes are in it."""
        held: Mask = ranges_of(owners, self.of) == self.number
        return held


ALL = HashRange()


def range_starts(ranges: int) -> Hashes:
    """With which hash each of so many ranges of equal width begins, but for the first."""
    return np.array([number * 2**64 // ranges for number in range(1, ranges)], np.uint64)


def ranges_of(hashes: Hashes, ranges: int) -> npt.NDArray[Any]:
    """The number of the range, of so many, that each hash is in."""
    return np.searchsorted(range_starts(ranges), hashes, side="right")


def owners_of(hashed: pa.Table) -> Hashes:
    """Of ``HASHED`` rows the hash by which each is assigned to a range: of its shard, if it is a
    member of one, so that what is in a shard stays together."""
    shards: Hashes = hashed["shard"].to_numpy()
    owners: Hashes = np.where(shards != 0, shards, hashed["uri"].to_numpy())
    return owners


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
