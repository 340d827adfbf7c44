"""What runtimes that prepare for one shape have in common: smaller batches are padded."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from cvt.interface.outputs import CvtOutput

_NO_SHAPE = (0, 0, 0, 0)


class FixedShape(nn.Module, ABC):
    """A network in a runtime that takes batches of a single shape.

    The first call prepares for its shape, which takes seconds. A smaller batch is padded to it and
    its results are cut; a larger one, or another image size, prepares again. Copying and pickling
    leave out what is prepared.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shape: tuple[int, ...] = _NO_SHAPE

    @abstractmethod
    def prepare(self, shape: tuple[int, ...]) -> None:
        """Get ready for batches of this shape (B, 3, H, W)."""

    @abstractmethod
    def run(self, pixel_values: Tensor) -> CvtOutput:
        """Classify at most as many images as prepared for; results beyond their number are cut."""

    def forward(self, pixel_values: Tensor) -> CvtOutput:
        """Classify normalised images (B, 3, H, W) of any floating dtype."""
        batch, *size = pixel_values.shape
        if batch > self.shape[0] or size != list(self.shape[1:]):
            shape = (max(batch, 1), *size)
            self.prepare(shape)
            self.shape = shape
        out = self.run(pixel_values)
        return CvtOutput(logits=out.logits[:batch], embedding=out.embedding[:batch])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "shape": _NO_SHAPE}


def pad_batch(images: Tensor, batch: int) -> Tensor:
    """Images (B, ...) followed by zeros, ``batch`` in all."""
    missing = batch - len(images)
    if not missing:
        return images
    return torch.cat((images, images.new_zeros(missing, *images.shape[1:])))
