"""The probe against scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from cvt.training.probes import minimum
from cvt.training.probes.probe import balanced_weights, fit_probe, out_of_fold


def clusters(
    rows: int = 300, width: int = 16, classes: int = 4, seed: int = 0
) -> tuple[
    np.ndarray[tuple[int, int], np.dtype[np.float32]], np.ndarray[tuple[int], np.dtype[np.int64]]
]:
    """Overlapping ones, of dimensions with very different scales; every class occurs."""
    rng = np.random.default_rng(seed)
    targets = np.append(np.arange(classes), rng.integers(0, classes, rows - classes))
    centres = rng.normal(size=(classes, width))
    scales = 10.0 ** rng.uniform(-3, 3, width)
    vectors = (centres[targets] + 1.5 * rng.normal(size=(rows, width)) + 5) * scales
    return vectors.astype(np.float32), targets


@pytest.mark.parametrize("l2", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_it_is_the_solution_of_scikit_learn(l2: float, classes: int) -> None:
    vectors, targets = clusters(classes=classes)
    theirs = make_pipeline(
        StandardScaler(), LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000)
    ).fit(vectors.astype(np.float64), targets)
    ours = fit_probe(vectors, targets, classes, l2)
    expected = theirs.predict_proba(vectors.astype(np.float64))
    if classes == 2:  # of two, theirs has one weight vector w, which ours splits into -w/2 and w/2
        expected = fit_as_softmax(vectors, targets, l2)
    assert np.abs(ours.probabilities(vectors) - expected).max() < 1e-5


def fit_as_softmax(
    vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    targets: np.ndarray[tuple[int], np.dtype[np.int64]],
    l2: float,
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Two weight vectors +-v cost 2 |v|^2, the one vector w = 2 v of theirs costs |w|^2: the same
    solution is theirs with half of the penalty."""
    scaled = StandardScaler().fit_transform(vectors.astype(np.float64))
    theirs = LogisticRegression(C=2 / l2, tol=1e-10, max_iter=10_000).fit(scaled, targets)
    found: np.ndarray[tuple[int, int], np.dtype[np.float64]] = theirs.predict_proba(scaled)
    return found


def uneven() -> tuple[
    np.ndarray[tuple[int, int], np.dtype[np.float32]], np.ndarray[tuple[int], np.dtype[np.int64]]
]:
    """Few rows of the first classes, many of the last ones."""
    vectors, targets = clusters(rows=600)
    kept = np.random.default_rng(1).random(600) < np.array([0.05, 0.2, 0.5, 1.0])[targets]
    kept[:8] = True
    return vectors[kept], targets[kept]


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    _, targets = uneven()
    expected = compute_class_weight("balanced", classes=np.arange(4), y=targets)
    found = balanced_weights(targets, 4)
    assert np.allclose(found, expected)
    assert found[0] > 3 * found[3]
    assert found[targets].mean() == pytest.approx(1)


@pytest.mark.parametrize("l2", [0.1, 10.0])
def test_balanced_it_is_the_solution_of_scikit_learn_with_class_weights(l2: float) -> None:
    vectors, targets = uneven()
    rows = vectors.astype(np.float64)
    theirs = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=1 / l2, class_weight="balanced", tol=1e-10, max_iter=10_000),
    )
    ours = fit_probe(vectors, targets, 4, l2, balanced=True).probabilities(vectors)
    assert np.abs(ours - theirs.fit(rows, targets).predict_proba(rows)).max() < 1e-5
    plain = fit_probe(vectors, targets, 4, l2).probabilities(vectors)
    assert np.abs(ours - plain).max() > 0.05
    folds = np.arange(len(targets), dtype=np.int64) % 3
    judged = out_of_fold(vectors, targets, folds, 4, l2, balanced=True)
    split = PredefinedSplit(folds)
    expected = cross_val_predict(theirs, rows, targets, cv=split, method="predict_proba")
    assert np.abs(judged - expected).max() < 1e-4  # of rows that neither was fitted on


def test_chunks_of_logits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, targets = clusters()
    whole = fit_probe(vectors, targets, 4)
    monkeypatch.setattr(minimum, "_CELLS", 4 * 7)
    pieces = fit_probe(vectors, targets, 4)
    assert np.allclose(whole.probabilities(vectors), pieces.probabilities(vectors), atol=1e-6)


def test_the_same_rows_give_the_same_classifier_bit_for_bit() -> None:
    vectors, targets = clusters()
    first, second = fit_probe(vectors, targets, 4), fit_probe(vectors, targets, 4)
    assert (first.weight == second.weight).all()
    assert (first.bias == second.bias).all()


def test_a_dimension_that_never_varies_gets_no_weight() -> None:
    vectors, targets = clusters()
    vectors[:, 3] = 7.0
    assert (fit_probe(vectors, targets, 4).weight[:, 3] == 0).all()


def test_more_dimensions_than_rows() -> None:
    vectors, targets = clusters(rows=8, width=64)
    found = fit_probe(vectors, targets, 4)
    assert (found.probabilities(vectors).argmax(axis=1) == targets).all()
    assert np.isfinite(found.weight).all()


def test_out_of_fold_is_what_the_others_say() -> None:
    vectors, targets = clusters()
    folds = np.arange(len(targets), dtype=np.int64) % 3
    found = out_of_fold(vectors, targets, folds, 4)
    for fold in range(3):
        inside = folds == fold
        of_others = fit_probe(vectors[~inside], targets[~inside], 4)
        assert np.allclose(found[inside], of_others.probabilities(vectors[inside]))


def test_a_class_that_a_fold_has_alone_is_unknown_to_the_others() -> None:
    vectors, targets = clusters()
    folds = np.where(targets == 2, 0, 1 + np.arange(len(targets)) % 2).astype(np.int64)
    found = out_of_fold(vectors, targets, folds, 4)
    assert (found[folds == 0, 2] == 0).all()
    assert np.allclose(found.sum(axis=1), 1)
    assert torch.is_grad_enabled()
