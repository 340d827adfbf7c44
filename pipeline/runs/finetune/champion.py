"""The model to beat, on the same held-out images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.contract.errors import RunError, UsageError
from pipeline.contract.spec import ModelSpec
from pipeline.model.families.registry import load_checkpoint
from pipeline.model.network import TrainableCheckpoint
from pipeline.model.training.heads import Duel, Truths
from pipeline.model.training.published import newest_model
from pipeline.monitoring.model.contest import Outcome
from pipeline.runs.finetune.fitted.fitted import Fitted
from pipeline.runs.finetune.labelled.kinds import Kind
from pipeline.runs.finetune.labelled.samples import Vectors
from pipeline.runs.finetune.labelled.split import Division

Said = tuple[str, ...]
"""The class that a model names for an image, alone, or all that it names."""
MUCH = 0.05
"""A recall that is lower by more than this is named."""


@dataclass(frozen=True)
class Champion:
    """A model that answers for the same images."""

    source: str
    checkpoint: TrainableCheckpoint
    has_embeddings: bool
    """Whether its backbone is the one that the embeddings come from."""
    kind: Kind
    """Of its answers."""

    @classmethod
    def load(
        cls, source: str, parent: TrainableCheckpoint, kind: Kind, *, from_images: bool
    ) -> Champion:
        """Read it.

        Args:
            from_images: whether there are images that it can look at.

        Raises:
            UsageError: it cannot be read, or computes other embeddings than ``parent``, and there
                is nothing else; or it says one class of an image, and labels are sets.
        """
        found = newest_model(source)
        checkpoint = load_checkpoint(ModelSpec(source=found))
        if not isinstance(checkpoint, TrainableCheckpoint) or not checkpoint.classes:
            raise UsageError(f"<finetune.champion> {found} has no classifier to compare with")
        if not kind.needs_class and checkpoint.default_scores != "sigmoid":
            raise UsageError(
                f"<finetune.champion> {found} says one class of an image, and "
                "<finetune.multi_label> learns sets of them; name a model of several labels"
            )
        has_embeddings = same_embeddings(checkpoint, parent)
        if not has_embeddings and not from_images:
            raise UsageError(
                f"<finetune.champion> {found} has another backbone or preprocessing than "
                "<model.source>, and its answers cannot be had from the stored embeddings; name "
                "the images instead of outputs"
            )
        return cls(found, checkpoint, has_embeddings, kind)

    def predict(self, vectors: Vectors) -> list[Said]:
        """The class that it names for each embedding, or the classes."""
        weight, bias = self.checkpoint.head
        names = np.array(self.checkpoint.classes, object)
        said = self.kind.said(vectors @ weight.T + bias)
        return [tuple(sorted(names[row].tolist())) for row in said]

    def compared(self, division: Division) -> npt.NDArray[np.bool_]:
        """(R,): the held-out images whose label is a class that both know; of sets of labels all,
        in which only such classes are looked at.

        Raises:
            UsageError: there are none.
        """
        known = np.isin(division.classes, self.checkpoint.classes)
        comparable = self.kind.comparable(division.targets, known)
        found: npt.NDArray[np.bool_] = division.held_out & comparable
        if not found.any():
            raise UsageError(
                f"<finetune.champion> {self.source} knows none of the classes that are held out"
            )
        return found

    def answers(self, fitted: Fitted) -> dict[str, Said]:
        """What it says of the ``compared`` images by their embeddings, by uri."""
        rows = np.flatnonzero(self.compared(fitted.division)).tolist()
        told = self.predict(fitted.samples.vectors[rows])
        return dict(zip((fitted.samples.uris[row] for row in rows), told, strict=True))

    def meet(self, fitted: Fitted, answers: Mapping[str, Said]) -> Contest:
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
        met = [one if is_met else None for one, is_met in zip(told, compared, strict=True)]
        both = np.flatnonzero(np.isin(division.classes, self.checkpoint.classes))
        names = [division.classes[number] for number in both.tolist()]
        truth = self.kind.present(division.targets[compared], len(division.classes))[:, both]
        ours = fitted.said[compared][:, both]
        theirs = _present([one for one in met if one is not None], names)
        right, its = (ours == truth).all(axis=1), (theirs == truth).all(axis=1)
        same = (ours == theirs).all(axis=1)
        if self.kind.needs_class:  # where neither names a class of both, each has one of its own
            same &= ours.any(axis=1)
        return Contest(
            champion=self.source,
            duel=Duel.of(right, its),
            left_out=int((division.held_out & ~compared).sum()),
            unknown=sorted(set(division.classes) - set(self.checkpoint.classes)),
            forgotten=sorted(set(self.checkpoint.classes) - set(division.classes)),
            recalls=_recalls(names, truth, ours, theirs),
            answers=[None if one is None else self.kind.text(one) for one in met],
            outcomes=_outcomes(compared, same, right, its),
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
    outcomes: list[str | None]
    """(R,): an ``Outcome`` for each compared image."""

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


def _present(told: Sequence[Said], names: Sequence[str]) -> Truths:
    """(R, N): which of the classes each answer names."""
    place = {name: number for number, name in enumerate(names)}
    found = np.zeros((len(told), len(names)), bool)
    for row, one in enumerate(told):
        found[row, [place[name] for name in one if name in place]] = True
    return found


def _outcomes(compared: Truths, same: Truths, right: Truths, its: Truths) -> list[str | None]:
    """(R,) of what is known of the compared images alone."""
    found = np.full(len(compared), None, object)
    kinds = [Outcome.SAME, Outcome.CHALLENGER, Outcome.CHAMPION]
    found[compared] = np.select([same, right, its], kinds, Outcome.NEITHER)
    listed: list[str | None] = found.tolist()
    return listed


def _recalls(
    names: Sequence[str], truth: Truths, ours: Truths, theirs: Truths
) -> dict[str, Recall]:
    found = {}
    for number in np.flatnonzero(truth.any(axis=0)).tolist():
        rows = truth[:, number]
        before, now = float(theirs[rows, number].mean()), float(ours[rows, number].mean())
        found[names[number]] = Recall(int(rows.sum()), before, now)
    return found
