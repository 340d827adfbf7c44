"""How good answers are, of one class for an image or of sets of classes."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor


def held_against(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """The sum of the losses of images, and how many of them are right.

    Args:
        logits: (B, N).
        targets: (B,), the class of each; or (B, N), 1 where a class is there, else 0: then an image
            is right if all its classes are, and its loss is the mean over them.
    """
    if targets.ndim > 1:
        each = F.binary_cross_entropy_with_logits(
            logits, targets.to(logits.dtype), reduction="none"
        )
        is_right = ((logits >= 0) == (targets > 0)).all(dim=1)
        return float(each.mean(dim=1).sum()), float(is_right.sum())
    loss = F.cross_entropy(logits, targets, reduction="sum")
    return float(loss), float((logits.argmax(dim=1) == targets).sum())
