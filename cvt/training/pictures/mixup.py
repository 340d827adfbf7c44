"""Blended images, which are of two classes at once (mixup, arXiv 1710.09412)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from torch import Tensor

_ITS_OWN = 1
"""Tells its draws from others of the same step."""


@dataclass(frozen=True)
class Blend:
    """Each image of a batch, blended with the one before it; a batch is in random order."""

    share: float
    """Of the image itself; 1 leaves all as they are."""

    @classmethod
    def draw(cls, alpha: float, seed: int, step: int, rank: int) -> Self:
        """Its share is of the distribution Beta(alpha, alpha), and depends on nothing but this;
        with an ``alpha`` of 0 nothing is blended."""
        if not alpha:
            return cls(1.0)
        return cls(np.random.default_rng((seed, step, rank, _ITS_OWN)).beta(alpha, alpha))

    def images(self, images: Tensor) -> Tensor:
        """Of normalised ones (B, 3, S, S)."""
        return images if self.share == 1 else images.roll(1, 0).lerp(images, self.share)

    def loss(self, of: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
        """Of a batch with these targets, one for each image: as much of either class as the blended
        image has of it.

        Args:
            of: the loss of the batch if these were its targets.
        """
        if self.share == 1:
            return of(targets)
        return self.share * of(targets) + (1 - self.share) * of(targets.roll(1, 0))
