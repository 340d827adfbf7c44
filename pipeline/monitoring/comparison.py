"""A run compared with the runs before it: what changed, and which images deserve a look."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Self

import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.manifest import Drift, Manifest, RowSummary
from pipeline.contract.provenance import Identity
from pipeline.monitoring.drift import MIN_IMAGES, compare, to_table
from pipeline.monitoring.review_queue import ReviewQueue
from pipeline.monitoring.summary import Moments, Summary, count_scores, embedding_matrix, in_batches
from pipeline.output.merge import Tally

RUNS_COMPARED = 7
"""How many earlier runs stand for "before": a week of nights."""


@dataclass(frozen=True)
class Comparison:
    """A run compared with earlier ones."""

    summary: RowSummary
    drift: Drift
    tables: dict[str, pa.Table]
    """The tables that go beside the manifest, by name; empty ones are left out."""


@dataclass
class Retrospect:
    """Watches the rows of a run while they are merged, then compares."""

    earlier: tuple[Manifest, ...]
    before: Summary
    queue: ReviewQueue
    now: Summary = field(default_factory=Summary)
    """Scores and embeddings so far; labels and failures are counted elsewhere."""

    @classmethod
    def of(cls, runs: Iterable[Manifest], identity: Identity, review: int) -> Self:
        """Compare with the newest of ``runs`` (newest first) that have the same identity and
        enough images; keep ``review`` images of each kind for a person."""
        alike = (r for r in runs if r.identity == identity and r.counts.computed >= MIN_IMAGES)
        earlier = tuple(islice(alike, RUNS_COMPARED))
        before = sum((_summary(run) for run in earlier), Summary())
        return cls(earlier, before, ReviewQueue(review, identity.scores, before.embedding))

    def add(self, table: pa.Table) -> None:
        """Sum up a published table."""
        if self.queue.scores in ("softmax", "sigmoid"):
            self.now.scores += count_scores(table["score"])
        if "embedding" in table.column_names:
            for batch in in_batches(table):
                vectors = embedding_matrix(batch["embedding"])
                if len(vectors):
                    self._add_vectors(Moments.of(vectors))
        self.queue.add(table)

    def _add_vectors(self, moments: Moments) -> None:
        known = self.now.embedding
        self.now.embedding = moments if known is None else known + moments

    def conclude(self, tally: Tally) -> Comparison:
        """Compare the rows that were added; ``tally`` has their counts."""
        summary = self.now.to_record()
        now = Summary.from_record(tally.ok, tally.labels, tally.failures, summary)
        changes = compare(self.before, now)
        drift = Drift(
            runs=tuple(run.run_id for run in self.earlier),
            images_before=self.before.images,
            images_now=now.images,
            statistics=tuple(change for change in changes if change.threshold is not None),
        )
        tables = {layout.CHANGES: to_table(changes), layout.REVIEW: self.queue.table()}
        filled = {name: table for name, table in tables.items() if table.num_rows}
        return Comparison(summary, drift, filled)


def _summary(run: Manifest) -> Summary:
    return Summary.from_record(run.counts.ok, run.labels, run.failures, run.summary)
