"""Tokens as a map, a map as tokens, and the class token apart from both."""

from __future__ import annotations

import torch
from torch import Tensor

Grid = tuple[int, int]


def to_map(tokens: Tensor, grid: Grid) -> Tensor:
    """(B, H W, C) -> (B, C, H, W), a view in channels-last memory."""
    return tokens.reshape(tokens.shape[0], *grid, tokens.shape[2]).permute(0, 3, 1, 2)


def split_tokens(tokens: Tensor, grid: Grid, has_cls: bool) -> tuple[Tensor, Tensor | None]:
    """(B, T, C) -> the map (B, C, H, W), and the class token (B, 1, C) if there is one; views.

    Gradients of parts that were split off at once are written once, those of slices are added up.
    """
    if not has_cls:
        return to_map(tokens, grid), None
    cls, patches = tokens.split((1, tokens.shape[1] - 1), dim=1)
    return to_map(patches, grid), cls


def to_tokens(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C), a view."""
    return maps.flatten(2).transpose(1, 2)


def with_dense_gradient(x: Tensor) -> Tensor:
    """The same. On CPUs, BatchNorm takes several times as long over a gradient with gaps, as one is
    that was cut out of the gradient of all tokens."""
    if x.requires_grad and not torch.compiler.is_compiling():
        x.register_hook(torch.Tensor.contiguous)
    return x


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, C) -> (B, heads, T, C / heads), a view."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2)
