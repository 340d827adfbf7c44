"""How often the model is right, by what people said of a random sample; and what it confuses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
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


def accuracy(corrections: Iterable[Correction], run_id: str | None = None) -> Accuracy | None:
    """What people said of random images says of all; None if it says nothing.

    An image counts if it was drawn at random; what counts about it is the newest correction, from
    whatever queue.

    Args:
        run_id: the run whose labels are judged; None for those of all runs.
    """
    known = list(corrections)
    decided = newest(known)
    drawn = newest(one for one in known if _is_drawn(one) and run_id in (None, one.run_id))
    judged = [uri for uri in drawn if decided[uri].verdict != "bad_picture"]
    right = sum(decided[uri].label == drawn[uri].proposed for uri in judged)
    return Accuracy(right, len(judged)) if judged else None


def accuracy_by_run(corrections: Iterable[Correction]) -> dict[str, Accuracy]:
    """The same for each run whose images were drawn, the newest first."""
    known = list(corrections)
    runs = sorted({one.run_id for one in known if _is_drawn(one)}, reverse=True)
    found = ((run_id, accuracy(known, run_id)) for run_id in runs)
    return {run_id: one for run_id, one in found if one is not None}


def _is_drawn(one: Correction) -> bool:
    """Whether its image was drawn at random, and the model has said what it is."""
    return one.queue == "random" and bool(one.proposed)


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
