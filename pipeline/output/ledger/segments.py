"""The rows of many small data files in few larger ones, for a year of nights to be read at once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, Self

import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.errors import DamagedFileError
from pipeline.contract.manifest import DataFile
from pipeline.contract.records import Record
from pipeline.output.ledger.hashes import LEDGER_COLUMNS
from pipeline.storage.parquet import read_columns, read_whole_table, write_table
from pipeline.storage.store import Store

SEGMENT_ROWS = 500_000
"""Every closing adds its rows to the newest segment, by writing it anew, up to so many."""

_KEPT = pa.schema([(name, pa.string()) for name in LEDGER_COLUMNS])

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptFile(Record):
    """A data file of which something is kept."""

    name: str
    size: int
    """Bytes of the file; one of another size is another file."""
    rows: int


@dataclass(frozen=True)
class Segment(Record):
    """A file of rows, never changed once it is written."""

    name: str
    files: tuple[KeptFile, ...]
    """Where the rows come from, in their order."""

    @classmethod
    def from_dict(cls, values: Any, where: str = "") -> Self:
        segment = super().from_dict(values, where)
        if not layout.is_history_rows(segment.name):
            raise ValueError(f"{where} is {segment.name!r}, which no run writes")
        return segment

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    def read(self, store: Store, columns: Sequence[str]) -> pa.Table | None:
        """Its rows; None if they are not what a closing wrote."""
        try:
            table = read_whole_table(store, self.name, columns)
        except (DamagedFileError, FileNotFoundError):
            log.info("reading data files, for %s is missing or damaged", store.locate(self.name))
            return None
        return table if table.num_rows == self.rows else None


@dataclass(frozen=True)
class Place:
    """Where a segment has the rows of a data file."""

    segment: Segment
    start: int
    rows: int


def places_in(segments: Iterable[Segment], sizes: Mapping[str, int]) -> dict[str, Place]:
    """Where the rows of data files are, by the names of those that are as they were.

    Args:
        sizes: of all data files, by name.
    """
    found: dict[str, Place] = {}
    for segment in segments:
        start = 0
        for file in segment.files:
            if sizes.get(file.name) == file.size:
                found.setdefault(file.name, Place(segment, start, file.rows))
            start += file.rows
    return found


def rows_at(table: pa.Table, places: Sequence[Place]) -> pa.Table:
    """The rows of some files of a segment, in few slices: those of neighbours are in one."""
    spans: list[list[int]] = []
    for place in places:
        if spans and spans[-1][1] == place.start:
            spans[-1][1] += place.rows
        else:
            spans.append([place.start, place.start + place.rows])
    return pa.concat_tables([table.slice(start, stop - start) for start, stop in spans])


def extended(
    store: Store,
    run_id: str,
    segments: Sequence[Segment],
    new: Sequence[DataFile],
    wanted: Set[str],
    sizes: Mapping[str, int],
) -> list[Segment]:
    """Segments that also have the rows of new files, written for this run.

    Args:
        segments: the newest first; it is written anew, unless it is full.
        wanted: the names of all files whose rows are to be kept.
        sizes: of all data files, by name.
    """
    rows = _new_rows(store, [file.name for file in new], sizes)
    older = list(segments)
    if older and older[0].rows + sum(file.rows for file in new) <= SEGMENT_ROWS:
        rows = chain(rows, _kept_rows(store, older.pop(0), wanted, sizes))
    return [*_write(store, run_id, rows), *older]


def _new_rows(
    store: Store, names: Sequence[str], sizes: Mapping[str, int]
) -> Iterator[tuple[KeptFile, pa.Table]]:
    for name, table in zip(names, read_columns(store, names, LEDGER_COLUMNS), strict=True):
        yield KeptFile(name, sizes[name], table.num_rows), table


def _kept_rows(
    store: Store, segment: Segment, wanted: Set[str], sizes: Mapping[str, int]
) -> Iterator[tuple[KeptFile, pa.Table]]:
    """The rows of a segment, as far as they are wanted and of files that are as they were."""
    files = [f for f in segment.files if f.name in wanted and sizes.get(f.name) == f.size]
    table = segment.read(store, LEDGER_COLUMNS)
    if table is None:
        yield from _new_rows(store, [file.name for file in files], sizes)
        return
    places = places_in([segment], sizes)
    for file in files:
        yield file, table.slice(places[file.name].start, file.rows)


def _write(
    store: Store, run_id: str, rows: Iterable[tuple[KeptFile, pa.Table]]
) -> Iterator[Segment]:
    """Write the rows of data files as segments."""
    numbers = count()
    for some in _portions(rows):
        name = layout.history_rows(run_id, next(numbers))
        write_table(store, name, pa.concat_tables(_plain(table) for _, table in some))
        yield Segment(name, tuple(file for file, _ in some))


def _plain(table: pa.Table) -> pa.Table:
    """With the same schema, whatever version of the program wrote it."""
    return table.select(_KEPT.names).cast(_KEPT)


def _portions(
    rows: Iterable[tuple[KeptFile, pa.Table]],
) -> Iterator[list[tuple[KeptFile, pa.Table]]]:
    held: list[tuple[KeptFile, pa.Table]] = []
    number = 0
    for file, table in rows:
        held.append((file, table))
        number += file.rows
        if number >= SEGMENT_ROWS:
            yield held
            held, number = [], 0
    if held:
        yield held
