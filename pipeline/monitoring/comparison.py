"""A run compared with the runs before it: what changed, and which images deserve a look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.manifest import Drift, Manifest, RowSummary
from pipeline.contract.provenance import Identity
from pipeline.monitoring.drift import MIN_IMAGES, compare, to_table
from pipeline.monitoring.model.shadow import Disagreement, ShadowModel
from pipeline.monitoring.review.queue import ReviewQueue
from pipeline.monitoring.summary import Moments, Summary, count_scores, embedding_matrix, in_batches
from pipeline.output.merging.tally import Tally

RUNS_COMPARED = 7
"""How many earlier runs stand for "before": a week of nights."""


@dataclass(frozen=True)
class Comparison:
    """A run compared with earlier ones."""

    summary: RowSummary
    drift: Drift
    shadow: Mapping[str, Any] | None
    """What a second model said, for the manifest; None without one."""
    tables: dict[str, pa.Table]
    """The tables that go beside the manifest, by name; empty ones are left out."""


def comparable(runs: Iterable[Manifest], identity: Identity) -> tuple[Manifest, ...]:
    """Of runs, newest first, those that stand for "before": the newest of the same identity with
    enough images."""
    alike = (r for r in runs if r.identity == identity and r.counts.computed >= MIN_IMAGES)
    return tuple(islice(alike, RUNS_COMPARED))


@dataclass
class RowsSeen:
    """What is to be known of some rows of a run, to compare it and to pick images for a look."""

    queue: ReviewQueue
    shadow: Disagreement | None = None
    """With the labels of a second model, if there is one."""
    now: Summary = field(default_factory=Summary)
    """Scores and embeddings so far; labels and failures are counted elsewhere."""

    def add(self, table: pa.Table) -> None:
        """Sum up a published table."""
        if self.queue.scores in ("softmax", "sigmoid"):
            self.now.scores += count_scores(table["score"])
        if "embedding" in table.column_names:
            for batch in in_batches(table):
                vectors = embedding_matrix(batch["embedding"])
                if len(vectors):
                    self.now += Summary(embedding=Moments.of(vectors))
        self.queue.add(table)
        if self.shadow is not None:
            self.shadow.add(table)

    def include(self, other: RowsSeen) -> None:
        """Add what was seen of the rows that follow."""
        self.now += other.now
        self.queue.include(other.queue)
        if self.shadow is not None and other.shadow is not None:
            self.shadow.include(other.shadow)


@dataclass
class Retrospect:
    """A run beside the runs before it: sees its rows while they are merged, then compares."""

    earlier: tuple[Manifest, ...]
    before: Summary
    rows: RowsSeen

    @classmethod
    def of(
        cls,
        runs: Iterable[Manifest],
        identity: Identity,
        review: int,
        shadow: ShadowModel | None = None,
    ) -> Self:
        """Compare with those of ``runs`` (newest first) that are ``comparable``, and with a second
        model; keep ``review`` images of each kind for a person."""
        earlier = comparable(runs, identity)
        before = sum((_summary(run) for run in earlier), Summary())
        queue = ReviewQueue(review, identity.scores, before.embedding, identity.thresholds)
        return cls(earlier, before, RowsSeen(queue, Disagreement(shadow) if shadow else None))

    def conclude(self, tally: Tally) -> Comparison:
        """Compare the rows that were seen; ``tally`` has their counts."""
        summary = self.rows.now.to_record()
        now = Summary.from_record(tally.ok, tally.labels, tally.failures, summary)
        changes = compare(self.before, now)
        drift = Drift(
            runs=tuple(run.run_id for run in self.earlier),
            images_before=self.before.images,
            images_now=now.images,
            statistics=tuple(change for change in changes if change.threshold is not None),
        )
        tables = {layout.CHANGES: to_table(changes), layout.REVIEW: self.rows.queue.table()}
        shadow = self.rows.shadow
        told = None
        if shadow is not None:
            told = shadow.to_dict(tally.ok)
            tables[layout.SHADOW] = shadow.table()
        filled = {name: table for name, table in tables.items() if table.num_rows}
        return Comparison(summary, drift, told, filled)


def _summary(run: Manifest) -> Summary:
    return Summary.from_record(run.counts.ok, run.labels, run.failures, run.summary)
