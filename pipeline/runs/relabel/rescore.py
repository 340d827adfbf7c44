"""New labels for rows that already have scores: other names, other thresholds, another head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline.contract.schema import LABELS, TOP_K, Status
from pipeline.model.label_columns import label_columns, to_scores
from pipeline.runs.relabel.linear_head import Head

Floats = npt.NDArray[np.float64]

_MAX_CELLS = 2**22
_MAX_ROWS = 16_384
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Groups:
    """Old classes and the new classes that they become; several may become one."""

    old: tuple[str, ...]
    new: tuple[str, ...]
    of: npt.NDArray[np.intp]
    """(N,): the position in ``new`` of each old class."""

    @classmethod
    def of_map(cls, classes: Sequence[str], renamed: Mapping[str, str]) -> Groups:
        """New names in the order of the old classes; a class that is not in the map keeps its
        name."""
        names = [renamed.get(name, name) for name in classes]
        new = tuple(dict.fromkeys(names))
        position = {name: number for number, name in enumerate(new)}
        return cls(tuple(classes), new, np.array([position[name] for name in names], np.intp))

    @property
    def sizes(self) -> npt.NDArray[np.intp]:
        """(M,): how many old classes each new one combines."""
        return np.bincount(self.of, minlength=len(self.new))

    def reduce(self, scores: Floats, combine: np.ufunc) -> Floats:
        """Scores (B, N) as (B, M), with those of each new class combined."""
        if len(self.new) == len(self.old):
            return scores
        order = np.argsort(self.of, kind="stable")
        starts = np.append(0, np.cumsum(self.sizes)[:-1])
        reduced: Floats = combine.reduceat(scores[:, order], starts, axis=1)
        return reduced


@dataclass(frozen=True)
class Stored:
    """What the stored top scores of some rows tell about the new classes."""

    merged: Floats
    """(B, M): minus infinity where nothing is known about a class."""
    unseen: npt.NDArray[np.intp]
    """(B, M): how many old classes of each new one are not among those stored."""
    last: Floats
    """(B, 1): the smallest stored score, which no other exceeds."""
    left: Floats
    """(B, 1): 1 minus the sum of the stored scores."""

    @classmethod
    def of(cls, rows: pa.Table, groups: Groups, combine: np.ufunc) -> Stored:
        """Combine the stored scores by new class."""
        lengths = pc.list_value_length(rows["topk_ids"]).to_numpy()
        ids = pc.list_flatten(rows["topk_ids"]).to_numpy()
        scores = pc.list_flatten(rows["topk_scores"]).to_numpy().astype(np.float64)
        at = np.repeat(np.arange(len(rows)), lengths)
        shape = len(rows), len(groups.new)
        cells = at * shape[1] + groups.of[ids]
        seen = np.bincount(cells, minlength=shape[0] * shape[1])
        merged = np.where(seen > 0, 0.0 if combine is np.add else -np.inf, -np.inf)
        combine.at(merged, cells, scores)
        last = scores[np.cumsum(lengths) - 1]
        total = np.bincount(at, weights=scores, minlength=len(rows)).astype(np.float64)
        left = (1 - total).clip(0, 1)
        unseen = groups.sizes - seen.reshape(shape)
        return cls(merged.reshape(shape), unseen, last[:, None], left[:, None])

    def upper(self, combine: np.ufunc) -> Floats:
        """(B, M): the most that the scores could be if all were known."""
        if combine is np.add:
            gain = np.minimum(self.left, self.unseen * self.last)
            upper: Floats = np.maximum(self.merged, 0.0) + gain
            return upper
        return np.where(self.unseen > 0, np.maximum(self.merged, self.last), self.merged)


@dataclass
class Rescorer:
    """Replaces the label columns of rows, and counts where the stored scores do not suffice.

    The scores of merged classes add up for softmax, where classes exclude each other; for sigmoid
    and logits the largest counts. Of stored scores only the best k are known. A new score made of
    them is then a lower bound, and ``unsure`` counts the rows whose best label, or whose
    ``labels``, might differ if all were known; a head computes them all.
    """

    scores: str
    """softmax, sigmoid or logits."""
    groups: Groups
    top_k: int
    thresholds: tuple[float, ...] = ()
    """One per new class; empty when ``labels`` are only renamed."""
    head: Head | None = None
    unsure: dict[str, int] = field(default_factory=lambda: {"label": 0, "labels": 0})

    @property
    def batch_rows(self) -> int:
        """How many rows to take at a time, so that a table of all their scores stays small."""
        width = len(self.groups.old if self.head else self.groups.new)
        return min(max(_MAX_CELLS // max(width, 1), 64), _MAX_ROWS)

    @property
    def _combine(self) -> np.ufunc:
        return np.add if self.scores == "softmax" else np.maximum

    def __call__(self, table: pa.Table) -> pa.Table:
        """The rows of a published file with new label columns; failed rows have none."""
        ok = np.flatnonzero(pc.equal(table["status"], Status.OK.value).to_numpy())
        rows = table.take(pa.array(ok))
        columns = self._columns(rows) if len(ok) else {}
        slots = np.full(table.num_rows, -1)
        slots[ok] = np.arange(len(ok))
        indices = pa.array(slots, mask=slots < 0)
        if self._drops_labels and LABELS.name in table.column_names:
            table = table.drop_columns(LABELS.name)
        has_labels = self.thresholds or LABELS.name in table.column_names
        for column in [*TOP_K, LABELS] if has_labels else TOP_K:
            found = columns.get(column.name)
            values = pa.nulls(table.num_rows) if found is None else found.take(indices)
            table = _set(table, column, values.cast(column.type))
        return table

    @property
    def _drops_labels(self) -> bool:
        """With a new head, the ``labels`` of the old one are meaningless."""
        return self.head is not None and not self.thresholds

    def _columns(self, rows: pa.Table) -> dict[str, pa.Array]:
        merged = self._scores_of(self.head, rows) if self.head else self._stored_scores(rows)
        scores = torch.from_numpy(merged.astype(np.float32))
        classes = pa.array(self.groups.new, pa.string())
        columns = label_columns(scores, classes, self.top_k, self.thresholds)
        if self.head is None and "labels" in rows.column_names and not self.thresholds:
            columns["labels"] = self._renamed(rows["labels"])
        return columns

    def _scores_of(self, head: Head, rows: pa.Table) -> Floats:
        """(B, M)."""
        vectors = rows["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        logits = head.logits(vectors.reshape(len(rows), -1).astype(np.float32))
        scores = to_scores(torch.from_numpy(logits), self.scores).numpy().astype(np.float64)
        return self.groups.reduce(scores, self._combine)

    def _stored_scores(self, rows: pa.Table) -> Floats:
        """(B, M), minus infinity where nothing is known about a class."""
        stored = Stored.of(rows, self.groups, self._combine)
        if self.thresholds or len(self.groups.new) < len(self.groups.old):
            self._count_unsure(stored)
        return stored.merged

    def _count_unsure(self, stored: Stored) -> None:
        merged, upper = stored.merged, stored.upper(self._combine)
        rows, best = np.arange(len(merged)), merged.argmax(axis=1)
        if self.thresholds:
            may_reach = (merged < self.thresholds) & (upper >= self.thresholds)
            self.unsure["labels"] += int(may_reach.any(axis=1).sum())
        upper[rows, best] = -np.inf
        rivals = upper.max(axis=1, initial=-np.inf)
        self.unsure["label"] += int((rivals > merged[rows, best] + _ROUNDING).sum())

    def _renamed(self, labels: pa.ChunkedArray) -> pa.Array:
        """Lists of old names as lists of new ones, without repetitions."""
        new = dict(zip(self.groups.old, (self.groups.new[i] for i in self.groups.of), strict=True))
        lists = [list(dict.fromkeys(new[name] for name in row)) for row in labels.to_pylist()]
        return pa.array(lists, pa.list_(pa.string()))


def _set(table: pa.Table, column: pa.Field, values: pa.ChunkedArray | pa.Array) -> pa.Table:
    """The table with a column replaced, or added before the embedding."""
    names = table.column_names
    if column.name in names:
        return table.set_column(names.index(column.name), column, values)
    at = names.index("embedding") if "embedding" in names else len(names)
    return table.add_column(at, column, values)
