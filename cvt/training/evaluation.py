"""How good predictions are: accuracy by class, calibration, and one model against another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cvt.training.probes.minimum import Integers, Matrix, Truths

Floats = npt.NDArray[np.float64]

BINS: Final = 15
"""Of the scores, for the calibration; as in Guo et al. (arXiv 1706.04599)."""


@dataclass(frozen=True)
class ByClass:
    """Predictions held against labels, one entry per class (N,)."""

    hits: Integers
    """Rows that have the class by their label and by the prediction."""
    support: Integers
    """Rows that have it by their label."""
    predicted: Integers
    """Rows that have it by the prediction."""

    @property
    def precision(self) -> Floats:
        """Share of the rows with the prediction that have the label; 0 if there are none."""
        return _share(self.hits, self.predicted)

    @property
    def recall(self) -> Floats:
        """Share of the rows with the label that have the prediction; 0 if there are none."""
        return _share(self.hits, self.support)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall."""
        return _share(2 * self.hits, self.support + self.predicted)

    @property
    def macro_f1(self) -> float:
        """Mean of ``f1`` over the classes that any row has by its label or the prediction."""
        occurs = (self.support + self.predicted) > 0
        return float(self.f1[occurs].mean()) if occurs.any() else 0.0


@dataclass(frozen=True)
class Evaluation(ByClass):
    """Of classes that exclude each other."""

    confusion: Integers
    """(N, N): rows by label and prediction."""
    calibration_error: float
    """The expected difference between score and accuracy, over ``BINS`` bins of scores."""

    @classmethod
    def of(cls, probabilities: Matrix, targets: Integers) -> Evaluation:
        """Evaluate probabilities (R, N) of rows with labels (R,)."""
        best, classes = probabilities.argmax(axis=1), probabilities.shape[1]
        cells = np.bincount(targets * classes + best, minlength=classes * classes)
        scores = probabilities.max(axis=1, initial=0.0)
        error = expected_calibration_error(scores, best == targets)
        confusion = cells.reshape(classes, classes)
        support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
        return cls(np.diag(confusion), support, predicted, confusion, error)

    @property
    def accuracy(self) -> float:
        """Share of the rows whose prediction is their label."""
        return float(np.trace(self.confusion) / max(self.confusion.sum(), 1))


@dataclass(frozen=True)
class SetEvaluation(ByClass):
    """Of sets of classes."""

    average_precision: Floats
    """Mean of the precision over the rows of the class, each at the threshold that just finds it;
    NaN for a class that no row has."""
    accuracy: float
    """Share of the rows whose predicted set is that of their label."""
    calibration_error: float
    """As ``expected_calibration_error``, of all rows and classes."""

    @classmethod
    def of(cls, probabilities: Matrix, present: Truths, threshold: float) -> SetEvaluation:
        """Evaluate probabilities (R, N) of rows that are labelled with classes or not (R, N).

        Args:
            threshold: from which on a class is predicted.
        """
        said = probabilities >= threshold
        columns = zip(probabilities.T, present.T, strict=True)
        return cls(
            hits=(said & present).sum(axis=0),
            support=present.sum(axis=0),
            predicted=said.sum(axis=0),
            average_precision=np.array([average_precision(*one) for one in columns]),
            accuracy=float((said == present).all(axis=1).mean()) if len(said) else 0.0,
            calibration_error=expected_calibration_error(probabilities.ravel(), present.ravel()),
        )

    @property
    def micro_f1(self) -> float:
        """``f1`` of all classes together, each row and class counting alike."""
        found = self.support.sum() + self.predicted.sum()
        return float(2 * self.hits.sum() / max(found, 1))

    @property
    def mean_average_precision(self) -> float:
        """Over the classes that any row has."""
        known = self.average_precision[self.support > 0]
        return float(known.mean()) if len(known) else 0.0


def average_precision(scores: Floats, present: Truths) -> float:
    """Of one class: scores (R,), and whether each row has it; NaN if none has. Rows of equal scores
    are found together."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    hits = np.cumsum(present[order])[ends]
    if not len(hits) or not hits[-1]:
        return math.nan
    return float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / hits[-1])


def _share(part: Integers, whole: Integers) -> Floats:
    return part / np.maximum(whole, 1)


def expected_calibration_error(scores: Floats, is_right: Truths) -> float:
    """Mean over the rows of how far the accuracy of each row's bin is from its mean score.

    Args:
        scores: of the predictions, (R,), from 0 to 1.
        is_right: (R,): whether each is the label.
    """
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=scores - is_right, minlength=BINS)
    return float(np.abs(gaps).sum() / max(len(scores), 1))


@dataclass(frozen=True)
class Duel:
    """Two models on the same rows: McNemar's exact test on those where only one is right."""

    only_first: int
    """Rows that only the first one has right."""
    only_second: int
    both: int
    """Rows that both have right."""
    rows: int

    @classmethod
    def of(cls, first: Truths, second: Truths) -> Duel:
        """Of whether each model has each row right, (R,) both."""
        return cls(
            only_first=int((first & ~second).sum()),
            only_second=int((second & ~first).sum()),
            both=int((first & second).sum()),
            rows=len(first),
        )

    @property
    def p_value(self) -> float:
        """The probability of a difference at least as large, if the models are equally good: twice
        the tail of a binomial distribution, at most 1."""
        trials, few = self.only_first + self.only_second, min(self.only_first, self.only_second)
        log_half = trials * math.log(0.5)
        terms = (math.exp(_log_choose(trials, k) + log_half) for k in range(few + 1))
        return min(1.0, 2 * math.fsum(terms))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
