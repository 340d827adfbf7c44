"""A run beside the runs before it: what changed, and which images deserve a look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

import pyarrow as pa

from pipeline.contract import layout
from pipeline.monitoring.drift import MIN_IMAGES, Change, compare, to_table
from pipeline.monitoring.review_queue import ReviewQueue
from pipeline.monitoring.summary import Moments, Summary, count_scores, embedding_matrix, in_batches
from pipeline.output.history import ClosedRun

WINDOW = 7
"""How many earlier runs stand for "before": a week of nights."""


@dataclass
class Retrospect:
    """Watches the rows of a run while they are merged, then compares."""

    earlier: tuple[ClosedRun, ...]
    before: Summary
    queue: ReviewQueue
    now: Summary = field(default_factory=Summary)

    @classmethod
    def of(cls, runs: Iterable[ClosedRun], identity: Mapping[str, Any], review: int) -> Self:
        """Compare with the newest of ``runs`` (newest first) that have the same identity and
        enough images; keep ``review`` images of each kind for a person."""
        alike = (run for run in runs if run.identity == identity and _images(run) >= MIN_IMAGES)
        earlier = tuple(islice(alike, WINDOW))
        before = sum((Summary.from_manifest(run.manifest) for run in earlier), Summary())
        return cls(earlier, before, ReviewQueue(review, identity["scores"], before.embedding))

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

    def close(self, manifest: dict[str, Any]) -> dict[str, pa.Table]:
        """Add "summary" and "drift" to the manifest; the tables that go beside it, by name."""
        manifest["summary"] = self.now.to_dict()
        now = Summary.from_manifest(manifest)
        changes = compare(self.before, now)
        manifest["drift"] = {
            "runs": [run.run_id for run in self.earlier],
            "images_before": self.before.images,
            "images_now": now.images,
            "statistics": [change.to_dict() for change in changes if change.threshold is not None],
        }
        tables = {layout.CHANGES: to_table(changes), layout.REVIEW: self.queue.table()}
        return {name: table for name, table in tables.items() if table.num_rows}


def alarms(manifest: Mapping[str, Any]) -> list[str]:
    """The changes of a run that exceed their thresholds, a line for each."""
    statistics = manifest.get("drift", {}).get("statistics", ())
    fields = ("what", "label", "before", "now", "statistic", "value", "threshold")
    return [str(Change(*(row[name] for name in fields))) for row in statistics if row["alarm"]]


def _images(run: ClosedRun) -> int:
    counts: dict[str, int] = run.manifest["counts"]
    return counts["ok"] + counts["failed"]
