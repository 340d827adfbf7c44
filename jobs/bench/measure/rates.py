"""Speeds, computed from how many images were done when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EDGE = 0.1
"""Share of the images left out of a steady rate at either end, while stages fill and run dry."""

Curve = Sequence[tuple[float, float]]
"""(seconds on any clock, images done by then), in order."""


def steady_rate(curve: Curve) -> float | None:
    """Images/s between the first and the last tenth of the images: the slope of a fitted line.

    None when fewer than three moments of the curve lie there.
    """
    if not curve:
        return None
    seconds, images = np.asarray(curve, float).T
    inner = (images >= EDGE * images[-1]) & (images <= (1 - EDGE) * images[-1])
    if inner.sum() < 3:
        return None
    times = seconds[inner] - seconds[inner].mean()
    if not times.any():
        return None
    return float(times @ images[inner] / (times @ times))


def curve_of(done: Sequence[tuple[float, int]]) -> list[tuple[float, float]]:
    """The curve of batches, each (when it was done, its images)."""
    ordered = sorted(done)
    totals = np.cumsum([images for _, images in ordered])
    return [(when, float(total)) for (when, _), total in zip(ordered, totals, strict=True)]


def images_at(curve: Curve, when: float) -> float:
    """Images done at a moment."""
    seconds, images = np.asarray(curve, float).T
    return float(np.interp(when, seconds, images, left=0.0))


def time_of(curve: Curve, images: float) -> float:
    """The first moment at which this many images were done."""
    return next((when for when, done in curve if done >= images), curve[-1][0])
