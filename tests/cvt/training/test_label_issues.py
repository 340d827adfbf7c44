"""Confident learning, worked out by hand, against its definition row by row, and against cleanlab,
which its authors wrote."""

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from cleanlab.multilabel_classification.filter import find_label_issues as find_set_issues

from cvt.training.label_issues import label_issues, set_issues
from cvt.training.probes.binary import binary_out_of_fold
from cvt.training.probes.minimum import Integers, Matrix
from cvt.training.probes.probe import out_of_fold


def test_a_case_by_hand() -> None:
    """Mean probability of class 0 in the rows labelled 0: (0.9 + 0.8 + 0.1) / 3 = 0.6; of class 1
    in those labelled 1: (0.7 + 0.9 + 0.35) / 3 = 0.65."""
    probabilities = np.array(
        [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.1, 0.9], [0.65, 0.35]]
    )
    targets = np.array([0, 0, 0, 1, 1, 1])
    found = label_issues(probabilities, targets)
    # Row 2 is confidently 1 (0.9 >= 0.65) and labelled 0; row 5 confidently 0 (0.65 >= 0.6).
    assert found.rows.tolist() == [2, 5]
    assert found.suggested.tolist() == [1, 0]


def test_doubt_alone_is_no_issue() -> None:
    """Row 2 is more probably 1, but less than rows labelled 1 usually are (0.9)."""
    probabilities = np.array([[0.95, 0.05], [0.85, 0.15], [0.4, 0.6], [0.1, 0.9], [0.1, 0.9]])
    assert not len(label_issues(probabilities, np.array([0, 0, 0, 1, 1])).rows)


def reference(
    probabilities: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    targets: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> set[int]:
    """The definition, in loops."""
    classes = range(probabilities.shape[1])
    means = [probabilities[targets == c, c].mean() for c in classes]
    found = set()
    for row, (p, label) in enumerate(zip(probabilities, targets, strict=True)):
        confident = [c for c in classes if p[c] >= means[c] - 1e-6]
        if not confident or p.argmax() == label:
            continue
        guess = confident[0] if len(confident) == 1 else p.argmax()
        if guess != label:
            found.add(row)
    return found


def of_cleanlab(probabilities: Matrix, targets: Integers) -> set[int]:
    found: Integers = find_label_issues(
        targets,
        probabilities,
        filter_by="confident_learning",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return set(found.tolist())


@pytest.mark.parametrize("classes", [2, 5, 12])
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_they_are_those_of_cleanlab(classes: int, spread: float) -> None:
    """Of probabilities that are fitted out of fold, with few and with many mistakes."""
    rng = np.random.default_rng(classes)
    truth = rng.integers(0, classes, 400)
    centres = rng.normal(size=(classes, 8))
    vectors = centres[truth] + spread * rng.normal(size=(400, 8))
    targets = truth.copy()
    flipped = rng.permutation(400)[:40]
    targets[flipped] = (targets[flipped] + rng.integers(1, classes, 40)) % classes
    folds = np.arange(400, dtype=np.int64) % 5
    probabilities = out_of_fold(vectors, targets, folds, classes)
    found = label_issues(probabilities, targets)
    assert set(found.rows.tolist()) == of_cleanlab(probabilities, targets)
    assert len(found.rows) > 20


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_those_of_sets_are_cleanlabs(spread: float) -> None:
    """Of any number of classes for a row; most of those that were changed are found."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(400, 8))
    truth = vectors[:, :4] + 0.3 * spread * rng.normal(size=(400, 4)) > [0, 0.3, 0.7, -0.5]
    present = truth.copy()
    changed = rng.permutation(400)[:40]
    present[changed, rng.integers(0, 4, 40)] ^= True
    probabilities = binary_out_of_fold(vectors, present, np.arange(400, dtype=np.int64) % 5)
    found = set_issues(probabilities, present)
    labels = [np.flatnonzero(row).tolist() for row in present]
    expected = find_set_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    assert set(found.rows.tolist()) == set(np.flatnonzero(expected).tolist())
    assert len({*changed.tolist()} & {*found.rows.tolist()}) >= 25
    assert (np.diff(found.scores) >= 0).all()
    assert (found.suggested != present[found.rows]).any(axis=1).all()
    right = (found.suggested == truth[found.rows]).all(axis=1)
    assert right.mean() > 0.4


def test_nothing_is_doubted_where_no_classifier_was_asked() -> None:
    """Of a class that is in the first fold alone, the others say that it is nowhere."""
    rng, folds = np.random.default_rng(2), np.arange(60, dtype=np.int64) % 5
    vectors = rng.normal(size=(60, 4))
    present = np.column_stack([vectors[:, 0] > 0, np.isin(np.arange(60), [0, 5, 10])])
    probabilities = binary_out_of_fold(vectors, present, folds)
    assert (probabilities[folds == 0, 1] == 0).all()
    found = set_issues(probabilities, present)
    doubted = (found.suggested ^ present[found.rows])[:, 1]
    assert not set(found.rows[doubted].tolist()) & {0, 5, 10}
    targets = present[:, 0].astype(np.int64)
    targets[[0, 5, 10]] = 2
    found_alone = label_issues(out_of_fold(vectors, targets, folds, 3), targets)
    assert not {*found_alone.rows.tolist()} & {0, 5, 10}


def test_flipped_labels_are_found() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 400)
    logits = rng.normal(size=(400, 5)) + 4 * np.eye(5)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    flipped = rng.permutation(400)[:20]
    targets = truth.copy()
    targets[flipped] = (targets[flipped] + 1) % 5
    found = label_issues(probabilities, targets)
    assert set(found.rows.tolist()) == reference(probabilities, targets)
    assert len({*flipped.tolist()} & {*found.rows.tolist()}) >= 15
    given = probabilities[found.rows, targets[found.rows]]
    assert (np.diff(given) >= 0).all()
    assert (found.suggested != targets[found.rows]).all()
