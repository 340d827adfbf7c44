"""Measures against scikit-learn's, and McNemar's test against exact arithmetic."""

from math import comb

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)

from cvt.training.evaluation import (
    Duel,
    Evaluation,
    SetEvaluation,
    average_precision,
    expected_calibration_error,
)


def some(rows: int = 200, classes: int = 5) -> tuple[Evaluation, list[int], list[int]]:
    """An evaluation, its labels and its predictions; the last class occurs in neither."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(classes), rows)
    probabilities[:, -1] = 0
    targets = rng.integers(0, classes - 1, rows)
    found = Evaluation.of(probabilities, targets)
    return found, targets.tolist(), probabilities.argmax(axis=1).tolist()


def test_as_scikit_learn_counts() -> None:
    found, targets, predicted = some()
    assert (found.confusion == confusion_matrix(targets, predicted, labels=range(5))).all()
    assert found.accuracy == accuracy_score(targets, predicted)
    expected = precision_recall_fscore_support(targets, predicted, labels=range(5), zero_division=0)
    for ours, theirs in zip(
        (found.precision, found.recall, found.f1, found.support), expected, strict=True
    ):
        assert np.allclose(ours, theirs)
    assert found.macro_f1 == pytest.approx(f1_score(targets, predicted, average="macro"))


def test_sets_as_scikit_learn_counts() -> None:
    """With equal scores, and a class that occurs nowhere."""
    rng = np.random.default_rng(0)
    present = rng.random((200, 5)) < [0.5, 0.3, 0.1, 0.02, 0.0]
    scores = (0.3 * present + rng.random((200, 5)) * 0.7).round(2)
    scores[:, 4] = 0.1
    found = SetEvaluation.of(scores, present, 0.5)
    said = scores >= 0.5
    assert found.accuracy == pytest.approx(accuracy_score(present, said))
    expected = precision_recall_fscore_support(present, said, zero_division=0)
    for ours, theirs in zip(
        (found.precision, found.recall, found.f1, found.support), expected, strict=True
    ):
        assert np.allclose(ours, theirs)
    assert found.micro_f1 == pytest.approx(f1_score(present, said, average="micro"))
    macro = f1_score(present, said, average="macro", zero_division=np.nan)
    assert found.macro_f1 == pytest.approx(macro)
    precision = average_precision_score(present[:, :4], scores[:, :4], average=None)
    assert np.allclose(found.average_precision[:4], precision)
    assert np.isnan(found.average_precision[4])
    assert found.mean_average_precision == pytest.approx(precision.mean())
    assert np.isnan(average_precision(np.zeros(0), np.zeros(0, bool)))


def test_calibration_by_hand() -> None:
    """Of 15 bins, 0.95 and 1.0 are in the last one, 0.5 is in the eighth."""
    scores = np.array([0.95, 1.0, 0.5, 0.5])
    is_right = np.array([True, False, True, False])
    gap_of_last = abs((0.95 + 1.0) / 2 - 0.5) * 2 / 4
    assert expected_calibration_error(scores, is_right) == pytest.approx(gap_of_last)
    assert expected_calibration_error(np.ones(3), np.ones(3, bool)) == 0


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (9, 3), (5, 5), (40, 61)])
def test_mcnemar_is_exact(first: int, second: int) -> None:
    right = np.array([True] * first + [False] * second + [True] * 7 + [False] * 2)
    other = np.array([False] * first + [True] * second + [True] * 7 + [False] * 2)
    duel = Duel.of(right, other)
    assert (duel.only_first, duel.only_second, duel.both) == (first, second, 7)
    total, few = first + second, min(first, second)
    tail = sum(comb(total, k) for k in range(few + 1)) / 2**total
    assert duel.p_value == pytest.approx(min(1, 2 * tail), rel=1e-9)
