"""The model to beat, on the same held-out images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.contract.errors import RunError, UsageError
from pipeline.contract.spec import ModelSpec
from pipeline.model.families.registry import load_checkpoint
from pipeline.model.network import TrainableCheckpoint
from pipeline.model.training.heads import Duel, Integers
from pipeline.model.training.published import newest_model
from pipeline.runs.finetune.fitted.fitted import Fitted
from pipeline.runs.finetune.labelled.samples import Vectors
from pipeline.runs.finetune.labelled.split import Division

MUCH = 0.05
"""A recall that is lower by more than this is named."""


@dataclass(frozen=True)
class Champion:
    """A model that answers for the same images."""

    source: str
    checkpoint: TrainableCheckpoint
    has_embeddings: bool
    """Whether its backbone is the one that the embeddings come from."""

    @classmethod
    def load(cls, source: str, parent: TrainableCheckpoint, *, from_images: bool) -> Champion:
        """Read it.

        Args:
            from_images: whether there are images that it can look at.

        Raises:
            UsageError: it cannot be read, or computes other embeddings than ``parent``, and there
                is nothing else.
        """
        found = newest_model(source)
        checkpoint = load_checkpoint(ModelSpec(source=found))
        if not isinstance(checkpoint, TrainableCheckpoint) or not checkpoint.classes:
            raise UsageError(f"<finetune.champion> {found} has no classifier to compare with")
        has_embeddings = same_embeddings(checkpoint, parent)
        if not has_embeddings and not from_images:
            raise UsageError(
                f"<finetune.champion> {found} has another backbone or preprocessing than "
                "<model.source>, and its answers cannot be had from the stored embeddings; name "
                "the images instead of outputs"
            )
        return cls(found, checkpoint, has_embeddings)

    def predict(self, vectors: Vectors) -> list[str]:
        """The class that it names for each embedding."""
        weight, bias = self.checkpoint.head
        best = (vectors @ weight.T + bias).argmax(axis=1)
        return [self.checkpoint.classes[number] for number in best.tolist()]

    def compared(self, division: Division) -> npt.NDArray[np.bool_]:
        """(R,): the held-out images whose label is a class that both know.

        Raises:
            UsageError: there are none.
        """
        known = np.isin(division.classes, self.checkpoint.classes)
        found: npt.NDArray[np.bool_] = division.held_out & known[division.targets]
        if not found.any():
            raise UsageError(
                f"<finetune.champion> {self.source} knows none of the classes that are held out"
            )
        return found

    def answers(self, fitted: Fitted) -> dict[str, str]:
        """What it says of the ``compared`` images by their embeddings, by uri."""
        rows = np.flatnonzero(self.compared(fitted.division)).tolist()
        told = self.predict(fitted.samples.vectors[rows])
        return dict(zip((fitted.samples.uris[row] for row in rows), told, strict=True))

    def meet(self, fitted: Fitted, answers: Mapping[str, str]) -> Contest:
        """Compare on the ``compared`` images, as far as there are its answers, by uri.

        Raises:
            RunError: there are none.
        """
        division, told = fitted.division, [answers.get(uri) for uri in fitted.samples.uris]
        has_answer = np.array([one is not None for one in told], bool)
        compared = self.compared(division) & has_answer
        if not compared.any():
            raise RunError(
                f"<finetune.champion> {self.source} could read none of the images held out; start "
                "the same command again with images that are there"
            )
        labels = np.array(division.classes, object)[division.targets[compared]]
        theirs = np.array(told, object)[compared] == labels
        ours = fitted.probabilities[compared].argmax(axis=1) == division.targets[compared]
        return Contest(
            champion=self.source,
            duel=Duel.of(ours, theirs),
            left_out=int((division.held_out & ~compared).sum()),
            unknown=sorted(set(division.classes) - set(self.checkpoint.classes)),
            forgotten=sorted(set(self.checkpoint.classes) - set(division.classes)),
            recalls=_recalls(division.classes, division.targets[compared], ours, theirs),
            answers=[one if is_met else None for one, is_met in zip(told, compared, strict=True)],
        )


@dataclass(frozen=True)
class Recall:
    """Of a class, on the compared images."""

    images: int
    champion: float
    challenger: float


@dataclass(frozen=True)
class Contest:
    """The new model, as the first of the duel, against the champion."""

    champion: str
    duel: Duel
    left_out: int
    """Held-out images of classes that the champion does not know, or that it could not read."""
    unknown: list[str]
    """Classes that it does not know."""
    forgotten: list[str]
    """Classes that only it knows."""
    recalls: dict[str, Recall]
    """Of the compared images, by class."""
    answers: list[str | None]
    """(R,): what the champion says of each compared image."""

    @property
    def accuracy(self) -> float:
        """Of the new model, on the compared images."""
        return (self.duel.both + self.duel.only_first) / self.duel.rows

    @property
    def champions_accuracy(self) -> float:
        """Of the champion, on the compared images."""
        return (self.duel.both + self.duel.only_second) / self.duel.rows

    @property
    def is_worse(self) -> bool:
        """Whether the champion is right more often."""
        return self.duel.only_second > self.duel.only_first

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, for metrics.json."""
        return {
            "model": self.champion,
            "images": self.duel.rows,
            "left_out": self.left_out,
            "accuracy": self.champions_accuracy,
            "challengers_accuracy": self.accuracy,
            "only_challenger_right": self.duel.only_first,
            "only_champion_right": self.duel.only_second,
            "p_value": self.duel.p_value,
            "unknown_to_champion": self.unknown,
            "only_champion_knows": self.forgotten,
            "classes": [{"class": name} | asdict(one) for name, one in self.recalls.items()],
            "lost_recall": {
                name: {"champion": one.champion, "challenger": one.challenger}
                for name, one in self.recalls.items()
                if one.champion - one.challenger > MUCH
            },
        }


def same_embeddings(one: TrainableCheckpoint, other: TrainableCheckpoint) -> bool:
    """Whether two checkpoints give an image the same embedding."""
    return (
        one.backbone_sha256 == other.backbone_sha256
        and one.activation == other.activation
        and one.preprocessing.to_dict() == other.preprocessing.to_dict()
    )


def _recalls(
    classes: tuple[str, ...],
    targets: Integers,
    ours: npt.NDArray[np.bool_],
    theirs: npt.NDArray[np.bool_],
) -> dict[str, Recall]:
    found = {}
    for number in np.unique(targets).tolist():
        rows = targets == number
        before, now = float(theirs[rows].mean()), float(ours[rows].mean())
        found[classes[number]] = Recall(int(rows.sum()), before, now)
    return found
