"""What was learned of classes that exclude each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.model.network import TrainableCheckpoint
from pipeline.model.training.heads import (
    Evaluation,
    Integers,
    LabelIssues,
    Truths,
    balanced_weights,
    fit_probe,
    label_issues,
    out_of_fold,
)
from pipeline.model.training.recipes import Recipe
from pipeline.runs.finetune.fitted.fitted import LEAST, Fitted
from pipeline.runs.finetune.labelled.samples import Samples
from pipeline.runs.finetune.labelled.split import Division


@dataclass(frozen=True)
class FittedClasses(Fitted):
    """Of images that are of one class each."""

    scores = "softmax"

    @classmethod
    def of(
        cls, samples: Samples, division: Division, l2: float, *, balanced: bool = False
    ) -> FittedClasses:
        vectors, targets, classes = samples.vectors, division.targets, len(division.classes)
        trained = ~division.held_out
        probe = fit_probe(vectors[trained], targets[trained], classes, l2, balanced=balanced)
        unseen = out_of_fold(vectors, targets, division.folds, classes, l2, balanced=balanced)
        return cls._with(samples, division, probe, unseen)

    def on(self, parent: TrainableCheckpoint) -> TrainableCheckpoint:
        return parent.with_head(self.weight, self.bias, self.division.classes)

    @property
    def said(self) -> Truths:
        return self.division.kind.said(self.probabilities)

    def balanced(self, recipe: Recipe) -> Recipe:
        targets = self.division.targets[~self.division.held_out]
        weights = balanced_weights(targets, len(self.division.classes))
        return replace(recipe, class_weights=tuple(weights.tolist()))

    @cached_property
    def issues(self) -> LabelIssues:
        """Of all images."""
        return label_issues(self.unseen, self.division.targets)

    def measures(self) -> dict[str, Any]:
        held, classes = self.division.held_out, self.division.classes
        found = Evaluation.of(self.probabilities[held], self.division.targets[held])
        cells = zip(*(where.tolist() for where in np.nonzero(found.confusion)), strict=True)
        return {
            "accuracy": found.accuracy,
            "macro_f1": found.macro_f1,
            "calibration_error": found.calibration_error,
            "label_issues": len(self.issues.rows),
            "classes": self.by_class(found),
            "confusion": [
                {"label": classes[label], "predicted": classes[predicted]}
                | {"images": int(found.confusion[label, predicted])}
                for label, predicted in cells
            ],
        }

    def predictions(self) -> pa.Table:
        rows, targets = np.arange(len(self.samples)), self.division.targets
        best = self.probabilities.argmax(axis=1)
        losses = -np.log(np.maximum(self.probabilities[rows, targets], LEAST))
        return pa.table(
            {
                "uri": pa.array(self.samples.uris, pa.string()),
                "split": self.sides(rows),
                "label": pa.array(self.samples.labels, pa.string()),
                "predicted": self._names(best),
                "score": pa.array(self.probabilities[rows, best], pa.float32()),
                "loss": pa.array(losses, pa.float32()),
            }
        )

    def doubtful(self) -> pa.Table:
        rows, suggested = self.issues.rows, self.issues.suggested
        return pa.table(
            {
                "uri": pa.array([self.samples.uris[row] for row in rows], pa.string()),
                "split": self.sides(rows),
                "label": self._names(self.division.targets[rows]),
                "suggested": self._names(suggested),
                "score": pa.array(self.unseen[rows, self.division.targets[rows]], pa.float32()),
                "suggested_score": pa.array(self.unseen[rows, suggested], pa.float32()),
            }
        )

    def _names(self, classes: Integers) -> pa.Array:
        return pa.array(self.division.classes, pa.string()).take(pa.array(classes))
