"""Which rows of which parts go into which file, as far as the footers of the parts tell.

With more than one file the order is by uri over all files, so that readers skip files: every file
takes a range of URIs, and reads the parts that have some of it. Footers say where a part begins and
ends; between which two rows a file ends, the parts that lie around this place are asked. Where too
many of them do, because images were not computed in any order of their names, files take parts one
after the other, and only each for itself is sorted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.open_run import Part
from pipeline.storage.parquet import read_columns
from pipeline.storage.store import Store

MOST_READ = 1.5
"""How many rows may be read for every row written, so that files follow each other by uri."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Slice:
    """Consecutive rows of a part."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class FilePlan:
    """The rows of one file: those of some parts, within a range of URIs."""

    number: int
    slices: tuple[Slice, ...]
    low: str | None = None
    """The first URI of the range; None for no limit."""
    high: str | None = None
    """The first URI after the range; None for no limit."""

    def holds(self, uris: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Which of some rows of its slices belong to the file."""
        held = np.ones(len(uris), bool)
        if self.low is not None:
            held &= pc.greater_equal(uris, self.low).to_numpy()
        if self.high is not None:
            held &= pc.less(uris, self.high).to_numpy()
        return held


@dataclass(frozen=True)
class Cut:
    """Where a file ends: before the row of this rank among those of some parts, sorted by uri."""

    parts: tuple[str, ...]
    rank: int


def one_after_the_other(parts: Sequence[Part], size: int) -> list[FilePlan]:
    """Files of exactly ``size`` rows (the last one may be shorter), in the order of the parts."""
    ends = np.cumsum([part.rows for part in parts])
    total = int(ends[-1]) if len(ends) else 0
    plans = []
    for number, start in enumerate(range(0, total, size)):
        stop = min(start + size, total)
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        slices = []
        for at in range(first, last + 1):
            begin = int(ends[at]) - parts[at].rows
            bounds = max(start - begin, 0), min(stop - begin, parts[at].rows)
            slices.append(Slice(parts[at].name, *bounds))
        plans.append(FilePlan(number, tuple(slices)))
    return plans


@dataclass(frozen=True)
class Spread:
    """Where the rows of each part lie among all URIs."""

    parts: Sequence[Part]
    ends: list[str]
    """The first and the last URI of every part, sorted."""
    first: Numbers
    """Of each part, the position of its first URI in ``ends``."""
    last: Numbers
    rows: Numbers

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Self | None:
        """None if one of them does not say where it lies, as earlier versions wrote them."""
        spans = [part.footer.span for part in parts]
        known = [span for span in spans if span is not None]
        if len(known) < len(spans):
            return None
        ends = sorted({uri for span in known for uri in span})
        position = {uri: number for number, uri in enumerate(ends)}
        bounds = np.array([[position[uri] for uri in span] for span in known], np.int64)
        first, last = bounds.reshape(-1, 2).T
        return cls(parts, ends, first, last, np.array([part.rows for part in parts], np.int64))

    def cuts(self, size: int) -> list[Cut] | None:
        """Where files of ``size`` rows end; None if too many parts lie around these places."""
        total = int(self.rows.sum())
        found, twice = [], 0
        for rank in range(size, total, size):
            low, high = self._around(rank)
            near = np.flatnonzero((self.first <= high) & (self.last >= low))
            twice += int(self.rows[near].sum())
            if total + twice > MOST_READ * total:
                return None
            below = int(self.rows[self.last < low].sum())
            found.append(Cut(tuple(self.parts[at].name for at in near.tolist()), rank - below))
        return found

    def _around(self, rank: int) -> tuple[int, int]:
        """Positions in ``ends`` between which the row of this rank lies: fewer rows than it needs
        begin before the first, and enough end with the second."""
        bounds = []
        for positions in (self.first, self.last):
            order = np.argsort(positions, kind="stable")
            reached = np.searchsorted(np.cumsum(self.rows[order]), rank, side="right")
            bounds.append(int(positions[order][reached]))
        return bounds[0], bounds[1]

    def files(self, cuts: Sequence[str]) -> Iterator[FilePlan]:
        """Files that begin with these URIs, and one before them."""
        for number, (low, high) in enumerate(pairwise([None, *cuts, None])):
            begin = 0 if low is None else bisect_left(self.ends, low)
            end = len(self.ends) if high is None else bisect_left(self.ends, high)
            chosen = np.flatnonzero((self.last >= begin) & (self.first < end))
            slices = (Slice(self.parts[at].name, 0, self.parts[at].rows) for at in chosen.tolist())
            yield FilePlan(number, tuple(slices), low, high)


def uri_at(cut: Cut, store: Store) -> str:
    """The URI that a file begins with; reads the names in the parts around it."""
    columns = [table["uri"] for table in read_columns(store, cut.parts, ["uri"])]
    uris = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    at = pc.sort_indices(uris)[cut.rank].as_py()
    uri: str = uris[at].as_py()
    return uri
