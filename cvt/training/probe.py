"""A linear classifier on embeddings that stay as they are: multinomial logistic regression.

The solution is unique, and nothing in it is random: the same rows give the same classifier.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor

Matrix = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

DEFAULT_L2: Final = 1.0
_MAX_STEPS: Final = 2000
_GRADIENT: Final = 1e-8
"""The largest entry of the mean gradient at which the fit ends; probabilities are good to 1e-5."""
_SMALL: Final = 2**26
"""Multiplications of a step that one thread does in some hundredths of a second."""
_CELLS: Final = 2**23
"""Logits at a time, so that a large table of labels needs no larger one of logits."""


@dataclass(frozen=True)
class LinearProbe:
    """Logits of embeddings: ``x @ weight.T + bias``."""

    weight: Matrix
    """(N, C)."""
    bias: Matrix
    """(N,)."""

    def probabilities(self, vectors: npt.NDArray[np.floating]) -> Matrix:
        """(R, N) of embeddings (R, C); rows add up to 1."""
        logits = torch.from_numpy(vectors @ self.weight.T + self.bias)
        found: Matrix = logits.softmax(dim=1).numpy()
        return found


def balanced_weights(targets: Integers, classes: int) -> Matrix:
    """(N,): what a row of each class counts, so that all classes count alike, and rows 1 on
    average: scikit-learn's ``class_weight="balanced"``.

    Args:
        targets: the class of each row, (R,); each occurs.
        classes: how many there are, N.
    """
    found: Matrix = len(targets) / (classes * np.bincount(targets, minlength=classes))
    return found


def fit_probe(
    vectors: npt.NDArray[np.floating],
    targets: Integers,
    classes: int,
    l2: float = DEFAULT_L2,
    *,
    balanced: bool = False,
) -> LinearProbe:
    """Fit a classifier.

    It minimises the sum of the cross entropies plus ``l2 / 2`` times the squared weights, of
    standardised embeddings; the bias is free. That is scikit-learn's LogisticRegression with
    ``C = 1 / l2`` behind its StandardScaler.

    Args:
        vectors: embeddings (R, C).
        targets: the class of each row, (R,), from 0 to ``classes - 1``; each occurs.
        classes: how many there are, N.
        l2: above 0.
        balanced: whether each cross entropy counts by the ``balanced_weights``.
    """
    rows = np.asarray(vectors, np.float64)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation[deviation == 0] = 1.0  # a dimension that never varies says nothing, and gets nothing
    scaled = torch.from_numpy((rows - mean) / deviation)
    weights = torch.from_numpy(balanced_weights(targets, classes)) if balanced else None
    weight, bias = _minimise(scaled, torch.from_numpy(targets), weights, classes, l2)
    unscaled = weight / deviation
    return LinearProbe(unscaled, bias - unscaled @ mean)


def _minimise(
    rows: Tensor, targets: Tensor, weights: Tensor | None, classes: int, l2: float
) -> tuple[Matrix, Matrix]:
    weight = torch.zeros(classes, rows.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    chunk = max(_CELLS // classes, 1)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_MAX_STEPS,
        max_eval=2 * _MAX_STEPS,
        tolerance_grad=_GRADIENT,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = l2 / (2 * len(rows)) * weight.square().sum()
        total.backward()
        for x, y in zip(rows.split(chunk), targets.split(chunk), strict=True):
            logits = x @ weight.T + bias
            part = F.cross_entropy(logits, y, weights, reduction="sum") / len(rows)
            part.backward()
            total = total.detach() + part.detach()
        return total.detach()

    with _threads(rows.numel() * classes):
        optimizer.step(loss)
    return weight.detach().numpy(), bias.detach().numpy()


@contextmanager
def _threads(products: int) -> Iterator[None]:
    """One thread for small products: several would mostly wait for each other, on a busy machine
    for ten times as long as it takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if products < _SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def out_of_fold(
    vectors: npt.NDArray[np.floating],
    targets: Integers,
    folds: Integers,
    classes: int,
    l2: float = DEFAULT_L2,
    *,
    balanced: bool = False,
) -> Matrix:
    """(R, N): what classifiers say of rows that they were not fitted on.

    Args:
        folds: (R,): the rows of each fold are judged by a classifier of all the others. A class
            that those lack has probability 0.
        balanced: as for ``fit_probe``, of the rows that each is fitted on.
    """
    found = np.zeros((len(targets), classes))
    for fold in np.unique(folds):
        judged = folds == fold
        known, inner = np.unique(targets[~judged], return_inverse=True)
        labels = inner.astype(np.int64)
        probe = fit_probe(vectors[~judged], labels, len(known), l2, balanced=balanced)
        found[np.ix_(judged, known)] = probe.probabilities(vectors[judged])
    return found
