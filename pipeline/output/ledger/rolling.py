"""What a night has to know of all nights before it, in a few objects however many they were.

    OUT/history/index.json       the manifests of the live runs, and which rows the others hold
    OUT/history/rows-*.parquet   what the ledger reads of the live runs' smaller data files

Nothing here is a record of its own: manifests and data files are, which never change once they are
published. What is missing here, or damaged, or about a file that is another by now, is read from
them, and stands here again after the next closing. The index is written last and names the rest,
and no file of rows is ever changed: a closing may be killed at any moment, and somebody may read
meanwhile.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain, count, groupby
from typing import Any, Self

import numpy as np
import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.errors import DamagedFileError
from pipeline.contract.manifest import Manifest
from pipeline.contract.records import Record
from pipeline.output.ledger.ledger import LEDGER_COLUMNS, Ages
from pipeline.storage.parquet import read_columns, read_table, write_table
from pipeline.storage.store import Store

SMALL_FILE_ROWS = 50_000
"""Data files with fewer rows are kept here; larger ones are worth a few requests each."""
SEGMENT_ROWS = 500_000
"""Every closing adds its rows to the newest segment, by writing it anew, up to so many."""

_KEPT = pa.schema([(name, pa.string()) for name in LEDGER_COLUMNS])

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptFile(Record):
    """A data file whose rows a segment has."""

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
            table = read_table(store, self.name, columns)
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


@dataclass(frozen=True)
class Rolling(Record):
    """``history/index.json``."""

    runs: tuple[Manifest, ...] = ()
    """Live ones, newest first, without the names of what vanished."""
    segments: tuple[Segment, ...] = ()
    """The newest first."""

    @classmethod
    def load(cls, store: Store) -> Rolling:
        """What the last closing left; nothing if that is missing or damaged."""
        try:
            return store.read_record(cls, layout.HISTORY_INDEX) or cls()
        except DamagedFileError as error:
            log.info("reading all manifests: %s", error)
            return cls()

    def places(self, store: Store) -> dict[str, Place]:
        """Where the rows of data files are, by the names of those that are as they were."""
        sizes = store.list(layout.DATA) if self.segments else {}
        return _places(self.segments, sizes)

    def rows(
        self, store: Store, runs: Sequence[Manifest], columns: Sequence[str]
    ) -> Iterator[tuple[Ages, pa.Table]]:
        """Some of ``LEDGER_COLUMNS`` of all rows of these runs, in their order, and their ages.

        Raises:
            FileNotFoundError: a data file is gone; the error names it.
        """
        places = self.places(store)
        held: tuple[str, pa.Table | None] = "", None
        files = ((age, file.name) for age, run in enumerate(runs) for file in run.files)
        for segment, group in groupby(files, lambda file: _segment_of(places.get(file[1]))):
            some = list(group)
            if segment is not None and held[0] != segment.name:
                held = segment.name, segment.read(store, columns)
            if segment is None or held[1] is None:
                yield from _from_data(store, some, columns)
            else:
                yield _from_segment(held[1], [(age, places[name]) for age, name in some])

    def roll_on(self, store: Store, runs: Sequence[Manifest]) -> None:
        """Keep what there is to know of these runs, the live ones, for the next; to be called by
        whoever holds the lease."""
        sizes = store.list(layout.DATA)
        places = _places(self.segments, sizes)
        files = [file for run in runs for file in run.files if file.name in sizes]
        used = {place.segment.name for file in files if (place := places.get(file.name))}
        segments = [segment for segment in self.segments if segment.name in used]
        new = [f for f in files if f.name not in places and f.rows < SMALL_FILE_ROWS]
        if new:
            rows = _new_rows(store, [file.name for file in new], sizes)
            room = SEGMENT_ROWS - sum(file.rows for file in new)
            if segments and segments[0].rows <= room:
                started = segments.pop(0)
                rows = chain(rows, _kept_rows(store, started, {file.name for file in files}, sizes))
            segments = [*_write(store, runs[0].run_id, rows), *segments]
        _write_index(store, Rolling(tuple(runs), tuple(segments)))


def _segment_of(place: Place | None) -> Segment | None:
    return place.segment if place else None


def _places(segments: Iterable[Segment], sizes: Mapping[str, int]) -> dict[str, Place]:
    found: dict[str, Place] = {}
    for segment in segments:
        start = 0
        for file in segment.files:
            if sizes.get(file.name) == file.size:
                found.setdefault(file.name, Place(segment, start, file.rows))
            start += file.rows
    return found


def _from_data(
    store: Store, files: Sequence[tuple[int, str]], columns: Sequence[str]
) -> Iterator[tuple[Ages, pa.Table]]:
    tables = read_columns(store, [name for _, name in files], columns)
    return zip((age for age, _ in files), tables, strict=True)


def _from_segment(table: pa.Table, files: Sequence[tuple[int, Place]]) -> tuple[Ages, pa.Table]:
    """The rows of some files of a segment, in few slices: those of neighbours are in one."""
    spans: list[list[int]] = []
    for _, place in files:
        if spans and spans[-1][1] == place.start:
            spans[-1][1] += place.rows
        else:
            spans.append([place.start, place.start + place.rows])
    slices = [table.slice(start, stop - start) for start, stop in spans]
    ages = np.repeat([age for age, _ in files], [place.rows for _, place in files])
    return ages.astype(np.int32), pa.concat_tables(slices)


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
    places = _places([segment], sizes)
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


def _write_index(store: Store, index: Rolling) -> None:
    """Write it, then remove the rows that it does not name."""
    runs = tuple(replace(run, vanished=None) for run in index.runs)
    text = json.dumps(replace(index, runs=runs).to_dict(), ensure_ascii=False)
    store.write_bytes(layout.HISTORY_INDEX, text.encode("utf-8", "backslashreplace"))
    named = {segment.name for segment in index.segments}
    for name in store.list(layout.HISTORY):
        if layout.is_history_rows(name) and name not in named:
            store.remove(name)
