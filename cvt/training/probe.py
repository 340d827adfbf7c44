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
_MAX_STEPS: Final = 200
_MAX_DIRECTIONS: Final = 2000
"""Of the conjugate gradients of one step."""
_MAX_HALVINGS: Final = 40
_DECREASE: Final = 1e-4
"""The part of the promised decrease that a step must bring; the usual one (Armijo's)."""
_ROUNDING: Final = 1e-14
"""Of the objective: near the solution it decreases by less than it is rounded."""
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
    scaled = np.column_stack([(rows - mean) / deviation, np.ones(len(rows))])
    counts = balanced_weights(targets, classes)[targets] if balanced else np.ones(len(rows))
    penalty = np.append(np.full(len(mean), l2), 0.0)
    arrays = (scaled, targets, counts / len(rows), penalty / len(rows))
    with _threads(scaled.size * classes):
        found = _minimise(_Objective(*map(torch.from_numpy, arrays)), classes).numpy()
    unscaled = found[:, :-1] / deviation
    return LinearProbe(unscaled, found[:, -1] - unscaled @ mean)


@dataclass(frozen=True)
class _Objective:
    """The mean cross entropy, and the penalty, of a classifier (N, C + 1) whose last column is the
    bias."""

    rows: Tensor
    """(R, C + 1): embeddings, and a one for the bias."""
    targets: Tensor
    shares: Tensor
    """(R,): what each row counts in the mean."""
    penalty: Tensor
    """(C + 1,): of the squared weights of each dimension, halved."""

    def value(self, found: Tensor) -> Tensor:
        total = (self.penalty * found.square()).sum() / 2
        for x, y, share in self._chunks(len(found)):
            total += share @ F.cross_entropy(x @ found.T, y, reduction="none")
        return total

    def gradient(self, found: Tensor) -> Tensor:
        total = self.penalty * found
        for x, y, share in self._chunks(len(found)):
            surplus = (x @ found.T).softmax(dim=1) - F.one_hot(y, len(found))
            total += (share[:, None] * surplus).T @ x
        return total

    def curvature(self, found: Tensor, direction: Tensor) -> Tensor:
        """The second derivative times a direction: how the gradient changes along it."""
        total = self.penalty * direction
        for x, _, share in self._chunks(len(found)):
            p = (x @ found.T).softmax(dim=1)
            change = p * (x @ direction.T)
            change -= p * change.sum(dim=1, keepdim=True)
            total += (share[:, None] * change).T @ x
        return total

    def _chunks(self, classes: int) -> Iterator[tuple[Tensor, ...]]:
        chunk = max(_CELLS // classes, 1)
        parts = (of.split(chunk) for of in (self.rows, self.targets, self.shares))
        return zip(*parts, strict=True)


def _minimise(objective: _Objective, classes: int) -> Tensor:
    """(N, C + 1), by Newton's method with inexact steps (Nocedal and Wright, Numerical
    Optimization, algorithm 7.1): embeddings lie in few directions, along which a descent that does
    not know the curvature crawls."""
    found = objective.rows.new_zeros(classes, objective.rows.shape[1])
    for _ in range(_MAX_STEPS):
        gradient = objective.gradient(found)
        if gradient.abs().max() <= _GRADIENT:
            break
        step = _newton_step(objective, found, gradient)
        found = found + _shortened(objective, found, gradient, step)
    return found


def _newton_step(objective: _Objective, found: Tensor, gradient: Tensor) -> Tensor:
    """To where the gradient would vanish, by conjugate gradients: roughly far from the solution,
    and ever more precisely near it."""
    norm = float(gradient.norm())
    enough = min(0.1, norm**0.5) * norm
    step, residual = torch.zeros_like(gradient), -gradient
    direction = residual
    for _ in range(_MAX_DIRECTIONS):
        left = residual.square().sum()
        if left.sqrt() <= enough:
            break
        curved = objective.curvature(found, direction)
        length = left / (direction * curved).sum()
        step, residual = step + length * direction, residual - length * curved
        direction = residual + residual.square().sum() / left * direction
    return step


def _shortened(objective: _Objective, found: Tensor, gradient: Tensor, step: Tensor) -> Tensor:
    """A step, halved until the objective falls by a part of what the gradient promises."""
    before, promised = objective.value(found), (gradient * step).sum()
    for _ in range(_MAX_HALVINGS):
        if objective.value(found + step) <= before + _DECREASE * promised + _ROUNDING * before:
            break
        step, promised = step / 2, promised / 2
    return step


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
