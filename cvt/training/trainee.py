"""A network that learns from image files: they are decoded, cut, normalised and moved for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cvt.preprocessing.processor import CvtImageProcessor
from cvt.training.learner import Learner
from cvt.training.pictures.augment import Augment, pixels_of, view
from cvt.training.recipe import Portion

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Trainee:
    """A ``Learner`` on its device, with the preprocessing of its images."""

    learner: Learner
    processor: CvtImageProcessor
    device: torch.device

    def share(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        """From now on call what ``wrap`` makes of the module, such as one that averages gradients
        over workers."""
        self.learner.network = wrap(self.learner.model)

    def look(self, data: bytes, number: int, epoch: int | None) -> Pixels:
        """What an epoch shows of image ``number``, uint8 (S, S, 3); without an epoch, what
        inference does. Safe to call from several threads.

        Raises:
            ImageDecodeError: it cannot be decoded.
        """
        recipe = self.learner.recipe
        augment: Augment = "none" if epoch is None else recipe.augment
        return pixels_of(
            data, view(self.processor, augment, recipe.seed, epoch or 0, number), self.processor
        )

    def step(
        self, pixels: Pixels, targets: npt.NDArray[np.int64], portion: Portion | None = None
    ) -> float:
        """As ``Learner.step``, of uint8 images (B, S, S, 3)."""
        classes = torch.from_numpy(targets).to(self.device)
        return self.learner.step(self._images(pixels), classes, portion)

    @property
    def statistics(self) -> list[Tensor]:
        """What each worker finds out by itself, to be overwritten in place: BatchNorm's."""
        return list(self.learner.learned.buffers())

    @torch.inference_mode()
    def answer(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Logits (B, N) of images, learning nothing."""
        logits = self.learner.learned.eval()(self._images(pixels)).logits
        found: npt.NDArray[np.float32] = logits.cpu().numpy()
        return found

    def _images(self, pixels: Pixels) -> Tensor:
        return self.processor.normalize(torch.from_numpy(pixels).to(self.device))

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return self.learner.state()

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state``."""
        self.learner.take_up(dict(state))

    @property
    def weights(self) -> dict[str, Tensor]:
        """By name, on the CPU."""
        return {name: one.cpu() for name, one in self.learner.learned.state_dict().items()}

    def take_weights(self, values: Mapping[str, Tensor]) -> None:
        """Answer with these from now on."""
        self.learner.learned.load_state_dict(dict(values))
