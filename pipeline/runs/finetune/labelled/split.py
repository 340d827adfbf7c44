"""Which images are held out, and which are judged together: by hash, so that nothing moves.

The side of an image depends on its content (its group, if there are groups; its URI where the
content is not known) and on nothing else: new images never move earlier ones, and equal images
are on the same side, wherever they lie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.contract.errors import UsageError
from pipeline.model.training.heads import Integers
from pipeline.runs.finetune.labelled.kinds import ONE_CLASS, Kind, examples

FOLDS = 5
"""Parts for judging each image by a classifier that has not seen it."""


def kinships(contents: Sequence[str], groups: Sequence[str | None] | None) -> list[str]:
    """What must stay together, as a key for each image: its group, or else its content.

    Groups that share a content are as one, named by the first of them in order of name.
    """
    if groups is None:
        return list(contents)
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while (above := parent.setdefault(key, key)) != key:
            parent[key] = parent[above]
            key = above
        return key

    # A group sorts before any content, so that it names what belongs together.
    pairs = [
        (f"0 {group}" if group is not None else f"1 {content}", f"1 {content}")
        for content, group in zip(contents, groups, strict=True)
    ]
    for pair in pairs:
        first, second = sorted(map(root, pair))
        parent[second] = first
    return [root(key) for key, _ in pairs]


@dataclass(frozen=True)
class Division:
    """Labelled images as numbers: their classes, and which of them are held out."""

    classes: tuple[str, ...]
    """In order of name."""
    targets: Integers
    """(R,): the position of each image's class; of sets of classes (R, N), 1 where one is there."""
    held_out: npt.NDArray[np.bool_]
    """(R,)."""
    folds: Integers
    """(R,)."""
    kind: Kind = ONE_CLASS

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        keys: Sequence[str],
        share: float,
        given: Sequence[bool] = (),
        kind: Kind = ONE_CLASS,
    ) -> Division:
        """Divide images with these labels and ``kinships``.

        Args:
            share: of those that are held out.
            given: instead of the share, whether each image is held out, and with it its kin.

        Raises:
            UsageError: a class has too few images, or all of them are held out, or all that are
                trained on have it.
        """
        classes = kind.classes(labels)
        targets = kind.targets(labels, classes)
        sides = with_kin(keys, given) if given else held_out(keys, share)
        division = cls(classes, targets, sides, folds(keys), kind)
        if not sides.any():
            remedy = "name some in <finetune.val_labels>" if given else "raise <finetune.val_share>"
            raise UsageError(
                f"none of the {len(targets)} labelled images is held out; label more images, or "
                f"{remedy}"
            )
        trained = division.counts(held_out=False)
        lacking = [name for name, number in trained.items() if not number]
        check_taught(lacking, given=bool(given))
        everywhere = [name for name, number in trained.items() if number == (~sides).sum()]
        if everywhere:
            raise UsageError(
                f"all {(~sides).sum()} images that are trained on have the same {len(everywhere)} "
                f"labels, {examples(everywhere)}; label images without them, or leave them out"
            )
        return division

    def counts(self, *, held_out: bool) -> dict[str, int]:
        """Images by class, of those that are held out or of the others."""
        chosen = self.targets[self.held_out == held_out]
        numbers = self.kind.counts(chosen, len(self.classes)).tolist()
        return dict(zip(self.classes, numbers, strict=True))


def check_taught(lacking: Sequence[str], *, given: bool) -> None:
    """Refuse classes of which no image is trained on.

    Args:
        given: whether a file names the images that are held out.

    Raises:
        UsageError: there are such classes.
    """
    if lacking:
        remedy = "take them out of <finetune.val_labels>" if given else "lower <finetune.val_share>"
        raise UsageError(
            f"all images of {len(lacking)} classes are held out, {examples(lacking)}; label more "
            f"images of them, or {remedy}"
        )


def with_kin(keys: Sequence[str], given: Sequence[bool]) -> npt.NDArray[np.bool_]:
    """(R,): whether each image, or one with the same key, is given."""
    chosen = {key for key, is_given in zip(keys, given, strict=True) if is_given}
    return np.array([key in chosen for key in keys], bool)


def held_out(keys: Sequence[str], share: float) -> npt.NDArray[np.bool_]:
    """(R,): whether each image is held out; about ``share`` of the keys are."""
    return np.array([_fraction(key, b"side") < share for key in keys], bool)


def folds(keys: Sequence[str]) -> Integers:
    """(R,): the fold of each image; as many of the keys in each as possible."""
    order = sorted(set(keys), key=lambda key: _fraction(key, b"fold"))
    number = {key: place % FOLDS for place, key in enumerate(order)}
    return np.array([number[key] for key in keys], np.int64)


def _fraction(key: str, purpose: bytes) -> float:
    """A number from 0 to 1 that depends on the key alone."""
    data = key.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(data, digest_size=8, person=purpose).digest()
    return int.from_bytes(digest, "big") / 2**64
