"""Classifiers on embeddings, doubts about labels, and measures: none depends on the family."""

from __future__ import annotations

from cvt.training.evaluation import Duel, Evaluation
from cvt.training.label_issues import LabelIssues, label_issues
from cvt.training.probe import (
    Integers,
    LinearProbe,
    Matrix,
    balanced_weights,
    fit_probe,
    out_of_fold,
)

__all__ = [
    "Duel",
    "Evaluation",
    "Integers",
    "LabelIssues",
    "LinearProbe",
    "Matrix",
    "balanced_weights",
    "fit_probe",
    "label_issues",
    "out_of_fold",
]
