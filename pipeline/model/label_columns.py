"""Scores as columns of the output: the best classes, and the classes that reach a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cvt import to_scores
from pipeline.contract.errors import UsageError

__all__ = [
    "DEFAULT_THRESHOLD",
    "check_threshold_names",
    "class_thresholds",
    "label_columns",
    "to_scores",
]

DEFAULT_THRESHOLD = 0.5


def label_columns(
    scores: Tensor, classes: pa.Array, top_k: int, thresholds: Sequence[float] = ()
) -> dict[str, pa.Array]:
    """The columns of ``schema.TOP_K``, and ``labels`` where there are thresholds.

    Args:
        scores: (B, N) float32; minus infinity for a class whose score is not known, which is then
            not listed.
        classes: the names of the N classes.
        top_k: how many to list.
        thresholds: one per class; empty for no ``labels`` column.
    """
    top = scores.topk(min(top_k, scores.shape[1]), dim=1)
    ids, best = top.indices.int().numpy(), top.values.numpy()
    known = best > -np.inf
    offsets = pa.array(np.append(0, known.sum(axis=1).cumsum()), pa.int32())
    flat = pa.array(ids[known])
    first = pa.array(ids[:, 0])
    columns = {
        "label_id": first,
        "label": classes.take(first),
        "score": pa.array(best[:, 0]),
        "topk_ids": pa.ListArray.from_arrays(offsets, flat),
        "topk_labels": pa.ListArray.from_arrays(offsets, classes.take(flat)),
        "topk_scores": pa.ListArray.from_arrays(offsets, pa.array(best[known])),
    }
    if thresholds:
        columns["labels"] = _labels_above(scores, classes, thresholds)
    return columns


def _labels_above(scores: Tensor, classes: pa.Array, thresholds: Sequence[float]) -> pa.Array:
    """``cvt.labels_above`` as a column, without a Python loop over rows x classes."""
    reached = torch.where(scores >= torch.tensor(thresholds), scores, -torch.inf)
    most = int((reached > -torch.inf).sum(dim=1).max()) if len(scores) else 0
    top = reached.topk(most, dim=1)
    counted = top.values.numpy() > -np.inf
    offsets = pa.array(np.append(0, counted.sum(axis=1).cumsum()), pa.int32())
    return pa.ListArray.from_arrays(offsets, classes.take(pa.array(top.indices.numpy()[counted])))


def class_thresholds(
    wanted: float | Mapping[str, float] | None, scores: str, classes: Sequence[str]
) -> tuple[float, ...]:
    """The threshold of every class; empty for no ``labels`` column, which only sigmoid scores have
    without being asked."""
    if wanted is None and scores != "sigmoid":
        return ()
    if isinstance(wanted, Mapping):
        rest = wanted.get("*", DEFAULT_THRESHOLD)
        return tuple(wanted.get(name, rest) for name in classes)
    return (DEFAULT_THRESHOLD if wanted is None else wanted,) * len(classes)


def check_threshold_names(
    wanted: float | Mapping[str, float] | None, classes: Sequence[str]
) -> None:
    """Refuse thresholds for classes that do not exist.

    Raises:
        UsageError: a name is not that of a class; the message has it.
    """
    if isinstance(wanted, Mapping) and (unknown := wanted.keys() - {*classes, "*"}):
        raise UsageError(f"<output.thresholds> names unknown classes: {', '.join(sorted(unknown))}")
