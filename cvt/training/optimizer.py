"""What a step of training changes, and by how much: rates, decay, the course over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from torch.nn import Parameter
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from cvt.model import CvtForImageClassification

_CLASS_TOKEN: Final = "cls_token"
_TOKEN_PARTS: Final = ("embed", _CLASS_TOKEN)
"""Of a stage, what comes before its first block."""


def layer_of(name: str, depth: tuple[int, ...]) -> int:
    """The layer that a parameter belongs to: blocks count from 0 over all stages, what comes before
    a stage's first block belongs to that, and the final norm and the head come last.

    Args:
        name: as in ``named_parameters`` of a ``CvtForImageClassification``.
        depth: blocks of each stage.
    """
    parts = name.split(".")
    if parts[0] != "backbone":
        return sum(depth)
    stage, part = int(parts[2]), parts[3]
    within = 0 if part in _TOKEN_PARTS else int(parts[4])
    return sum(depth[:stage]) + within


def is_decayed(name: str, parameter: Parameter) -> bool:
    """Whether weight decay pulls it to zero: matrices and kernels, but no scale of a norm, no bias
    and no class token."""
    return parameter.ndim > 1 and not name.endswith(_CLASS_TOKEN)


def parameter_groups(
    model: CvtForImageClassification, rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for an optimizer, each trainable parameter in one of them, with ``lr``,
    ``weight_decay``, and ``names``.

    Args:
        rate: of the head.
        weight_decay: of what ``is_decayed``.
        layer_decay: what the rate is multiplied by for every layer below the head.
    """
    depth, groups = tuple(model.config.depth), dict[tuple[int, bool], dict[str, Any]]()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, decayed = layer_of(name, depth), is_decayed(name, parameter)
        new = {
            "params": [],
            "names": [],
            "lr": rate * layer_decay ** (sum(depth) - layer),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        group = groups.setdefault((layer if layer_decay != 1 else 0, decayed), new)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def make_optimizer(groups: list[dict[str, Any]]) -> AdamW:
    """AdamW of ``parameter_groups``."""
    named = [{k: v for k, v in group.items() if k != "names"} for group in groups]
    return AdamW(named, fused=True)


def warmup_cosine(steps: int, warmup: int) -> Callable[[int], float]:
    """The factor of the rate at each step: it rises linearly, over ``warmup`` steps, to 1, which
    the last of them has, and falls to 0 along half a cosine."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))

    return factor


def make_schedule(optimizer: AdamW, steps: int, warmup_share: float) -> LambdaLR:
    """``warmup_cosine`` over so many steps, as PyTorch has it."""
    warmup = max(round(steps * warmup_share), 1)
    return LambdaLR(optimizer, warmup_cosine(steps, warmup))
