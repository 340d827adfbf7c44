"""What was learned from labelled images, and what it says of each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.model.network import Floats, TrainableCheckpoint
from pipeline.model.training.heads import (
    Evaluation,
    LabelIssues,
    LinearProbe,
    Matrix,
    fit_probe,
    label_issues,
    out_of_fold,
)
from pipeline.runs.finetune.labelled.samples import Samples
from pipeline.runs.finetune.labelled.split import Division

_LEAST = 1e-12
"""Probability below which a loss does not grow."""


@dataclass(frozen=True)
class Fitted:
    """A head that was fitted on the images that are not held out, maybe with the network before it,
    and its answers."""

    samples: Samples
    division: Division
    weight: Floats
    """(N, C)."""
    bias: Floats
    """(N,)."""
    probabilities: Matrix
    """(R, N): what the head says of every image."""
    unseen: Matrix
    """(R, N): what heads say that were fitted without the image."""
    issues: LabelIssues
    model: TrainableCheckpoint | None = None
    """The network, if more of it was trained than the head."""
    course: tuple[Mapping[str, float], ...] = ()
    """Of its epochs: loss, and loss and accuracy on the held-out images."""

    @classmethod
    def of(
        cls, samples: Samples, division: Division, l2: float, *, balanced: bool = False
    ) -> Fitted:
        """Fit a head, and five more to judge the labels by."""
        vectors, targets, classes = samples.vectors, division.targets, len(division.classes)
        trained = ~division.held_out
        probe = fit_probe(vectors[trained], targets[trained], classes, l2, balanced=balanced)
        weight, bias = probe.weight.astype(np.float32), probe.bias.astype(np.float32)
        published = LinearProbe(weight.astype(np.float64), bias.astype(np.float64))
        unseen = out_of_fold(vectors, targets, division.folds, classes, l2, balanced=balanced)
        return cls(
            samples,
            division,
            weight,
            bias,
            published.probabilities(vectors),
            unseen,
            label_issues(unseen, targets),
        )

    @property
    def evaluation(self) -> Evaluation:
        """On the held-out images."""
        held = self.division.held_out
        return Evaluation.of(self.probabilities[held], self.division.targets[held])

    def predictions(self) -> pa.Table:
        """uri, split, label, predicted, score and loss of every labelled image."""
        rows, targets = np.arange(len(self.samples)), self.division.targets
        best = self.probabilities.argmax(axis=1)
        losses = -np.log(np.maximum(self.probabilities[rows, targets], _LEAST))
        return pa.table(
            {
                "uri": pa.array(self.samples.uris, pa.string()),
                "split": self._sides(rows),
                "label": pa.array(self.samples.labels, pa.string()),
                "predicted": self._names(best),
                "score": pa.array(self.probabilities[rows, best], pa.float32()),
                "loss": pa.array(losses, pa.float32()),
            }
        )

    def doubtful(self) -> pa.Table:
        """uri, split, label, the class that it probably is, and the scores of both."""
        rows, suggested = self.issues.rows, self.issues.suggested
        return pa.table(
            {
                "uri": pa.array([self.samples.uris[row] for row in rows], pa.string()),
                "split": self._sides(rows),
                "label": self._names(self.division.targets[rows]),
                "suggested": self._names(suggested),
                "score": pa.array(self.unseen[rows, self.division.targets[rows]], pa.float32()),
                "suggested_score": pa.array(self.unseen[rows, suggested], pa.float32()),
            }
        )

    def _names(self, classes: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pa.Array:
        return pa.array(self.division.classes, pa.string()).take(pa.array(classes))

    def _sides(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pa.Array:
        held = self.division.held_out[rows]
        return pa.array(np.where(held, "validation", "train").tolist(), pa.string())
