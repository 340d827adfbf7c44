"""What is to do: the inventory minus the ledger of earlier runs. Reads no image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RunError
from pipeline.ledger import Ledger, Mask, Matches
from pipeline.objects import Kind
from pipeline.schema import WORK
from pipeline.staging import Deferred, OpenRun


@dataclass
class Counts:
    """Images by what the plan found out about them; shards count as one until they are read."""

    new: int = 0
    changed: int = 0
    retried: int = 0
    unchanged: int = 0
    """Rows of earlier closed runs that stand: the ``skipped`` of the books."""
    finished: int = 0
    """Rows that an earlier attempt of this run has committed."""
    vanished: int = 0
    failed_before: Counter[str] = field(default_factory=Counter)
    """Rows that stand, but as failures, by error code."""
    shards: int = 0
    """Shards to read (in whole or from where an attempt left off)."""

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "failed_before": dict(self.failed_before)}


@dataclass
class Plan:
    """The work of a run, as WORK tables."""

    images: list[pa.Table]
    shards: pa.Table
    counts: Counts
    ledger: Ledger
    """Rows of closed runs, which know now which of them the listing met."""
    staged: Ledger
    """Rows of the open run, likewise."""

    @property
    def num_images(self) -> int:
        return sum(table.num_rows for table in self.images)

    @property
    def is_empty(self) -> bool:
        return not self.num_images and not self.shards.num_rows

    def expected_rows(self, closed_shards: dict[str, int], deferred: Deferred) -> int:
        """How many rows the run must have in the end, but for those that it left to the next.

        Raises:
            RunError: a shard was not read to its end.
        """
        shards = [u for u in self.shards["uri"].to_pylist() if u not in deferred.shards]
        left = [uri for uri in shards if uri not in closed_shards]
        if left:
            raise RunError(
                f"{len(left)} shards were not read to their end, the first is {left[0]}; "
                "start the same command again"
            )
        begun = len(pc.list_flatten(self.shards["_done"]))
        members = sum(closed_shards[uri] for uri in shards)
        return self.counts.finished - begun + self.num_images - deferred.images + members

    def blocks(self, block_size: int) -> Iterator[pa.Table]:
        """Blocks of the data flow: shards one by one and first, since they take longest."""
        for row in range(self.shards.num_rows):
            yield self.shards.slice(row, 1)
        if self.images:
            images = pa.concat_tables(self.images).combine_chunks()
            for start in range(0, images.num_rows, block_size):
                yield images.slice(start, block_size)


def make_plan(
    listing: Iterable[pa.Table],
    ledger: Ledger,
    open_run: OpenRun,
    retry_codes: frozenset[str] = frozenset(),
) -> Plan:
    """Compare the listing with the rows that stand.

    Args:
        listing: LISTING tables.
        ledger: rows of closed runs; empty when everything is to be done again.
        open_run: its committed rows are not done twice.
        retry_codes: failures with these codes count as not done.
    """
    planner = _Planner(ledger, open_run, retry_codes)
    images, shards = [], [WORK.empty_table()]
    for table in listing:
        is_image = pc.equal(table["kind"], Kind.IMAGE.value)
        images.append(planner.images(table.filter(is_image)))
        shards.append(planner.shards(table.filter(pc.invert(is_image))))
    planner.counts.vanished = len(ledger.vanished().keys)
    return Plan(
        images=[table for table in images if table.num_rows],
        shards=pa.concat_tables(shards, promote_options="default"),
        counts=planner.counts,
        ledger=ledger,
        staged=planner.staged,
    )


class _Planner:
    """Sorts listed objects, table by table, and counts."""

    def __init__(self, ledger: Ledger, open_run: OpenRun, retry_codes: frozenset[str]) -> None:
        self.ledger = ledger
        self.open_run = open_run
        self.staged = open_run.ledger()
        self.closed_shards = open_run.closed_shards()
        self.retry = np.array([code in retry_codes for code in ledger.codes], bool)
        self.counts = Counts()

    def images(self, table: pa.Table) -> pa.Table:
        staged = self.staged.images.match(table["uri"], table["source_version"])
        past = self.ledger.images.match(table["uri"], table["source_version"])
        todo = self._sort(past, staged, done=staged.same)
        return _work(table.filter(pa.array(todo)), {})

    def shards(self, table: pa.Table) -> pa.Table:
        staged = self.staged.shards.match(table["uri"], table["source_version"])
        past = self.ledger.shards.match(table["uri"], table["source_version"])
        # The last row of a shard may have been committed before earlier ones.
        whole = np.array([self.closed_shards.get(uri, -1) for uri in table["uri"].to_pylist()])
        done = staged.same & (staged.rows == whole)
        todo = self._sort(past, staged, done)
        self.counts.shards += int(todo.sum())
        begun = table["uri"].filter(pa.array(staged.same & todo)).to_pylist()
        return _work(table.filter(pa.array(todo)), self.open_run.members_done(set(begun)))

    def _sort(self, past: Matches, staged: Matches, done: Mask) -> Mask:
        """Count what the listed objects are; true where there is work."""
        retried = past.failures[:, self.retry].any(axis=1)
        kept = past.same & ~retried & ~staged.same
        todo: Mask = ~done & ~kept
        self.counts.new += int((todo & ~past.known).sum())
        self.counts.changed += int((todo & past.known & ~past.same).sum())
        self.counts.retried += int((todo & past.same).sum())
        self.counts.unchanged += int(past.rows[kept].sum())
        self.counts.finished += int(staged.rows[staged.same].sum())
        failed = zip(self.ledger.codes, past.failures[kept].sum(axis=0), strict=True)
        self.counts.failed_before.update({code: int(number) for code, number in failed if number})
        return todo


def _work(listing: pa.Table, members_done: dict[str, list[str]]) -> pa.Table:
    done = [members_done.get(uri) for uri in listing["uri"].to_pylist()] if members_done else None
    column = pa.array(done or [None] * listing.num_rows, pa.list_(pa.string()))
    schema = pa.schema([*listing.schema, WORK.field("_done")])
    return listing.append_column("_done", column).cast(schema)
