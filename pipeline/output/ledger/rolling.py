"""What a night has to know of all nights before it, in a few objects however many they were.

    OUT/history/index.json         the manifests of the live runs, and what the others are about
    OUT/history/rows-*.parquet     what the ledger reads of the live runs' smaller data files
    OUT/history/hashes-*.parquet   the hashes of the rows of one larger data file each

Nothing here is a record of its own: manifests and data files are, which never change once they are
published. What is missing here, or damaged, or about a file that is another by now, is read from
them, and stands here again after the next closing. The index is written last and names the rest,
and no other file is ever changed: a closing may be killed at any moment, and somebody may read
meanwhile.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.errors import DamagedFileError
from pipeline.contract.manifest import DataFile, Manifest
from pipeline.contract.records import Record
from pipeline.output.ledger.hashes import (
    ALL,
    LEDGER_COLUMNS,
    USUAL_SHARDS,
    Ages,
    HashIndex,
    HashRange,
    ShardNames,
    hash_strings,
    owners_of,
)
from pipeline.output.ledger.indexed import names_among, names_of, read_hashes, write_hashes
from pipeline.output.ledger.segments import (
    KeptFile,
    Place,
    Segment,
    extended,
    places_in,
    rows_at,
)
from pipeline.storage.parquet import read_table
from pipeline.storage.read_ahead import map_ahead, together
from pipeline.storage.store import Store

SMALL_FILE_ROWS = 50_000
"""The rows of data files that have fewer are kept here; of larger ones, the hashes."""

Each = Callable[[Callable[[str], Any], Sequence[str]], Iterable[Any]]
"""Calls a function for every name, here (``map``) or elsewhere; the results are in their order."""
Aged = tuple[int, str]
"""How many runs closed since a data file, and its name."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rolling(Record):
    """``history/index.json``."""

    runs: tuple[Manifest, ...] = ()
    """Live ones, newest first, without the names of what vanished."""
    segments: tuple[Segment, ...] = ()
    """The newest first."""
    hashed: tuple[KeptFile, ...] = ()
    """Data files whose hashes were written."""
    shards: tuple[str, ...] = ()
    """How shards ended then, by whose names members are recognised."""

    @classmethod
    def load(cls, store: Store) -> Rolling:
        """What the last closing left; nothing if that is missing or damaged."""
        try:
            return store.read_record(cls, layout.HISTORY_INDEX) or cls()
        except DamagedFileError as error:
            log.info("reading all manifests: %s", error)
            return cls()

    def rows(
        self,
        store: Store,
        runs: Sequence[Manifest],
        sizes: Mapping[str, int],
        names: ShardNames,
        part: HashRange = ALL,
    ) -> Iterator[tuple[Ages, pa.Table]]:
        """The ``HASHED`` rows of these runs, in their order, as far as they are in the part; and
        their ages.

        Args:
            sizes: of all data files, by name, here and below.

        Raises:
            FileNotFoundError: a data file is gone; the error names it.
        """
        written = self.written(sizes) if names == USUAL_SHARDS else {}
        read = partial(_read, store, written, names, part)
        for files, kept in self._groups(store, runs, LEDGER_COLUMNS, sizes):
            if kept is None:
                tables = map_ahead(read, [name for _, name in files])
                yield from zip((age for age, _ in files), tables, strict=True)
            else:
                ages, hashed = kept[0], names.hashed(kept[1])
                is_in = part.holds(owners_of(hashed))
                yield ages[is_in], hashed.filter(pa.array(is_in))

    def named(
        self,
        store: Store,
        runs: Sequence[Manifest],
        sizes: Mapping[str, int],
        wanted: HashIndex,
        each: Each,
    ) -> Iterator[tuple[int, str]]:
        """The ages and URIs of rows of these runs that have one of these hashes.

        Args:
            each: how the larger files are searched.

        Raises:
            FileNotFoundError: a data file is gone; the error names it.
        """
        find = partial(_find, store, self.written(sizes), wanted)
        for files, kept in self._groups(store, runs, ["uri"], sizes):
            if kept is None:
                found = each(find, [name for _, name in files])
                for (age, _), uris in zip(files, found, strict=True):
                    yield from ((age, uri) for uri in uris)
            else:
                ages, table = kept
                is_wanted = wanted.find(hash_strings(table["uri"]))[0]
                uris = table["uri"].filter(pa.array(is_wanted)).to_pylist()
                yield from zip(ages[is_wanted].tolist(), uris, strict=True)

    def covers(self, runs: Sequence[Manifest], sizes: Mapping[str, int]) -> bool:
        """Whether something is kept of all data files of these runs."""
        kept = {*places_in(self.segments, sizes), *self.written(sizes)}
        return all(file.name in kept for run in runs for file in run.files)

    def written(self, sizes: Mapping[str, int]) -> dict[str, KeptFile]:
        """The data files whose hashes were written, by name, as far as they are as they were."""
        if self.shards != USUAL_SHARDS.suffixes:
            return {}
        return {file.name: file for file in self.hashed if sizes.get(file.name) == file.size}

    def roll_on(
        self, store: Store, runs: Sequence[Manifest], sizes: Mapping[str, int], each: Each
    ) -> Rolling:
        """Keep what there is to know of these runs, the live ones, for the next; to be called by
        whoever holds the lease.

        Args:
            each: where hashes are written.
        """
        files = [file for run in runs for file in run.files if file.name in sizes]
        segments = self._segments(store, runs, files, sizes)
        hashed = self._hashed(store, files, sizes, each)
        rolled = Rolling(tuple(runs), tuple(segments), tuple(hashed), USUAL_SHARDS.suffixes)
        _write_index(store, rolled)
        return rolled

    def _segments(
        self,
        store: Store,
        runs: Sequence[Manifest],
        files: Sequence[DataFile],
        sizes: Mapping[str, int],
    ) -> list[Segment]:
        places = places_in(self.segments, sizes)
        used = {place.segment.name for file in files if (place := places.get(file.name))}
        segments = [segment for segment in self.segments if segment.name in used]
        new = [f for f in files if f.name not in places and f.rows < SMALL_FILE_ROWS]
        if not new:
            return segments
        return extended(store, runs[0].run_id, segments, new, {f.name for f in files}, sizes)

    def _hashed(
        self, store: Store, files: Sequence[DataFile], sizes: Mapping[str, int], each: Each
    ) -> list[KeptFile]:
        written = self.written(sizes)
        large = [file.name for file in files if file.rows >= SMALL_FILE_ROWS]
        new = [name for name in large if name not in written]
        rows = each(partial(write_hashes, store), new)
        written |= {name: KeptFile(name, sizes[name], n) for name, n in zip(new, rows, strict=True)}
        return [written[name] for name in large]

    def _groups(
        self,
        store: Store,
        runs: Sequence[Manifest],
        columns: Sequence[str],
        sizes: Mapping[str, int],
    ) -> Iterator[tuple[list[Aged], tuple[npt.NDArray[np.int32], pa.Table] | None]]:
        """The data files of these runs in their order; of those that follow each other in a segment
        also the ages of their rows, and the rows."""
        places = places_in(self.segments, sizes)
        held: tuple[str, pa.Table | None] = "", None
        files = ((age, file.name) for age, run in enumerate(runs) for file in run.files)
        for segment, group in groupby(files, lambda aged: _segment_of(places.get(aged[1]))):
            some = list(group)
            if segment is not None and held[0] != segment.name:
                held = segment.name, segment.read(store, columns)
            if segment is None or held[1] is None:
                yield some, None
            else:
                at = [places[name] for _, name in some]
                ages = np.repeat([age for age, _ in some], [place.rows for place in at])
                yield some, (ages.astype(np.int32), rows_at(held[1], at))


