"""What earlier runs did: an index over the rows that they committed.

The published files are the only record. The index keeps some 50 bytes a row (hashes, not names),
so that the ledger of tens of millions of images fits on a driver.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.schema import Status
from pipeline.storage.uris import with_ancestors

Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Positions = npt.NDArray[np.intp]
Ages = int | npt.NDArray[np.int32]
"""How many runs closed since: of all rows of a table, or of each."""

LEDGER_COLUMNS = ("uri", "source_version", "status", "error_code")

_EMPTY_SHARD = "shard_empty"
_EMPTY = pa.schema([(name, pa.string()) for name in LEDGER_COLUMNS]).empty_table()


def hash_strings(column: pa.ChunkedArray) -> Hashes:
    """64-bit hashes of a string column; equal strings have equal hashes in every process."""
    hashes: list[Hashes] = [np.array([], np.uint64)]
    for chunk in column.chunks:  # one by one, because Python's strings take much memory
        values = pc.fill_null(chunk, "").to_numpy(zero_copy_only=False)
        hashes.append(pd.util.hash_array(values.astype(object, copy=False), categorize=False))
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
    """The object has rows."""
    same: Mask
    """... with the same source_version."""
    at: Positions
    """The position of the object in the ledger; meaningful only where it is known."""
    rows: Numbers
    """How many rows the ledger has of the object: 1 for an image, one per member of a shard."""
    failures: Numbers
    """(objects, codes): how many of these rows failed, by the codes of the ledger."""


@dataclass(frozen=True)
class Objects:
    """Images, or shards, by the hash of their URI: what became of their newest version."""

    index: HashIndex
    versions: Hashes
    rows: Numbers
    failures: Numbers
    """(slots, codes): rows by error code, for the objects that have any; the last slot is empty."""
    slots: npt.NDArray[np.int32]
    """The row of ``failures`` that belongs to each object."""

    @classmethod
    def group(
        cls, keys: Hashes, versions: Hashes, codes: Numbers, num_codes: int, counted: Mask
    ) -> tuple[Self, Positions]:
        """Sum up rows, newest first, by key; also the position of each row's object.

        ``codes`` holds the position of each row's error code, -1 for none.
        """
        unique, newest, at = np.unique(keys, return_index=True, return_inverse=True)
        current = counted & (versions == versions[newest][at])
        failed = current & (codes >= 0)
        failing = np.unique(at[failed])
        slots = np.full(len(unique), -1, np.int32)
        slots[failing] = np.arange(len(failing))
        failures = np.zeros((len(failing) + 1, num_codes), np.int64)
        np.add.at(failures, (slots[at[failed]], codes[failed]), 1)
        objects = cls(
            index=HashIndex(unique),
            versions=versions[newest],
            rows=np.bincount(at[current], minlength=len(unique)),
            failures=failures,
            slots=slots,
        )
        return objects, at

    def __len__(self) -> int:
        return len(self.index.keys)

    def match(self, uris: pa.ChunkedArray, versions: pa.ChunkedArray) -> Matches:
        """Compare listed objects with these."""
        known, at = self.index.find(hash_strings(uris))
        same = known.copy()
        same[known] = self.versions[at[known]] == hash_strings(versions)[known]
        rows = np.zeros(len(known), np.int64)
        rows[known] = self.rows[at[known]]
        slots = np.full(len(known), -1)
        slots[known] = self.slots[at[known]]
        return Matches(known, same, at, rows, self.failures[slots])


@dataclass(frozen=True)
class Ledger:
    """Rows of earlier runs: the newest row of each URI, and the same summed up by shard.

    A URI whose newest row says that its image vanished is not in it.
    """

    codes: list[str]
    images: Objects
    """Every row by its own URI."""
    shards: Objects
    shard_at: Positions
    """Of each row, in the order of ``images``: the position of its shard, -1 for none."""
    names: ShardNames
    """How shards were recognised."""

    superseded: Mask
    """Of each row: whether a newer run read its shard to the end, and did not meet it there."""
    damaged: Mask
    """Of each shard: whether the newest run that read it could not read it to the end."""

    @classmethod
    def from_tables(cls, tables: Iterable[pa.Table], names: ShardNames) -> Ledger:
        """Build from the tables of one run, with ``LEDGER_COLUMNS``."""
        return cls.from_runs([tables], names)

    @classmethod
    def from_runs(cls, newest_first: Iterable[Iterable[pa.Table]], names: ShardNames) -> Ledger:
        """Build from tables with ``LEDGER_COLUMNS``, the newest run first."""
        return cls.from_aged(_with_ages(newest_first), names)

    @classmethod
    def from_aged(cls, newest_first: Iterable[tuple[Ages, pa.Table]], names: ShardNames) -> Ledger:
        """Build from tables with ``LEDGER_COLUMNS`` and the ages of their rows; rows of the newest
        run, whose age is 0, come first."""
        codes: dict[str, int] = {}
        tables = chain([(0, _EMPTY)], newest_first)
        rows = _Rows.concatenate([_Rows.of(table, ages, names, codes) for ages, table in tables])
        # np.unique returns first occurrences, which are the newest rows of their uris.
        newest = np.sort(np.unique(rows.uris, return_index=True)[1])
        rows = rows.take(newest[rows.present[newest]])
        every = np.ones(len(rows.uris), bool)
        images, at = Objects.group(rows.uris, rows.versions, rows.codes, len(codes), every)
        is_member = rows.shards != 0
        members = rows.take(np.flatnonzero(is_member))
        old, damaged = members.superseded(codes.get(_EMPTY_SHARD, -1))
        shards, of = Objects.group(
            members.shards, members.versions, members.codes, len(codes), ~old
        )
        shard_at = np.full(len(images), -1)
        shard_at[at[is_member]] = of
        superseded = np.zeros(len(images), bool)
        superseded[at[is_member]] = old
        return cls(list(codes), images, shards, shard_at, names, superseded, damaged)

    def replaced_by(self, newer: Ledger) -> Mask:
        """Of each row: whether ``newer`` has its shard, read to the end, and not the row."""
        found, at = newer.shards.index.find(self.shards.index.keys)
        found[found] = ~newer.damaged[at[found]]
        is_there, _ = newer.images.index.find(self.uris)
        replaced: Mask = self.of_shards(found) & ~is_there
        return replaced

    def __len__(self) -> int:
        return len(self.images)

    @property
    def uris(self) -> Hashes:
        """Of every row, in order."""
        return self.images.index.keys

    def of_shards(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """For every row the value of its shard; 0 for single images."""
        return np.append(values, values.dtype.type(0))[self.shard_at]


@dataclass(frozen=True)
class _Rows:
    """Columns of rows, hashed."""

    uris: Hashes
    versions: Hashes
    shards: Hashes
    """0 for single images."""
    codes: Numbers
    """Positions of the error codes, -1 for none."""
    present: Mask
    """False for the rows of images that vanished."""
    ages: npt.NDArray[np.int32]
    """0 for rows of the newest run."""

    @classmethod
    def of(cls, table: pa.Table, ages: Ages, names: ShardNames, codes: dict[str, int]) -> Self:
        """Hash a table, and add its new error codes to ``codes``."""
        for code in pc.unique(table["error_code"]).drop_null().to_pylist():
            codes.setdefault(code, len(codes))
        positions = pc.index_in(table["error_code"], pa.array(codes, pa.string()))
        shards = names.shards_of(table["uri"])
        return cls(
            hash_strings(table["uri"]),
            hash_strings(table["source_version"]),
            np.where(shards.is_valid(), hash_strings(shards), np.uint64(0)),
            pc.fill_null(positions, -1).to_numpy().astype(np.int64),
            pc.not_equal(table["status"], Status.VANISHED.value).to_numpy(),
            np.broadcast_to(np.asarray(ages, np.int32), table.num_rows),
        )

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def take(self, positions: Positions) -> Self:
        return type(self)(*(column[positions] for column in vars(self).values()))

    def superseded(self, empty: int) -> tuple[Mask, Mask]:
        """Of members, newest first: which are older than the newest run that read their shard to
        its end; and, by the order of their shards, which of these it could not read so.

        ``empty`` is the code of a shard that was read, and has no image.
        """
        unique, newest, at = np.unique(self.shards, return_index=True, return_inverse=True)
        is_older = self.ages > self.ages[newest][at]
        is_damage = (self.uris == self.shards) & (self.codes >= 0) & (self.codes != empty)
        damaged = np.zeros(len(unique), bool)
        damaged[at[is_damage & ~is_older]] = True
        return is_older & ~damaged[at], damaged


def _with_ages(newest_first: Iterable[Iterable[pa.Table]]) -> Iterator[tuple[int, pa.Table]]:
    return ((age, table) for age, tables in enumerate(newest_first) for table in tables)
