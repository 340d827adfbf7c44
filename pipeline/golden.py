"""The self-check of an actor: a small batch whose numbers are known, before the first image.

The driver computes the batch with the reference network in float32 on its CPU; every actor runs it
through what it has loaded, on its own device, in the run's dtype. A wrong weight file, driver or
dtype shows here, and not after a night.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cvt import CvtForImageClassification, CvtImageProcessor

IMAGES = 2
MAX_DEVIATION = {"float32": 1e-3, "float16": 3e-2, "bfloat16": 1.5e-1}
"""Of the embedding, ``|actor - reference| / |reference|`` (Euclidean). Some ten times what an
intact network shows (2e-6, 2e-3 and 2e-2 with seeded weights); another network is near 1."""


@dataclass(frozen=True)
class GoldenBatch:
    """Pixels and what the reference says of them."""

    pixels: npt.NDArray[np.uint8]
    """(B, S, S, 3)."""
    embedding: npt.NDArray[np.float32]
    """(B, C): the head's input."""

    @classmethod
    def compute(
        cls, model: CvtForImageClassification, processor: CvtImageProcessor, size: int | None = None
    ) -> GoldenBatch:
        """Run the reference network, float32 on the CPU, on smooth seeded images."""
        side = size or processor.size
        rng = np.random.default_rng(0)
        coarse = torch.from_numpy(rng.uniform(0, 255, (IMAGES, 3, 8, 8)))
        smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
        pixels = smooth.clamp(0, 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        with torch.inference_mode():
            embedding = model(processor.normalize(pixels)).embedding
        return cls(pixels, embedding.numpy())

    def deviation(self, embedding: npt.NDArray[Any]) -> float:
        """Relative distance of the worst image; infinite when there are NaNs."""
        distance = np.linalg.norm(embedding - self.embedding, axis=1)
        relative = float((distance / np.linalg.norm(self.embedding, axis=1)).max())
        return relative if np.isfinite(relative) else np.inf

    def check(self, embedding: npt.NDArray[Any], dtype: str, where: str) -> None:
        """Compare an actor's embedding of the batch.

        Raises:
            RuntimeError: in one line, with both the deviation and the limit.
        """
        deviation = self.deviation(embedding)
        if deviation > MAX_DEVIATION[dtype]:
            raise RuntimeError(
                f"self-check failed on {where}: embeddings in {dtype} deviate by {deviation:.2g} "
                f"from the float32 reference (limit {MAX_DEVIATION[dtype]:g}); the weights, the "
                "device or its driver do not compute what the checkpoint says"
            )
