"""The same network in the form that runs fast: BatchNorm folded away, lower precision, compiled."""

import copy
from typing import TypeVar, cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)


def optimize(
    model: M,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    compile: bool = False,
) -> M:
    """A copy of the model for inference only, with the same calls and outputs.

    Every BatchNorm is folded into the depthwise convolution before it (in the model's own dtype,
    before `dtype` applies), so the copy cannot be trained or saved as a checkpoint. The logits and
    the embedding stay float32 in any `dtype`.

    Args:
        model: A CvtModel or CvtForImageClassification; left as it is.
        dtype: torch.float32, torch.bfloat16 or torch.float16.
        device: Where the copy goes; the model's own by default.
        compile: Compile on the first call (torch.compile); pays off in long runs at a fixed size.
    """
    fast = copy.deepcopy(model).requires_grad_(False).eval()
    for module in fast.modules():
        if isinstance(getattr(module, "bn", None), nn.BatchNorm2d):
            fold_batch_norm(module)
    fast = fast.to(device=device, dtype=dtype)
    if compile:
        fast.compile()
    return fast


def fold_batch_norm(spatial: nn.Module) -> None:
    """Put the affine map of `spatial.bn` in eval mode into `spatial.conv`; the result is equal."""
    conv, norm = cast(nn.Conv2d, spatial.conv), cast(nn.BatchNorm2d, spatial.bn)
    spatial.conv, spatial.bn = fuse_conv_bn_eval(conv, norm), nn.Identity()
