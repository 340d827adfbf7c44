"""The last step of preprocessing as a layer before a network, for pixels that are on a device."""

import torch
from torch import Tensor, nn

from cvt.preprocessing.processor import CvtImageProcessor


class Normalize(nn.Module):
    """uint8 (B, S, S, 3) to (B, 3, S, S), with the arithmetic of ``CvtImageProcessor.normalize``.

    Its constants are on the device, so that a call copies nothing there and can be captured in a
    CUDA graph. Compiled together with a network, it becomes part of the first kernel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, processor: CvtImageProcessor, dtype: torch.dtype = torch.float32) -> None:
        """``dtype`` is that of the result; the arithmetic is float32 even if the module is cast."""
        super().__init__()
        self.processor, self.dtype = processor, dtype
        self.register_buffer("mean", torch.tensor(processor.image_mean), persistent=False)
        self.register_buffer("std", torch.tensor(processor.image_std), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise; the result is a view: in memory the channels stay last."""
        values = pixels.float()
        if self.processor.do_rescale:
            values = self.processor.rescale(values)
        if self.processor.do_normalize:
            values = (values - self.mean) / self.std
        return values.to(self.dtype).movedim(-1, 1)
