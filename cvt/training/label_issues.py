"""Labels that are probably wrong, by confident learning (Northcutt et al., arXiv 1911.00068)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cvt.training.probes.minimum import Integers, Matrix, Truths

_ROUNDING: Final = 1e-6


@dataclass(frozen=True)
class LabelIssues:
    """Rows whose label is probably wrong, the most suspicious first."""

    rows: Integers
    """(K,): positions."""
    suggested: Integers
    """(K,): the class that each probably is."""


def label_issues(probabilities: Matrix, targets: Integers) -> LabelIssues:
    """Find them.

    A row is confidently of a class if its probability reaches the mean that the class has in the
    rows labelled so. It is an issue if it is confidently of another class than its label's, the
    most probable of them if there are several, and its label is not the most probable class. The
    rows that cleanlab's ``find_label_issues(filter_by="confident_learning")`` flags are the same;
    the order is that of the probability of the given label.

    Args:
        probabilities: (R, N), of classifiers that have not seen the row; 0 of one that has seen
            nothing of the class, as in ``out_of_fold``, which gives no reason to doubt its rows.
        targets: (R,): the class that each row is labelled with; each class occurs.
    """
    rows, best = np.arange(len(targets)), probabilities.argmax(axis=1)
    confident = probabilities >= _self_confidence(probabilities, targets) - _ROUNDING
    several = confident.sum(axis=1) > 1
    guess = np.where(several, best, confident.argmax(axis=1))
    given = probabilities[rows, targets]
    is_issue = confident.any(axis=1) & (guess != targets) & (best != targets) & (given > 0)
    found = rows[is_issue][np.argsort(given[is_issue], kind="stable")]
    return LabelIssues(found, guess[found])


@dataclass(frozen=True)
class SetIssues:
    """Rows whose set of classes is probably wrong, the most suspicious first."""

    rows: Integers
    """(K,): positions."""
    suggested: Truths
    """(K, N): the classes that each probably has."""
    scores: npt.NDArray[np.float64]
    """(K,): the probability of what the label says of the class that is most in doubt."""


def set_issues(probabilities: Matrix, present: Truths) -> SetIssues:
    """Find them: ``label_issues`` of each class alone, which is there or not. The rows that
    cleanlab's ``multilabel_classification`` flags with the same filter are the same.

    Args:
        probabilities: (R, N), of classifiers that have not seen the row; 0 and 1 of none, as in
            ``binary_out_of_fold``, which gives no reason to doubt.
        present: (R, N): whether each row is labelled with each class; each is in some, not in all.
    """
    doubted = np.zeros(present.shape, bool)
    for number, (yes, is_there) in enumerate(zip(probabilities.T, present.T, strict=True)):
        found = label_issues(np.column_stack([1 - yes, yes]), is_there.astype(np.int64))
        doubted[found.rows, number] = True
    given = np.where(present, probabilities, 1 - probabilities)
    worst = np.where(doubted, given, np.inf).min(axis=1)
    rows = np.flatnonzero(doubted.any(axis=1))
    rows = rows[np.argsort(worst[rows], kind="stable")]
    return SetIssues(rows, (present ^ doubted)[rows], worst[rows])


def _self_confidence(probabilities: Matrix, targets: Integers) -> npt.NDArray[np.float64]:
    """(N,): the mean probability of each class in the rows labelled with it."""
    given = probabilities[np.arange(len(targets)), targets]
    classes = probabilities.shape[1]
    total = np.bincount(targets, weights=given, minlength=classes)
    return total / np.bincount(targets, minlength=classes)
