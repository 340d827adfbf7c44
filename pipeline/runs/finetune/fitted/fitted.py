"""What was learned, whatever labels are: of one class for an image, or of sets of classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from pipeline.model.network import Floats, TrainableCheckpoint
from pipeline.model.training.heads import (
    ByClass,
    LinearProbe,
    Matrix,
    Scores,
    Truths,
    probabilities_of,
)
from pipeline.model.training.recipes import Recipe
from pipeline.runs.finetune.labelled.samples import Samples
from pipeline.runs.finetune.labelled.split import Division

LEAST = 1e-12
"""Probability below which a loss does not grow."""
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Fitted(ABC):
    """A head that was fitted on the images that are not held out, maybe with the network before it,
    and its answers."""

    scores: ClassVar[Scores]
    """What logits become."""

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
    model: TrainableCheckpoint | None = None
    """The network, if more of it was trained than the head."""
    course: tuple[Mapping[str, float], ...] = ()
    """Of its epochs: loss, and loss and accuracy on the held-out images."""

    @classmethod
    @abstractmethod
    def of(cls, samples: Samples, division: Division, l2: float, *, balanced: bool = False) -> Self:
        """Fit a head, and five more to judge the labels by.

        Args:
            balanced: whether all classes count alike, however many images they have.
        """

    @classmethod
    def _with(
        cls, samples: Samples, division: Division, probe: LinearProbe, unseen: Matrix
    ) -> Self:
        """With the answers that the probe gives as a checkpoint, whose numbers are float32."""
        weight, bias = probe.weight.astype(np.float32), probe.bias.astype(np.float32)
        published = LinearProbe(
            weight.astype(np.float64), bias.astype(np.float64), probe.scores
        ).probabilities(samples.vectors)
        return cls(samples, division, weight, bias, published, unseen)

    @property
    def head(self) -> dict[str, Any]:
        """The arrays that ``Head.load`` reads, by name."""
        return {
            "weight": self.weight,
            "bias": self.bias,
            "labels": np.array(self.division.classes),
        }

    @abstractmethod
    def on(self, parent: TrainableCheckpoint) -> TrainableCheckpoint:
        """The head behind the backbone that it was fitted for."""

    @property
    @abstractmethod
    def said(self) -> Truths:
        """(R, N): which classes it names for each image."""

    def as_probabilities(self, logits: Tensor) -> Matrix:
        """Logits (R, N) of a network that was trained on the same labels."""
        return probabilities_of(logits, self.scores)

    @abstractmethod
    def balanced(self, recipe: Recipe) -> Recipe:
        """The recipe by which a network is taught so that all classes count alike."""

    @abstractmethod
    def measures(self) -> dict[str, Any]:
        """How good it is on the held-out images, class by class, for metrics.json."""

    def by_class(self, found: ByClass, **more: Sequence[Any]) -> list[dict[str, Any]]:
        """The same of each class, and ``more`` of it."""
        trained = self.division.counts(held_out=False)
        columns = {
            "precision": found.precision.tolist(),
            "recall": found.recall.tolist(),
            "f1": found.f1.tolist(),
            **more,
            "support": found.support.tolist(),
            "train": trained.values(),
        }
        rows = zip(*columns.values(), strict=True)
        return [
            {"class": name} | dict(zip(columns, row, strict=True))
            for name, row in zip(trained, rows, strict=True)
        ]

    @abstractmethod
    def predictions(self) -> pa.Table:
        """uri, split, label, predicted, score and loss of every labelled image."""

    @abstractmethod
    def doubtful(self) -> pa.Table:
        """uri, split, label, what it probably is, and the scores of both."""

    def sides(self, rows: Rows) -> pa.Array:
        """The column ``split``."""
        held = self.division.held_out[rows]
        return pa.array(np.where(held, "validation", "train").tolist(), pa.string())
