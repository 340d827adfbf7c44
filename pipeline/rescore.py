"""New labels for rows that are scored already: other names, other thresholds, another head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from cvt import to_scores
from pipeline.columns import label_columns
from pipeline.head import Head
from pipeline.schema import LABELS, TOP_K, Status

Floats = npt.NDArray[np.float64]

_MAX_CELLS = 2**22
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Groups:
    """Old classes and the new ones that they become; several may become one."""

    old: tuple[str, ...]
    new: tuple[str, ...]
    of: npt.NDArray[np.intp]
    """(N,): the position in ``new`` of each old class."""

    @classmethod
    def of_map(cls, classes: Sequence[str], renamed: Mapping[str, str]) -> Groups:
        """New names in the order in which the old classes bring them up; a class that is not in
        the map keeps its name."""
        names = [renamed.get(name, name) for name in classes]
        new = tuple(dict.fromkeys(names))
        position = {name: number for number, name in enumerate(new)}
        return cls(tuple(classes), new, np.array([position[name] for name in names], np.intp))

    def reduce(self, values: npt.NDArray[Any], ufunc: np.ufunc) -> npt.NDArray[Any]:
        """(B, M) of values (B, N), those of one new class combined by ``ufunc``."""
        order = np.argsort(self.of, kind="stable")
        starts = np.searchsorted(self.of[order], np.arange(len(self.new)))
        reduced: npt.NDArray[Any] = ufunc.reduceat(values[:, order], starts, axis=1)
        return reduced


@dataclass
class Rescorer:
    """Replaces the label columns of rows, and counts where the stored scores do not suffice.

    Scores of classes that become one add up for softmax, where classes exclude each other; for
    sigmoid and logits the largest counts. From stored scores only the best k are known. A new
    score out of them is then a lower bound, and ``unsure`` counts the rows whose best label, or
    whose ``labels``, might be others if all were known; a head computes them all.
    """

    scores: str
    """softmax, sigmoid or logits."""
    groups: Groups
    top_k: int
    thresholds: tuple[float, ...] = ()
    """Of every new class; empty when ``labels`` are only renamed."""
    head: Head | None = None
    unsure: dict[str, int] = field(default_factory=lambda: {"label": 0, "labels": 0})

    @property
    def batch_rows(self) -> int:
        """So many that a table of all their scores stays small."""
        return max(_MAX_CELLS // max(len(self.groups.old), 1), 64)

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
        """Of another head, ``labels`` of the old one say nothing."""
        return self.head is not None and not self.thresholds

    def _columns(self, rows: pa.Table) -> dict[str, pa.Array]:
        known = self._known_scores(rows)
        merged = self._merge(known)
        if self.head is None:
            self._count_unsure(known, merged)
        scores = torch.from_numpy(merged.astype(np.float32))
        classes = pa.array(self.groups.new, pa.string())
        columns = label_columns(scores, classes, self.top_k, self.thresholds)
        if self.head is None and "labels" in rows.column_names and not self.thresholds:
            columns["labels"] = self._renamed(rows["labels"])
        return columns

    def _known_scores(self, rows: pa.Table) -> Floats:
        """(B, N), minus infinity where a score was not stored."""
        if self.head is not None:
            vectors = rows["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            matrix = vectors.reshape(len(rows), -1).astype(np.float32)
            scores = to_scores(torch.from_numpy(self.head.logits(matrix)), self.scores)
            return scores.numpy().astype(np.float64)
        lengths = pc.list_value_length(rows["topk_ids"]).to_numpy()
        known = np.full((len(rows), len(self.groups.old)), -np.inf)
        at = np.repeat(np.arange(len(rows)), lengths)
        known[at, pc.list_flatten(rows["topk_ids"]).to_numpy()] = pc.list_flatten(
            rows["topk_scores"]
        ).to_numpy()
        return known

    def _merge(self, known: Floats) -> Floats:
        """(B, M): scores of the new classes, minus infinity where nothing is known of one."""
        if self.scores != "softmax":
            return self.groups.reduce(known, np.maximum)
        is_known = known > -np.inf
        total = self.groups.reduce(np.where(is_known, known, 0.0), np.add)
        return np.where(self.groups.reduce(is_known, np.logical_or), total, -np.inf)

    def _upper(self, known: Floats, merged: Floats) -> Floats:
        """(B, M): what the scores of the new classes may be at most.

        A score that was not stored is no larger than the smallest that was; of softmax, all of
        them together are what the stored ones leave of 1.
        """
        is_known = known > -np.inf
        unseen = self.groups.reduce((~is_known).astype(int), np.add)
        last = np.where(is_known, known, np.inf).min(axis=1, keepdims=True)
        if self.scores != "softmax":
            return np.where(unseen > 0, np.maximum(merged, last), merged)
        left = np.clip(1 - np.where(is_known, known, 0.0).sum(axis=1, keepdims=True), 0, 1)
        upper: Floats = np.maximum(merged, 0.0) + np.minimum(left, unseen * last)
        return upper

    def _count_unsure(self, known: Floats, merged: Floats) -> None:
        upper = self._upper(known, merged)
        rows, best = np.arange(len(merged)), merged.argmax(axis=1)
        if self.thresholds:
            may_reach = (merged < self.thresholds) & (upper >= self.thresholds)
            self.unsure["labels"] += int(may_reach.any(axis=1).sum())
        upper[rows, best] = -np.inf
        rivals = upper.max(axis=1, initial=-np.inf)
        self.unsure["label"] += int((rivals > merged[rows, best] + _ROUNDING).sum())

    def _renamed(self, labels: pa.ChunkedArray) -> pa.Array:
        """Lists of old names as lists of new ones, each once."""
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
