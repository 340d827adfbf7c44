"""transformers' CvT with seeded weights that are far from their initial values.

At initialisation BatchNorm and LayerNorm are the identity and attention is nearly uniform, so a
model that forgets them agrees anyway. Here every part leaves its mark on the logits.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
import transformers
from torch import Tensor, nn
from transformers.activations import QuickGELUActivation

from cvt import CvtImageProcessor

# Several heads of 8 channels in every stage, so that the attention scale shows; seconds to run.
SMALL: dict[str, Any] = {
    "embed_dim": [16, 32, 48],
    "num_heads": [2, 4, 6],
    "depth": [1, 2, 3],
    "num_labels": 7,
}

TOLERANCE = 2e-5  # logits are near 1; the same model differs by 7e-6 between batch sizes
SIZE = 32
CLASSES = [f"class {n} ü" for n in range(7)]

Oracle: TypeAlias = Any  # a transformers.CvtForImageClassification, whose parts have no types


def oracle(*, seed: int = 0, depth: Sequence[int] = (1, 2, 10), **fields: Any) -> Oracle:
    """A classifier in eval mode. ``fields`` are those of transformers' CvtConfig.

    Any depth will do: transformers needs more blocks than a stage's index, so it is built deeper
    and cut.
    """
    buildable = [max(d, s + 1) for s, d in enumerate(depth)]
    config = transformers.CvtConfig(depth=buildable, **fields)
    model: Oracle = transformers.CvtForImageClassification(config)
    for stage, d in zip(model.cvt.encoder.stages, depth, strict=True):
        stage.layers = stage.layers[:d]
    model.config.depth = list(depth)
    complete(model)
    randomise(model, seed)
    return model.eval()


def complete(model: Oracle) -> None:
    """Give "avg" and "linear" projections the part that transformers forgets to build.

    Microsoft's code pools key and value, and passes the rest on.
    """
    for s, stage in enumerate(model.cvt.encoder.stages):
        method = model.config.qkv_projection_method[s]
        for attention in (layer.attention.attention for layer in stage.layers):
            for name in ("query", "key", "value"):
                projection = getattr(attention, f"convolution_projection_{name}")
                if method == "avg" and name != "query":
                    projection.convolution_projection = nn.AvgPool2d(3, 2, 1, ceil_mode=True)
                elif method != "dw_bn":
                    projection.convolution_projection = nn.Identity()


def use_quick_gelu(model: Oracle) -> Oracle:
    """The same model under Microsoft's convention."""
    for stage in model.cvt.encoder.stages:
        for layer in stage.layers:
            layer.intermediate.activation = QuickGELUActivation()
    return model


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Draw every weight and statistic anew, of a size that keeps the logits near 1."""
    random = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0, 1.5 / math.sqrt(fan_in), generator=random)
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5, generator=random)
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "cls_token")):
            parameter.normal_(0, 0.3, generator=random)
    for name, statistic in model.named_buffers():
        if name.endswith("running_mean"):
            statistic.normal_(0, 0.5, generator=random)
        elif name.endswith("running_var"):
            statistic.uniform_(0.3, 3.0, generator=random)


def save_oracle(folder: Path, **fields: Any) -> Oracle:
    """A seeded checkpoint of transformers with preprocessing for images of 32 x 32."""
    options = {"id2label": dict(enumerate(CLASSES)), **SMALL, **fields}
    if "num_labels" in fields:
        del options["id2label"]
    model = oracle(**options)
    model.save_pretrained(folder)
    CvtImageProcessor(size=SIZE).save_pretrained(folder)
    return model


def images(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Normalised pixels (B, 3, H, W) float32."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, height, width, generator=random)


def difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference."""
    assert a.shape == b.shape
    return (a.double() - b.double()).abs().max().item()


def relative_difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference over the largest value of ``b``."""
    return difference(a, b) / b.abs().max().item()
