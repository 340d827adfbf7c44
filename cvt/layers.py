"""Small parts of the network that are not particular to CvT."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Grid = tuple[int, int]


def to_map(tokens: Tensor, grid: Grid) -> Tensor:
    """(B, H W, C) -> (B, C, H, W), a view in channels-last memory."""
    return tokens.reshape(tokens.shape[0], *grid, -1).permute(0, 3, 1, 2)


def to_tokens(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C), a view."""
    return maps.flatten(2).transpose(1, 2)


def check_images(pixel_values: Tensor, channels: int) -> Tensor:
    """The argument, if it is (B, channels, H, W) with H and W of 3 or more; else ValueError."""
    shape = tuple(pixel_values.shape)
    if len(shape) != 4 or shape[1] != channels or shape[2] < 3 or shape[3] < 3:
        raise ValueError(
            f"pixel_values must be (B, {channels}, H, W) with H and W of 3 or more, not {shape}"
        )
    return pixel_values


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x): the activation of Microsoft's code."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x * torch.sigmoid(1.702 * x)


def activation_layer(name: str | None) -> nn.Module:
    """The MLP's activation by its name in the config."""
    return QuickGELU() if name == "quick_gelu" else nn.GELU()


class DropPath(nn.Module):
    """Stochastic depth: drops whole samples of a branch, and scales up those that it keeps."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...), some samples zero in training."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty(x.shape[0], *(1 for _ in x.shape[1:])).bernoulli_(keep)
        return x * mask / keep


def recomputed(module: nn.Module, *args: Any) -> Any:
    """Call a module, and keep only its inputs for the backward pass, which calls it again."""
    return checkpoint(
        module,
        *args,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _statistics_untouched(module)),
    )


@contextmanager
def _statistics_untouched(module: nn.Module) -> Iterator[None]:
    """Batch statistics as in training, without counting the batch a second time."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter
