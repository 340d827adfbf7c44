"""The average of a network's weights over the steps of its training: it wavers less than they."""

from __future__ import annotations

from copy import deepcopy

import torch

from cvt.model import CvtForImageClassification


def decay_after(steps: int, most: float) -> float:
    """What stays of an average of so many steps when the next one is taken in: ``most`` in the end,
    and less before, so that a short training does not end halfway to where it began. The first step
    replaces what was before it; then about a tenth of all steps count."""
    return min(most, steps / (steps + 9))


class Average:
    """A network whose weights are the exponential moving average of another's.

    BatchNorm's statistics are averaged like weights: those of the other network are of its last
    weights and batches. Whole numbers, which count batches, are taken over as they are.
    """

    def __init__(self, model: CvtForImageClassification, decay: float) -> None:
        """Begin as ``model`` is.

        Args:
            decay: see ``decay_after``.
        """
        self.model = deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def take_in(self, model: CvtForImageClassification, steps: int) -> None:
        """The weights that ``model`` has now; those of so many steps were taken in before."""
        share = 1 - decay_after(steps, self.decay)
        own, latest = self.model.state_dict().values(), model.state_dict().values()
        for average, value in zip(own, latest, strict=True):
            if average.is_floating_point():
                average.lerp_(value, share)
            else:
                average.copy_(value)
