"""What earlier runs did: an index over the rows that they committed.

The published files are the only record. The index keeps some 50 bytes a row (hashes, not names),
so that the ledger of tens of millions of images fits on a driver.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.schema import Status
from pipeline.output.ledger.hashes import (
    HASHED,
    Ages,
    Hashes,
    HashIndex,
    Keys,
    Mask,
    Numbers,
    Positions,
    ShardNames,
)
from pipeline.output.ledger.known import Known, Matches

Codes = npt.NDArray[np.int16]
"""Positions of error codes, -1 for none."""
_EMPTY_SHARD = "shard_empty"


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
        cls,
        keys: Hashes,
        versions: Hashes,
        codes: Codes,
        num_codes: int,
        counted: Mask,
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

    def match(self, keys: Keys) -> Matches:
        """Compare listed objects with these."""
        known, at = self.index.find(keys.uris)
        same = known.copy()
        same[known] = self.versions[at[known]] == keys.versions[known]
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
        aged = _with_ages(newest_first)
        return cls.from_hashed(((age, names.hashed(table)) for age, table in aged), names)

    @classmethod
    def from_hashed(
        cls, newest_first: Iterable[tuple[Ages, pa.Table]], names: ShardNames
    ) -> Ledger:
        """Build from ``HASHED`` rows and their ages; rows of the newest run, whose age is 0, come
        first."""
        codes: dict[str, int] = {}
        tables = chain([(0, HASHED.empty_table())], newest_first)
        rows = _Rows.concatenate([_Rows.of(table, ages, codes) for ages, table in tables])
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

    @property
    def sizes(self) -> tuple[int, int]:
        """How many rows there are, and how many shards."""
        return len(self.images), len(self.shards)

    def match(self, keys: Keys, *, are_shards: bool) -> Matches:
        """Compare listed images, or shards, with these."""
        return (self.shards if are_shards else self.images).match(keys)

    def vanished(self, met: Mask, met_shards: Mask, now: Known | None) -> HashIndex:
        """As ``Known`` says."""
        gone = ~(met | self.of_shards(met_shards)) | self.superseded
        if now is not None:
            there, replaced = now.look_up(self.uris, self.of_shards(self.shards.index.keys))
            gone = (gone | replaced) & ~there
        return HashIndex(self.uris[gone])

    def stale(self, same: Mask, same_shards: Mask) -> HashIndex:
        """As ``Known`` says."""
        is_newest = self.of_shards(self.shards.versions) == self.images.versions
        members = self.of_shards(same_shards) & is_newest
        return HashIndex(self.uris[~(same | members)])

    def look_up(self, uris: Hashes, shards: Hashes) -> tuple[Mask, Mask]:
        """As ``Known`` says."""
        there, _ = self.images.index.find(uris)
        read, at = self.shards.index.find(shards)
        read[read] = ~self.damaged[at[read]]
        return there, read & ~there

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
    codes: Codes
    """Positions of the error codes, -1 for none."""
    present: Mask
    """False for the rows of images that vanished."""
    ages: npt.NDArray[np.int32]
    """0 for rows of the newest run."""

    @classmethod
    def of(cls, hashed: pa.Table, ages: Ages, codes: dict[str, int]) -> Self:
        """Take ``HASHED`` rows, and add their new error codes to ``codes``."""
        for code in pc.unique(hashed["error_code"]).drop_null().to_pylist():
            codes.setdefault(code, len(codes))
        positions = pc.index_in(hashed["error_code"], pa.array(codes, pa.string()))
        return cls(
            hashed["uri"].to_numpy(),
            hashed["version"].to_numpy(),
            hashed["shard"].to_numpy(),
            pc.fill_null(positions, -1).to_numpy().astype(np.int16),
            pc.not_equal(hashed["status"], Status.VANISHED.value).to_numpy(),
            np.broadcast_to(np.asarray(ages, np.int32), hashed.num_rows),
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
