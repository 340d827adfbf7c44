"""A linear classifier of classes that exclude each other: multinomial logistic regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor

from cvt.training.probes.minimum import Integers, Matrix, Objective, fitted

Scores = Literal["softmax", "sigmoid"]

DEFAULT_L2: Final = 1.0


@dataclass(frozen=True)
class LinearProbe:
    """Logits of embeddings: ``x @ weight.T + bias``."""

    weight: Matrix
    """(N, C)."""
    bias: Matrix
    """(N,)."""
    scores: Scores = "softmax"
    """What the logits become: softmax, of classes that exclude each other, or sigmoid."""

    def probabilities(self, vectors: npt.NDArray[np.floating]) -> Matrix:
        """(R, N) of embeddings (R, C); rows of softmax add up to 1."""
        return probabilities_of(torch.from_numpy(vectors @ self.weight.T + self.bias), self.scores)


def probabilities_of(logits: Tensor, scores: Scores) -> Matrix:
    """(R, N) of float64 logits, which ``to_scores`` would round."""
    found = logits.sigmoid() if scores == "sigmoid" else logits.softmax(dim=1)
    probabilities: Matrix = found.numpy()
    return probabilities


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
    counts = balanced_weights(targets, classes)[targets] if balanced else np.ones(len(targets))
    return LinearProbe(*fitted(_CrossEntropy, vectors, targets, counts, l2, classes))


class _CrossEntropy(Objective):
    """Of classes that exclude each other: ``targets`` and ``shares`` are (R,)."""

    def loss(self, logits: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        return shares @ F.cross_entropy(logits, targets, reduction="none")

    def slope(self, logits: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        return shares[:, None] * (logits.softmax(dim=1) - F.one_hot(targets, logits.shape[1]))

    def bend(self, logits: Tensor, along: Tensor, shares: Tensor) -> Tensor:
        p = logits.softmax(dim=1)
        change = p * along
        change -= p * change.sum(dim=1, keepdim=True)
        return shares[:, None] * change


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
