"""How often the model is right, by what people said of a random sample; and what it confuses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from pipeline.contract.corrections import Correction, newest

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def interval(part: int, whole: int) -> tuple[float, float]:
    """Which shares of all images a random sample is compatible with, at ``CONFIDENCE``, if ``part``
    of its ``whole`` have what is counted.

    Wilson, "Probable inference, the law of succession, and statistical inference", J. Am. Stat.
    Assoc. 22 (1927); it holds for shares near 0 and 1, too.
    """
    share = part / whole
    center = (share + _Z**2 / (2 * whole)) / (1 + _Z**2 / whole)
    spread = math.sqrt(share * (1 - share) / whole + _Z**2 / (4 * whole**2))
    half = _Z / (1 + _Z**2 / whole) * spread
    return max(center - half, 0.0), min(center + half, 1.0)


@dataclass(frozen=True)
class Accuracy:
    """Of a random sample of images, those of which the model was right."""

    right: int
    images: int
    """Those with a verdict about the label; pictures that are not usable do not count."""

    @property
    def share(self) -> float:
        return self.right / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Which shares of all images the sample is compatible with, at ``CONFIDENCE``."""
        return interval(self.right, self.images)

    def to_dict(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "images": self.images, "right": self.right,
            "accuracy": self.share, "low": low, "high": high,
        }  # fmt: skip

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.share:.1%} ± {(high - low) / 2:.1%} (n = {self.images:,}; from {low:.1%} to "
            f"{high:.1%} with {CONFIDENCE:.0%} confidence)"
        )


def accuracy(corrections: Iterable[Correction]) -> Accuracy | None:
    """What people said of random images says of all; None if it says nothing.

    An image counts if it was drawn at random; what counts about it is the newest correction, from
    whatever queue.
    """
    known = list(corrections)
    return _judged(filter(_is_drawn, known), newest(known))


def accuracy_by_run(corrections: Iterable[Correction]) -> dict[str, Accuracy]:
    """The same for each run whose images were drawn, the newest first."""
    known = list(corrections)
    decided = newest(known)
    drawn: dict[str, list[Correction]] = {}
    for one in filter(_is_drawn, known):
        drawn.setdefault(one.run_id, []).append(one)
    found = ((run_id, _judged(drawn[run_id], decided)) for run_id in sorted(drawn, reverse=True))
    return {run_id: one for run_id, one in found if one is not None}


def _is_drawn(one: Correction) -> bool:
    """Whether its image was drawn at random, and the model has said what it is."""
    return one.queue == "random" and bool(one.proposed)


def _judged(drawn: Iterable[Correction], decided: Mapping[str, Correction]) -> Accuracy | None:
    """How many proposals for drawn images agree with what was decided about these."""
    proposals = newest(drawn)
    judged = [uri for uri in proposals if decided[uri].verdict != "bad_picture"]
    right = sum(decided[uri].label == proposals[uri].proposed for uri in judged)
    return Accuracy(right, len(judged)) if judged else None


@dataclass(frozen=True)
class Confusion:
    """Images of a class that the model took for another."""

    proposed: str
    label: str
    """What people said; empty if they said that it is none of the classes."""
    images: int


def confusions(corrections: Iterable[Correction]) -> list[Confusion]:
    """Where people disagreed with the model, the most frequent pair of classes first."""
    pairs = Counter(
        (one.proposed, one.label)
        for one in newest(corrections).values()
        if one.proposed and one.verdict != "bad_picture" and one.label != one.proposed
    )
    ordered = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
    return [Confusion(*names, images) for names, images in ordered]
