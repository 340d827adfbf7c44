"""A linear classifier for sets of classes: a binary logistic regression for each of them."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor

from cvt.training.probes.minimum import Integers, Matrix, Objective, Truths, fitted
from cvt.training.probes.probe import DEFAULT_L2, LinearProbe

_SUREST: Final = 1 - 2.0**-53
"""The greatest number below 1, which a sigmoid beyond 37 is rounded to."""


def fit_binary_probes(
    vectors: npt.NDArray[np.floating],
    present: Truths,
    l2: float = DEFAULT_L2,
    *,
    balanced: bool = False,
) -> LinearProbe:
    """Fit a classifier for rows that may be of any number of classes: for each of them, is it there
    or not.

    That is scikit-learn's LogisticRegression in a OneVsRestClassifier, as for ``fit_probe``.

    Args:
        vectors: embeddings (R, C).
        present: whether each row is of each class, (R, N); each class is in some, not in all.
        l2: above 0.
        balanced: whether each cross entropy counts by the ``balanced_pairs``.
    """
    counts = np.ones(present.shape)
    if balanced:
        counts = np.where(present, *balanced_pairs(present))
    answers = present.astype(np.float64)
    found = fitted(_BinaryObjective, vectors, answers, counts, l2, present.shape[1])
    return LinearProbe(*found, "sigmoid")


def balanced_pairs(present: Truths) -> tuple[Matrix, Matrix]:
    """What a row counts in the question for each class where the class is there, and where it is
    not, (N,) both, so that either counts half: ``balanced_weights`` of the two answers."""
    rows, with_class = len(present), present.sum(axis=0)
    return rows / (2 * with_class), rows / (2 * (rows - with_class))


class _BinaryObjective(Objective):
    """Binary cross entropy over rows and classes: ``targets`` and ``shares`` are (R, N)."""

    def loss(self, logits: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (shares * losses).sum()

    def slope(self, logits: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        return shares * (logits.sigmoid() - targets)

    def bend(self, logits: Tensor, along: Tensor, shares: Tensor) -> Tensor:
        p = logits.sigmoid()
        return shares * p * (1 - p) * along


def binary_out_of_fold(
    vectors: npt.NDArray[np.floating],
    present: Truths,
    folds: Integers,
    l2: float = DEFAULT_L2,
    *,
    balanced: bool = False,
) -> Matrix:
    """(R, N): as ``out_of_fold``, of ``fit_binary_probes``. A class that all the others have, or
    none of them, has probability 1 or 0, and no other has."""
    found = np.zeros(present.shape)
    for fold in np.unique(folds):
        judged = folds == fold
        shares = present[~judged].mean(axis=0)
        found[judged] = shares
        asked = (shares > 0) & (shares < 1)
        if asked.any():
            seen = vectors[~judged], present[~judged][:, asked]
            probe = fit_binary_probes(*seen, l2, balanced=balanced)
            told = probe.probabilities(vectors[judged])
            found[np.ix_(judged, asked)] = told.clip(1 - _SUREST, _SUREST)
    return found
