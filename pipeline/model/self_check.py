"""The self-check of an actor: a small batch whose numbers are known, before the first image.

The driver computes the batch with the reference network in float32 on its CPU; every actor runs it
through what it has loaded, on its own device, in the run's dtype. A wrong weight file, driver or
dtype shows here, rather than after a night.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import Dtype, Pooling
from pipeline.model.network import Checkpoint, Floats, Pixels

IMAGES = 2
MAX_DEVIATION: dict[Dtype, float] = {
    "float32": 1e-3,
    "tf32": 3e-2,
    "float16": 3e-2,
    "bfloat16": 1.5e-1,
}
"""Of embeddings, ``|actor - reference| / |reference|`` (Euclidean). At least seven times what an
intact network shows (2e-6, 2e-3, 2e-3 and 2e-2 with seeded weights; tf32 rounds to as many bits as
float16); another network is near 1. Of logits, relative to the largest that the head can make of an
input of this length, since they may themselves be nearly 0."""


@dataclass(frozen=True)
class GoldenBatch:
    """Pixels and the reference's results for them."""

    pixels: Pixels
    """(B, S, S, 3)."""
    logits: Floats
    """(B, N)."""
    logit_scale: Floats
    """(B,): the norm of the head's weights times that of its input."""
    embedding: Floats
    """(B, D): in the run's pooling."""

    @classmethod
    def compute(cls, checkpoint: Checkpoint, pooling: Pooling) -> GoldenBatch:
        """Run the reference network, float32 on the CPU, on smooth seeded images.

        Raises:
            UsageError: it gives NaN or infinity for them.
        """
        size = checkpoint.preprocessing.size
        rng = np.random.default_rng(0)
        coarse = torch.from_numpy(rng.uniform(0, 255, (IMAGES, 3, 8, 8)))
        smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
        pixels = smooth.clamp(0, 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        found = checkpoint.reference(pixels, pooling)
        if not all(np.isfinite(numbers).all() for numbers in found):
            raise UsageError(
                "the checkpoint gives NaN or infinity for ordinary images: some of its weights are "
                "far too large"
            )
        return cls(pixels, found.logits, found.logit_scale, found.embedding)

    def deviations(self, logits: Floats, embedding: Floats) -> dict[str, float]:
        """For each output, the relative distance of the worst image; infinite if there are NaNs."""
        length = np.linalg.norm(self.embedding, axis=1)
        return {
            "embeddings": _worst(embedding - self.embedding, length),
            "logits": _worst(logits - self.logits, self.logit_scale),
        }

    def check(self, logits: Floats, embedding: Floats, dtype: Dtype, where: str) -> None:
        """Compare an actor's results for the batch.

        Raises:
            RuntimeError: they deviate too much; one line has the deviation and the limit.
        """
        for name, deviation in self.deviations(logits, embedding).items():
            if deviation > MAX_DEVIATION[dtype]:
                raise RuntimeError(
                    f"self-check failed on {where}: {name} in {dtype} deviate by {deviation:.2g} "
                    f"from the float32 reference (limit {MAX_DEVIATION[dtype]:g}); the weights, "
                    "the device or its driver do not compute what the checkpoint specifies"
                )


def _worst(difference: Floats, scale: Floats) -> float:
    relative = float((np.linalg.norm(difference, axis=1) / scale).max())
    return relative if np.isfinite(relative) else np.inf


def spectral_norm(weight: Tensor) -> Tensor:
    """The most by which a head's weights (N, C) can lengthen its input; a scalar."""
    scale = weight.abs().max().clamp(min=torch.finfo(weight.dtype).tiny)
    unit = weight / scale  # whose squares do not overflow
    gram = unit @ unit.T if unit.shape[0] < unit.shape[1] else unit.T @ unit
    largest: Tensor = torch.linalg.eigvalsh(gram)[-1]  # far cheaper than singular values
    return largest.sqrt() * scale
