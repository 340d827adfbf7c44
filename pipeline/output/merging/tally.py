"""What is counted while rows are merged: file by file, in pieces that add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.manifest import DataFile
from pipeline.contract.schema import Status
from pipeline.output.ledger.hashes import Hashes, HashIndex, hash_strings, range_starts

FAILURES_SHOWN = 50


@dataclass
class Tally:
    """Counts over rows of a run."""

    ok: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    failure_examples: list[dict[str, str]] = field(default_factory=list)
    files: list[DataFile] = field(default_factory=list)
    repeated: int = 0
    """How many rows repeat the URI of another row; known once all files are merged."""

    @property
    def failed(self) -> int:
        return self.failures.total()

    @property
    def rows(self) -> int:
        """Of images that are there."""
        return self.ok + self.failed

    def add(self, table: pa.Table) -> None:
        """Count the rows of a table."""
        failed = table.filter(pc.equal(table["status"], Status.FAILED.value))
        self.ok += pc.sum(pc.equal(table["status"], Status.OK.value)).as_py() or 0
        self.failures.update(_value_counts(failed["error_code"]))
        if "label" in table.column_names:
            self.labels.update(_value_counts(table["label"].drop_null()))
        columns = failed.select(["uri", "error_code", "error_message"])
        room = FAILURES_SHOWN - len(self.failure_examples)
        self.failure_examples += columns.slice(0, room).to_pylist()

    def include(self, other: Tally) -> None:
        """Add what was counted over the rows that follow."""
        self.ok += other.ok
        self.failures.update(other.failures)
        self.labels.update(other.labels)
        room = FAILURES_SHOWN - len(self.failure_examples)
        self.failure_examples += other.failure_examples[:room]
        self.files += other.files
        self.repeated += other.repeated


def _value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(c["values"]): c["counts"] for c in pc.value_counts(column).to_pylist()}


def split_by_range(hashes: Hashes, ranges: int) -> list[Hashes]:
    """The hashes of each of so many ranges of equal width, from the lowest to the highest."""
    ordered = np.sort(hashes)
    return np.split(ordered, np.searchsorted(ordered, range_starts(ranges)))


def repeated(pieces: Sequence[Hashes]) -> Hashes:
    """Those hashes of one range, from all files, that repeat another one."""
    hashes = np.sort(np.concatenate(pieces)) if pieces else np.array([], np.uint64)
    again: Hashes = hashes[1:][hashes[1:] == hashes[:-1]]
    return again


def count_repeated(uris: Iterable[pa.ChunkedArray], hashes: Hashes) -> int:
    """How many URIs repeat another one, of those with these hashes: two may share one."""
    suspects = HashIndex(np.unique(hashes))
    times: Counter[str] = Counter()
    for some in uris:
        times.update(some.filter(pa.array(suspects.find(hash_strings(some))[0])).to_pylist())
    return times.total() - len(times)
