"""A queue for a person to look at: images that the model is unsure of, strange ones, and a sample.

It is filled while rows stream by, and never holds more than the first ``size`` of each kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.corrections import QUEUES, Queue
from pipeline.contract.schema import PICTURE, Status
from pipeline.monitoring.summary import Moments, embedding_matrix, in_batches
from pipeline.output.ledger.hashes import hash_strings

UNCERTAIN: Queue = "uncertain"
UNLIKE: Queue = "unlike"
THRESHOLD: Queue = "threshold"
RANDOM: Queue = "random"
LARGEST_FIRST = frozenset({UNLIKE})
"""Of the values of the others, the smallest comes first."""

REVIEW = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("topk_labels", pa.list_(pa.string())),
        pa.field("topk_scores", pa.list_(pa.float32())),
        pa.field("picture", pa.binary()),
    ]
)
"""``reason`` is one of ``QUEUES``. ``value`` is the margin of an uncertain image, the distance of
one unlike earlier ones, what one near a threshold is away from it, or a number drawn by lot.
``picture`` is a JPEG file of what the model saw; null if nobody has kept it."""
_TAKEN = {"picture": PICTURE.name}
"""Columns that the rows of a run have by another name."""


@dataclass
class ReviewQueue:
    """The rows most worth looking at, and some drawn by lot, which stand for all."""

    size: int
    """How many of each reason."""
    scores: str | None
    """The kind of the scores: softmax, sigmoid or logits; None without labels."""
    earlier: Moments | None = None
    """Embeddings of earlier runs."""
    thresholds: tuple[float, ...] = ()
    """The lowest score at which a class counts, by ``label_id``; empty if there are none."""
    kept: dict[Queue, pa.Table] = field(default_factory=dict)

    def add(self, table: pa.Table) -> None:
        """Let the rows of a published table compete for places."""
        if not self.size:
            return
        for batch in in_batches(table.filter(pc.equal(table["status"], Status.OK.value))):
            for reason, values in self.ranked(batch):
                self._compete(reason, batch, values)

    def ranked(self, rows: pa.Table) -> Iterator[tuple[Queue, npt.NDArray[np.float64]]]:
        """Reasons to look at rows that are ``ok``, and a value (B,) of each row, NaN for none."""
        if self.scores is not None:
            yield UNCERTAIN, top_margin(rows["topk_scores"], self.scores)
            yield RANDOM, lot(rows["uri"])
        if self.thresholds:
            yield THRESHOLD, threshold_gap(rows["topk_scores"], rows["topk_ids"], self.thresholds)
        if self.earlier is not None and "embedding" in rows.column_names:
            yield UNLIKE, strangeness(embedding_matrix(rows["embedding"]), self.earlier)

    def table(self) -> pa.Table:
        """The queue: reason by reason in the order of ``QUEUES``, each the most striking first."""
        kept = (self.kept[reason] for reason in QUEUES if reason in self.kept)
        return pa.concat_tables([REVIEW.empty_table(), *kept])

    def include(self, other: ReviewQueue) -> None:
        """Let what another queue has kept compete for places."""
        for reason, found in other.kept.items():
            self._keep_best(reason, found)

    def _compete(self, reason: Queue, rows: pa.Table, values: npt.NDArray[np.float64]) -> None:
        ranked = np.flatnonzero(np.isfinite(values))
        keys = pa.table({"uri": rows["uri"].take(pa.array(ranked)), "value": values[ranked]})
        chosen = ranked[self._best(reason, keys)]
        best = rows.take(pa.array(chosen))
        stated = {"reason": pa.repeat(reason, len(best)), "value": pa.array(values[chosen])}
        columns = [stated[f.name] if f.name in stated else _column(best, f) for f in REVIEW]
        self._keep_best(reason, pa.table(columns, schema=REVIEW))

    def _keep_best(self, reason: Queue, found: pa.Table) -> None:
        rivals = pa.concat_tables([self.kept.get(reason, REVIEW.empty_table()), found])
        self.kept[reason] = rivals.take(pa.array(self._best(reason, rivals)))

    def _best(self, reason: Queue, rivals: pa.Table) -> npt.NDArray[np.int64]:
        """Where those are that get a place, by ``value`` and, where it is the same, by ``uri``."""
        order = "descending" if reason in LARGEST_FIRST else "ascending"
        keys = [("value", order), ("uri", "ascending")]
        found = pc.select_k_unstable(rivals.select(["uri", "value"]), self.size, sort_keys=keys)
        best: npt.NDArray[np.int64] = found.to_numpy().astype(np.int64)
        return best


def _column(rows: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    name = _TAKEN.get(field.name, field.name)
    return rows[name] if name in rows.column_names else pa.nulls(rows.num_rows, field.type)


def top_margin(scores: pa.ChunkedArray, kind: str) -> npt.NDArray[np.float64]:
    """How far the best of each row's ``topk_scores`` (best first) is from the second best.

    Settles, "Active learning literature survey" (2009), 3.1: margin sampling. If only one score is
    stored: |2 p - 1| for a sigmoid, the margin between the class and its absence; the score itself
    for softmax (least confident); NaN for a logit, which says nothing on its own.
    """
    flat, lengths = pc.list_flatten(scores).to_numpy(), pc.list_value_length(scores).to_numpy()
    starts = np.cumsum(lengths) - lengths
    best = flat[starts].astype(np.float64)
    alone = {"sigmoid": abs(2 * best - 1), "softmax": best}
    margins: npt.NDArray[np.float64] = alone.get(kind, np.full_like(best, np.nan))
    has_second = lengths > 1
    margins[has_second] = best[has_second] - flat[starts[has_second] + 1]
    return margins


def strangeness(vectors: npt.NDArray[np.float64], earlier: Moments) -> npt.NDArray[np.float64]:
    """(B,): distance of vectors (B, C) from the centroid of earlier ones, which have about 1.

    A Mahalanobis distance with a diagonal covariance, over sqrt(C); a full covariance would need
    more images than dimensions, and C x C numbers in every manifest.
    """
    varies = earlier.variance > 0
    if not varies.any():
        return np.zeros(len(vectors))
    deviations = vectors[:, varies] - earlier.mean[varies]
    distances: npt.NDArray[np.float64] = np.sqrt(
        (deviations**2 / earlier.variance[varies]).mean(axis=1)
    )
    return distances


def threshold_gap(
    scores: pa.ChunkedArray, ids: pa.ChunkedArray, thresholds: tuple[float, ...]
) -> npt.NDArray[np.float64]:
    """(B,): how far the stored score that is nearest to the threshold of its class is from it."""
    flat, lengths = pc.list_flatten(scores).to_numpy(), pc.list_value_length(scores).to_numpy()
    limits = np.array(thresholds)[pc.list_flatten(ids).to_numpy()]
    starts = np.cumsum(lengths) - lengths
    if not len(flat):
        return np.empty(0)
    nearest: npt.NDArray[np.float64] = np.minimum.reduceat(np.abs(flat - limits), starts)
    return nearest


def lot(uris: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """(B,): a number from 0 to 1 for each URI, as if drawn by lot, but the same whenever it is
    drawn: the images with the smallest numbers are a random sample, whoever finds them and in
    whatever order, and another model is asked about the same ones."""
    numbers: npt.NDArray[np.float64] = hash_strings(uris) / 2.0**64
    return numbers