def _segment_of(place: Place | None) -> Segment | None:
    return place.segment if place else None


def _read(
    store: Store, written: Mapping[str, KeptFile], names: ShardNames, part: HashRange, name: str
) -> pa.Table:
    """The ``HASHED`` rows of a data file."""
    if name in written:
        try:
            return read_hashes(store, name, written[name].rows, part)
        except (DamagedFileError, FileNotFoundError):
            log.info("reading %s, for what was written of its hashes is damaged", name)
    hashed = names.hashed(read_table(store, name, LEDGER_COLUMNS))
    return hashed.filter(pa.array(part.holds(owners_of(hashed))))


def _find(store: Store, written: Mapping[str, KeptFile], wanted: HashIndex, name: str) -> list[str]:
    """The URIs in a data file that have one of these hashes."""
    if name in written:
        try:
            return names_of(store, name, wanted)
        except (DamagedFileError, FileNotFoundError):
            log.info("reading %s, for what was written of its hashes is damaged", name)
    return names_among(store, name, wanted)


def _write_index(store: Store, index: Rolling) -> None:
    """Write it, then remove the files that it does not name."""
    runs = tuple(replace(run, vanished=None) for run in index.runs)
    text = json.dumps(replace(index, runs=runs).to_dict(), ensure_ascii=False)
    data = text.encode("utf-8", "backslashreplace")
    _, found = together(
        partial(store.write_bytes, layout.HISTORY_INDEX, data),
        partial(store.list, layout.HISTORY),
    )
    named = {segment.name for segment in index.segments}
    named |= {layout.history_hashes(file.name) for file in index.hashed}
    for name in found:
        if layout.is_history_file(name) and name not in named:
            store.remove_file(name)
