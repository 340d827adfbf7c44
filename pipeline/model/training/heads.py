"""Classifiers on embeddings, doubts about labels, and measures: none depends on the family."""

from __future__ import annotations

from cvt.training.evaluation import ByClass, Duel, Evaluation, SetEvaluation
from cvt.training.label_issues import LabelIssues, SetIssues, label_issues, set_issues
from cvt.training.probes.binary import balanced_pairs, binary_out_of_fold, fit_binary_probes
from cvt.training.probes.minimum import Integers, Matrix, Truths
from cvt.training.probes.probe import (
    LinearProbe,
    Scores,
    balanced_weights,
    fit_probe,
    out_of_fold,
    probabilities_of,
)

__all__ = [
    "ByClass",
    "Duel",
    "Evaluation",
    "Integers",
    "LabelIssues",
    "LinearProbe",
    "Matrix",
    "Scores",
    "SetEvaluation",
    "SetIssues",
    "Truths",
    "balanced_pairs",
    "balanced_weights",
    "binary_out_of_fold",
    "fit_binary_probes",
    "fit_probe",
    "label_issues",
    "out_of_fold",
    "probabilities_of",
    "set_issues",
]
