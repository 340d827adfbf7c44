"""How a network is taught, and in which order it sees the images; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cvt.training.pictures.augment import Augment

LIVE_FROM: Final = 32
"""Images that a worker has at a time, from which on BatchNorm learns their statistics."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is taught."""

    epochs: int = 10
    """Passes over the images."""
    batch_size: int = 64
    """Images per step, over all workers."""
    learning_rate: float = 3e-4
    """The peak, of the head."""
    layer_decay: float = 1.0
    """What the rate is multiplied by for every layer below the head."""
    weight_decay: float = 0.05
    """On matrices and kernels."""
    warmup_share: float = 0.1
    """Of all steps, those in which the rate rises."""
    smoothing: float = 0.1
    """Probability that the targets spread over all classes; not of several labels."""
    class_weights: tuple[float, ...] = ()
    """What the loss of an image of each class counts, 1 on average; empty if all count alike."""
    absent_weights: tuple[float, ...] = ()
    """With several labels, what the loss for a class counts where it is absent; ``class_weights``
    is then what it counts where the class is there."""
    clip: float = 1.0
    """The longest gradient, as a 2-norm over all parameters."""
    ema: float = 0.0
    """How much of the average of the weights stays at each step, in the end; 0 for no average."""
    mixup: float = 0.0
    """Images are blended in shares of Beta(mixup, mixup); 0 for images as they are."""
    augment: Augment = "light"
    frozen_stages: int = 0
    """The first stages, which stay as they are."""
    frozen_statistics: bool = True
    """Whether BatchNorm keeps the statistics that it has; its scales learn all the same."""
    seed: int = 0
    """Of order, views and dropping."""


@dataclass(frozen=True)
class Portion:
    """What one of the ``workers`` takes of the ``images`` of a step. They average what they find,
    and so find what one would find of all images."""

    images: int
    rank: int = 0
    workers: int = 1

    @property
    def places(self) -> npt.NDArray[np.intp]:
        """(b,): where its images stand among all. If there are fewer images than workers, and none
        is left for this one, the first again, with the weight 0."""
        return self._own if len(self._own) else np.zeros(1, np.intp)

    @property
    def weight(self) -> float:
        """How much more than their mean its images count in the average over workers."""
        return self.workers * len(self._own) / self.images

    @property
    def _own(self) -> npt.NDArray[np.intp]:
        return np.arange(self.rank, self.images, self.workers)


def batches(count: int, recipe: Recipe, epoch: int) -> list[npt.NDArray[Any]]:
    """Which images each step of an epoch shows, (b,) each, in an order of its own; the last one
    holds what is left."""
    order = np.random.default_rng((recipe.seed, epoch)).permutation(count)
    return [order[at : at + recipe.batch_size] for at in range(0, count, recipe.batch_size)]
