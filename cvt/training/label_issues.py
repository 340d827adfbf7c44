"""Labels that are probably wrong, by confident learning (Northcutt et al., arXiv 1911.00068)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cvt.training.probe import Integers, Matrix

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
        probabilities: (R, N), of classifiers that have not seen the row.
        targets: (R,): the class that each row is labelled with; each class occurs.
    """
    rows, best = np.arange(len(targets)), probabilities.argmax(axis=1)
    confident = probabilities >= _self_confidence(probabilities, targets) - _ROUNDING
    several = confident.sum(axis=1) > 1
    guess = np.where(several, best, confident.argmax(axis=1))
    is_issue = confident.any(axis=1) & (guess != targets) & (best != targets)
    given = probabilities[rows, targets]
    found = rows[is_issue][np.argsort(given[is_issue], kind="stable")]
    return LabelIssues(found, guess[found])


def _self_confidence(probabilities: Matrix, targets: Integers) -> npt.NDArray[np.float64]:
    """(N,): the mean probability of each class in the rows labelled with it."""
    given = probabilities[np.arange(len(targets)), targets]
    classes = probabilities.shape[1]
    total = np.bincount(targets, weights=given, minlength=classes)
    return total / np.bincount(targets, minlength=classes)
