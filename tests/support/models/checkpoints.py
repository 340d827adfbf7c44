"""A checkpoint of a tiny network."""

from pathlib import Path

import torch

from cvt import CvtConfig, CvtForImageClassification, CvtImageProcessor


def write_checkpoint(directory: Path, *, seed: int = 0) -> Path:
    """A seeded CvT of some thousand parameters with 7 classes, for images of 32 x 32."""
    torch.manual_seed(seed)
    config = CvtConfig(
        embed_dim=(16, 24, 32),
        num_heads=(1, 2, 2),
        depth=(1, 1, 2),
        labels=tuple(f"class {number}" for number in range(7)),
    )
    CvtForImageClassification(config).eval().save_pretrained(directory)
    CvtImageProcessor(size=32).save_pretrained(directory)
    return directory
