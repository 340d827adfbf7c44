"""What was learned of sets of classes: for each class, whether an image has it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.model.label_columns import DEFAULT_THRESHOLD
from pipeline.model.network import TrainableCheckpoint
from pipeline.model.training.heads import (
    SetEvaluation,
    SetIssues,
    Truths,
    balanced_pairs,
    binary_out_of_fold,
    fit_binary_probes,
    set_issues,
)
from pipeline.model.training.recipes import Recipe
from pipeline.runs.finetune.fitted.fitted import LEAST, Fitted
from pipeline.runs.finetune.labelled.samples import Samples
from pipeline.runs.finetune.labelled.split import Division


@dataclass(frozen=True)
class FittedSets(Fitted):
    """Of images that are of any number of classes. It has those whose probability is at least
    ``DEFAULT_THRESHOLD``, as in a run with the model."""

    scores = "sigmoid"

    @classmethod
    def of(
        cls, samples: Samples, division: Division, l2: float, *, balanced: bool = False
    ) -> FittedSets:
        vectors, present = samples.vectors, division.targets > 0
        trained = ~division.held_out
        probe = fit_binary_probes(vectors[trained], present[trained], l2, balanced=balanced)
        unseen = binary_out_of_fold(vectors, present, division.folds, l2, balanced=balanced)
        return cls._with(samples, division, probe, unseen)

    @property
    def head(self) -> dict[str, Any]:
        return super().head | {"problem_type": np.array("multi_label_classification")}

    def on(self, parent: TrainableCheckpoint) -> TrainableCheckpoint:
        return parent.with_head(self.weight, self.bias, self.division.classes, multi_label=True)

    def balanced(self, recipe: Recipe) -> Recipe:
        yes, no = balanced_pairs(self.present[~self.division.held_out])
        return replace(recipe, class_weights=tuple(yes.tolist()), absent_weights=tuple(no.tolist()))

    @property
    def present(self) -> Truths:
        """(R, N): whether each image is labelled with each class."""
        return self.division.targets > 0

    @property
    def said(self) -> Truths:
        found: Truths = self.probabilities >= DEFAULT_THRESHOLD
        return found

    @cached_property
    def issues(self) -> SetIssues:
        """Of all images."""
        return set_issues(self.unseen, self.present)

    def measures(self) -> dict[str, Any]:
        held = self.division.held_out
        found = SetEvaluation.of(self.probabilities[held], self.present[held], DEFAULT_THRESHOLD)
        averages = [None if math.isnan(one) else one for one in found.average_precision.tolist()]
        return {
            "accuracy": found.accuracy,
            "macro_f1": found.macro_f1,
            "micro_f1": found.micro_f1,
            "mean_average_precision": found.mean_average_precision,
            "threshold": DEFAULT_THRESHOLD,
            "calibration_error": found.calibration_error,
            "label_issues": len(self.issues.rows),
            "classes": self.by_class(found, average_precision=averages),
        }

    def predictions(self) -> pa.Table:
        """Sets are texts, as in a file of labels; the score is that of the class of which the
        prediction is least sure, and ``scores`` has those of all classes, in order of name."""
        right = np.where(self.present, self.probabilities, 1 - self.probabilities)
        sureness = np.maximum(self.probabilities, 1 - self.probabilities).min(axis=1)
        losses = -np.log(np.maximum(right, LEAST)).mean(axis=1)
        return pa.table(
            {
                "uri": pa.array(self.samples.uris, pa.string()),
                "split": self.sides(np.arange(len(self.samples))),
                "label": self._texts(self.present),
                "predicted": self._texts(self.said),
                "score": pa.array(sureness, pa.float32()),
                "loss": pa.array(losses, pa.float32()),
                "scores": pa.array(list(self.probabilities), pa.list_(pa.float32())),
            }
        )

    def doubtful(self) -> pa.Table:
        """The scores are of the class that is most in doubt: that it is there, or is not, as the
        label has it, and the contrary."""
        rows, scores = self.issues.rows, self.issues.scores
        return pa.table(
            {
                "uri": pa.array([self.samples.uris[row] for row in rows], pa.string()),
                "split": self.sides(rows),
                "label": self._texts(self.present[rows]),
                "suggested": self._texts(self.issues.suggested),
                "score": pa.array(scores, pa.float32()),
                "suggested_score": pa.array(1 - scores, pa.float32()),
            }
        )

    def _texts(self, sets: Truths) -> pa.Array:
        names = np.array(self.division.classes, object)
        told = [self.division.kind.text(names[row].tolist()) for row in sets]
        return pa.array(told, pa.string())
