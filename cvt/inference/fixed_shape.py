"""Runtimes that prepare themselves for one shape, and what smaller batches cost them: padding."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from cvt.outputs import CvtOutput

_NO_SHAPE = (0, 0, 0, 0)


class FixedShape(nn.Module, ABC):
    """A network behind a runtime that takes batches of one shape alone.

    The first call prepares for its shape, which takes seconds. A smaller batch is padded to it, and
    its results are cut; a larger one, or another image size, prepares again. What is prepared stays
    behind when it is copied or pickled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shape: tuple[int, ...] = _NO_SHAPE

    @abstractmethod
    def prepare(self, shape: tuple[int, ...]) -> None:
        """Get ready for batches of this shape (B, 3, H, W)."""

    @abstractmethod
    def run(self, pixel_values: Tensor) -> CvtOutput:
        """Classify no more images than prepared for; whatever else it returns is cut."""

    def forward(self, pixel_values: Tensor) -> CvtOutput:
        """Classify normalised images (B, 3, H, W) of any floating dtype."""
        batch, *size = pixel_values.shape
        if batch > self.shape[0] or size != list(self.shape[1:]):
            shape = (batch, *size)
            self.prepare(shape)
            self.shape = shape
        out = self.run(pixel_values)
        return CvtOutput(out.logits[:batch], out.embedding[:batch])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "shape": _NO_SHAPE}


def pad_batch(images: Tensor, batch: int) -> Tensor:
    """Images (B, ...) and as many zeros behind them as make ``batch`` of them."""
    missing = batch - len(images)
    if not missing:
        return images
    return torch.cat((images, images.new_zeros(missing, *images.shape[1:])))
