"""Statistics of all rows of a run, small enough for its manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.contract.manifest import EmbeddingSummary, RowSummary

SCORE_BINS = 20
BATCH_ROWS = 8192

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Mean and spread of each dimension of some vectors; two of them add up exactly.

    The update is Chan, Golub and LeVeque's ("Algorithms for computing the sample variance",
    1983, eq. 2.1), which loses no digits when the mean is large compared with the spread.
    """

    count: int
    mean: Vector
    """(C,)"""
    squares: Vector
    """(C,): sum of squared deviations from the mean."""

    @classmethod
    def of(cls, vectors: npt.NDArray[Any]) -> Self:
        """Of vectors (B, C)."""
        mean = vectors.mean(axis=0, dtype=np.float64)
        return cls(len(vectors), mean, np.square(vectors - mean).sum(axis=0))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        if not count:
            return self
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        squares = self.squares + other.squares + step**2 * (self.count * other.count / count)
        return Moments(count, mean, squares)

    @property
    def variance(self) -> Vector:
        """(C,): of the population, sum of squares over count."""
        return self.squares / max(self.count, 1)

    def to_record(self) -> EmbeddingSummary:
        """Seven digits, as many as the embeddings have."""
        return EmbeddingSummary(self.count, _rounded(self.mean), _rounded(self.variance))

    @classmethod
    def from_record(cls, record: EmbeddingSummary) -> Self:
        """Read from the manifest of a closed run."""
        variance = np.array(record.variance, np.float64)
        return cls(record.count, np.array(record.mean, np.float64), variance * record.count)


def _rounded(values: Vector) -> tuple[float, ...]:
    return tuple(float(f"{value:.7g}") for value in values)


@dataclass
class Summary:
    """Labels, scores, failures and embeddings of the rows of one or several runs."""

    ok: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    scores: Counter[str] = field(default_factory=Counter)
    """Top-1 scores in ``SCORE_BINS`` bins of even width over 0 to 1; empty for logits."""
    embedding: Moments | None = None

    @property
    def images(self) -> int:
        return self.ok + self.failures.total()

    def __add__(self, other: Summary) -> Summary:
        pair = [m for m in (self.embedding, other.embedding) if m is not None]
        return Summary(
            self.ok + other.ok,
            self.labels + other.labels,
            self.failures + other.failures,
            self.scores + other.scores,
            pair[0] + pair[1] if len(pair) == 2 else next(iter(pair), None),
        )

    @classmethod
    def from_record(
        cls, ok: int, labels: Mapping[str, int], failures: Mapping[str, int], rows: RowSummary
    ) -> Self:
        """Read from the manifest of a closed run; one of an older version has less."""
        embedding = Moments.from_record(rows.embedding) if rows.embedding else None
        return cls(ok, Counter(labels), Counter(failures), Counter(rows.scores), embedding)

    def to_record(self) -> RowSummary:
        """What a manifest does not record elsewhere."""
        return RowSummary(
            {name: self.scores[name] for name in score_bins() if self.scores[name]},
            self.embedding.to_record() if self.embedding else None,
        )


def score_bins() -> list[str]:
    """Names of the bins, in order: "0.00 to 0.05" and so on; a bin includes its lower end."""
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    return [f"{low:.2f} to {high:.2f}" for low, high in pairwise(edges)]


def count_scores(scores: pa.ChunkedArray) -> Counter[str]:
    """How many of the scores, from 0 to 1, are in each bin."""
    values = scores.drop_null().to_numpy()
    at = np.clip((values * SCORE_BINS).astype(int), 0, SCORE_BINS - 1)
    counts = np.bincount(at, minlength=SCORE_BINS)
    return Counter({n: int(c) for n, c in zip(score_bins(), counts, strict=True) if c})


def embedding_matrix(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.float64]:
    """A fixed_size_list column (B, C) as an array; its nulls are left out."""
    valid = column.drop_null()
    flat = valid.combine_chunks() if isinstance(valid, pa.ChunkedArray) else valid
    values: npt.NDArray[Any] = flat.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, column.type.list_size).astype(np.float64)


def in_batches(table: pa.Table, rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
    """Slices of a table, so that what is computed from them fits in memory."""
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)
