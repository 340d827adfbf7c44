"""A queue for a person to look at: the images that the model is least sure of, and the strangest.

It is filled while rows stream by, and never holds more than the top ``size`` of each kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.monitoring.summary import Moments, embedding_matrix, in_batches

UNCERTAIN = "uncertain"
UNLIKE = "unlike earlier"
_ORDER = {UNCERTAIN: "ascending", UNLIKE: "descending"}
"""Of the values, the most striking first."""

REVIEW = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("score", pa.float32()),
    ]
)
"""``value`` is the margin of an uncertain image, or the distance of one unlike earlier ones."""


@dataclass
class ReviewQueue:
    """The rows most worth looking at."""

    size: int
    """How many of each reason."""
    scores: str | None
    """The kind of the scores: softmax, sigmoid or logits; None without labels."""
    earlier: Moments | None = None
    """Embeddings of earlier runs."""
    kept: dict[str, pa.Table] = field(default_factory=dict)

    def add(self, table: pa.Table) -> None:
        """Let the rows of a published table compete for places."""
        if not self.size:
            return
        if self.scores is not None:
            for batch in in_batches(_with_values(table, table["topk_scores"])):
                margins = top_margin(batch["topk_scores"], self.scores)
                self._compete(UNCERTAIN, batch, margins)
        if self.earlier is not None and "embedding" in table.column_names:
            for batch in in_batches(_with_values(table, table["embedding"])):
                distances = strangeness(embedding_matrix(batch["embedding"]), self.earlier)
                self._compete(UNLIKE, batch, distances)

    def table(self) -> pa.Table:
        """The queue: uncertain images first, then the others, each the most striking first."""
        return pa.concat_tables([REVIEW.empty_table(), *self.kept.values()])

    def include(self, other: ReviewQueue) -> None:
        """Let what another queue has kept compete for places."""
        for reason, found in other.kept.items():
            self._keep_best(reason, found)

    def _compete(self, reason: str, rows: pa.Table, values: npt.NDArray[np.float64]) -> None:
        is_ranked = pa.array(np.isfinite(values))
        known = {
            "uri": rows["uri"],
            "reason": pa.repeat(reason, rows.num_rows),
            "value": pa.array(values),
        } | {n: rows[n] for n in ("label", "score") if n in rows.column_names}
        columns = [known.get(f.name, pa.nulls(rows.num_rows, f.type)) for f in REVIEW]
        self._keep_best(reason, pa.table(columns, schema=REVIEW).filter(is_ranked))

    def _keep_best(self, reason: str, found: pa.Table) -> None:
        rivals = pa.concat_tables([self.kept.get(reason, REVIEW.empty_table()), found])
        keys = [("value", _ORDER[reason]), ("uri", "ascending")]
        self.kept[reason] = rivals.take(pc.select_k_unstable(rivals, self.size, sort_keys=keys))


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


def _with_values(table: pa.Table, column: pa.ChunkedArray) -> pa.Table:
    return table.filter(pc.is_valid(column))
