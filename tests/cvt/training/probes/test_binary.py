"""Probes for sets of classes against scikit-learn's binary regressions, one for each class."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cvt.training.probes.binary import balanced_pairs, binary_out_of_fold, fit_binary_probes
from cvt.training.probes.minimum import Truths


def some(rows: int = 300, width: int = 12) -> tuple[npt.NDArray[np.float32], Truths]:
    """Embeddings of dimensions with different scales, and four classes: none or up to three,
    the last one seldom."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(rows, width))
    answers = vectors @ rng.normal(size=(width, 4)) + 1.5 * rng.normal(size=(rows, 4))
    present = answers > np.quantile(answers, [0.3, 0.5, 0.7, 0.97], axis=0).diagonal()
    assert present.any(axis=0).all()
    assert (present.sum(axis=1) > 2).any()
    assert (~present.any(axis=1)).sum() > 10
    return (vectors * 10.0 ** rng.uniform(-3, 3, width)).astype(np.float32), present


def theirs(l2: float, weights: str | None = None) -> OneVsRestClassifier:
    regression = LogisticRegression(C=1 / l2, class_weight=weights, tol=1e-10, max_iter=10_000)
    return make_pipeline(StandardScaler(), OneVsRestClassifier(regression))


@pytest.mark.parametrize("weights", [None, "balanced"])
@pytest.mark.parametrize("l2", [0.1, 10.0])
def test_they_are_those_of_scikit_learn(l2: float, weights: str | None) -> None:
    vectors, present = some()
    rows = vectors.astype(np.float64)
    expected = theirs(l2, weights).fit(rows, present).predict_proba(rows)
    found = fit_binary_probes(vectors, present, l2, balanced=weights is not None)
    assert np.abs(found.probabilities(vectors) - expected).max() < 1e-5


def test_balanced_either_answer_counts_half() -> None:
    _, present = some()
    yes, no = balanced_pairs(present)
    assert np.allclose(yes * present.sum(axis=0), len(present) / 2)
    assert np.allclose(no * (~present).sum(axis=0), len(present) / 2)


@pytest.mark.parametrize("weights", [None, "balanced"])
def test_out_of_fold_is_what_the_others_say(weights: str | None) -> None:
    """Also of a class that all the others have, or none."""
    vectors, present = some()
    folds = np.arange(len(present), dtype=np.int64) % 3
    present[:, 1] |= folds != 0
    present[:, 2] &= folds == 1
    with pytest.warns(UserWarning, match="is present in all training examples"):
        expected = cross_val_predict(
            theirs(1.0, weights),
            vectors.astype(np.float64),
            present,
            cv=PredefinedSplit(folds),
            method="predict_proba",
        )
    found = binary_out_of_fold(vectors, present, folds, balanced=weights is not None)
    assert np.abs(found - expected).max() < 1e-4
    assert (found[folds == 0, 1] == 1).all()
    assert (found[folds == 1, 2] == 0).all()


def test_a_classifier_is_never_wholly_sure() -> None:
    """0 and 1 say that there was none, also of a row so far away that a sigmoid is rounded."""
    vectors, present = some()
    folds = np.minimum(np.arange(300), 1)
    for far in (1e6 * vectors[:1], -1e6 * vectors[:1]):
        found = binary_out_of_fold(np.vstack([far, vectors[1:]]), present, folds)
        assert ((found[0] > 0) & (found[0] < 1)).all()


def test_a_single_class() -> None:
    vectors, present = some()
    alone = fit_binary_probes(vectors, present[:, :1]).probabilities(vectors)
    among = fit_binary_probes(vectors, present).probabilities(vectors)
    assert alone.shape == (300, 1)
    assert np.abs(alone[:, 0] - among[:, 0]).max() < 1e-6
    never = np.zeros((300, 1), bool)
    assert (binary_out_of_fold(vectors, never, np.arange(300) % 3) == 0).all()
