"""A card on the CPU: Pillow in the place of nvJPEG, everything else as on the card."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass
class PillowCard:
    """A ``JpegDecoder``; a card's decoder has no idea of EXIF either."""

    refuses: tuple[bytes, ...] = ()
    """Files that hold one of these are not decoded."""
    calls: list[int] = field(default_factory=list)
    """How many files each call had."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def decode(self, files: Sequence[bytes]) -> list[Tensor | None]:
        self.calls.append(len(files))
        return [self._one(file) for file in files]

    def _one(self, file: bytes) -> Tensor | None:
        if any(mark in file for mark in self.refuses):
            return None
        with Image.open(io.BytesIO(file)) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
