"""The same network in the form that runs fast. ``model.py`` stays the readable reference.

Against the reference: BatchNorm is folded into the depthwise convolution before it, the attention
scale into the query's linear map; activation and residual are fused with the linear maps, whose
weights are laid out once for the CPU at hand; and the last block computes only what reaches the
class token.
"""

import copy
from typing import Any, Protocol, TypeVar, cast

import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cvt.config import CvtConfig
from cvt.inference.linear import FusedLinear
from cvt.interface.outputs import CvtOutput
from cvt.layers.blocks import (
    Attention,
    Block,
    Mlp,
    Projection,
    Stage,
    check_images,
)
from cvt.layers.heads import check_pooling, widened
from cvt.layers.tokens import Grid, split_heads, to_map, to_tokens

ModuleT = TypeVar("ModuleT", bound=nn.Module)

# How many attention scores the CPU takes at once in bfloat16, so that they stay in its cache.
_CACHED_SCORES = 1 << 19


class Backbone(Protocol):
    """Stages that run one after another, as in ``cvt.CvtModel``."""

    @property
    def stages(self) -> nn.ModuleList: ...


class Classifier(Protocol):
    """What can be made fast: the parts of ``cvt.CvtForImageClassification`` used here."""

    @property
    def config(self) -> CvtConfig: ...
    @property
    def backbone(self) -> Backbone: ...
    @property
    def norm(self) -> nn.LayerNorm: ...
    @property
    def head(self) -> nn.Module: ...


class InferenceCvt(nn.Module):
    """A classifier for inference alone: the same call, and ``logits`` and ``embedding`` in float32.

    ``embedding`` is the head's input unless another ``pooling`` is chosen (see the model's
    ``embed``). Labels and the loss, hidden states, attention weights, training and saving are left
    out: the model that it was made from has them.
    """

    def __init__(self, model: Classifier, pooling: str = "cls_norm") -> None:
        """Copy a model, which is best in float32, as folding rounds."""
        super().__init__()
        check_pooling(model.config, pooling)
        self.config: CvtConfig = model.config
        self.pooling = pooling
        self.mean_stage = self.config.mean_stage if pooling == "mean" else None
        last = self.config.num_stages - 1
        cls_only = self.config.cls_token[last] and self.mean_stage != last
        self.stages = nn.ModuleList(
            _Stage(cast(Stage, stage), cls_only=cls_only and s == last)
            for s, stage in enumerate(fold_batch_norm(model.backbone.stages))
        )
        self.norm, self.head = inference_copy(model.norm), inference_copy(model.head)
        cast(Any, self.eval()).to(memory_format=torch.channels_last)

    def forward(self, pixel_values: Tensor) -> CvtOutput:
        """Classify normalised images (B, 3, H, W) of any floating dtype."""
        x = check_images(pixel_values, self.config.num_channels).to(self.norm.weight.dtype)
        embedding = cls = None
        for s, stage in enumerate(self.stages):
            x, cls = stage(x)
            if s == self.mean_stage:
                embedding = x.mean(dim=(2, 3))
        tokens = to_tokens(x) if cls is None else cls
        vectors = self.norm(tokens).mean(dim=1)  # (B, C), the head's input
        if embedding is None:
            embedding = tokens[:, 0] if self.pooling == "cls" else vectors
        return CvtOutput(logits=widened(self.head(vectors)), embedding=widened(embedding))


class _Stage(nn.Module):
    def __init__(self, stage: Stage, *, cls_only: bool) -> None:
        super().__init__()
        self.embed = stage.embed
        self.cls_token = stage.cls_token
        blocks = [cast(Block, block) for block in stage.blocks]
        full = blocks[:-1] if cls_only else blocks
        self.blocks = nn.ModuleList(_Block(block) for block in full)
        self.last = _ClsBlock(blocks[-1]) if cls_only else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The previous stage's map -> this stage's, and its class token (B, 1, C)."""
        tokens, grid = self.embed(x)
        if self.cls_token is not None:
            tokens = torch.cat((self.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        for block in self.blocks:
            tokens = block(tokens, grid)
        if self.cls_token is None:
            return to_map(tokens, grid), None
        cls = tokens[:, :1] if self.last is None else self.last(tokens, grid)
        return to_map(tokens[:, 1:], grid), cls


class _Block(nn.Module):
    """A pre-norm block: attention and MLP, each added to its input."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1, self.norm2 = block.norm1, block.norm2
        attention: Attention = block.attn
        self.num_heads = attention.num_heads
        self.query = _Projection(attention.query, scale=attention.scale)
        self.key = _Projection(attention.key)
        self.value = _Projection(attention.value)
        self.out = FusedLinear.of(attention.out)
        self.fc1, self.fc2 = _fused_mlp(block.mlp)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        y = self.norm1(x)
        x = self.out(self.attend(self.query(y, grid), y, grid), x)
        return cast(Tensor, self.fc2(self.fc1(self.norm2(x)), x))

    def attend(self, q: Tensor, y: Tensor, grid: Grid) -> Tensor:
        """Scaled queries (B, T, C) over the keys and values of tokens y -> (B, T, C)."""
        k, v = self.key(y, grid), self.value(y, grid)
        heads = (split_heads(x, self.num_heads) for x in (q, k, v))
        return attention(*heads).transpose(1, 2).flatten(2)


class _ClsBlock(_Block):
    """The last block before the head, for the class token alone; its keys and values see all."""

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, T, C) -> (B, 1, C)."""
        y = self.norm1(x)
        q = self.query.linear(y[:, :1].contiguous())  # the class token bypasses the convolution
        x = self.out(self.attend(q, y, grid), x[:, :1].contiguous())
        return cast(Tensor, self.fc2(self.fc1(self.norm2(x)), x))


class _Projection(nn.Module):
    """Depthwise convolution (or average) with BatchNorm folded in, then the linear map."""

    def __init__(self, projection: Projection, scale: float = 1.0) -> None:
        super().__init__()
        self.has_cls = projection.has_cls
        self.spatial = projection.spatial
        self.linear = FusedLinear.of(projection.linear, scale=scale)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, T, C) -> (B, T', C)."""
        cls, patches = x[:, :1], x[:, int(self.has_cls) :]
        patches = to_tokens(self.spatial(to_map(patches, grid)))
        x = torch.cat((cls, patches), dim=1) if self.has_cls else patches
        return cast(Tensor, self.linear(x))


def _fused_mlp(mlp: Mlp) -> tuple[FusedLinear, FusedLinear]:
    """Both linear maps with the activation in the first.

    QuickGELU is x sigmoid(1.702 x) = silu(1.702 x) / 1.702: silu, with the factor in the weights.
    """
    if isinstance(mlp.act, nn.GELU):
        return FusedLinear.of(mlp.fc1, activation="gelu"), FusedLinear.of(mlp.fc2)
    quick = 1.702
    mlp.fc2.weight.div_(quick)
    return FusedLinear.of(mlp.fc1, activation="swish", scale=quick), FusedLinear.of(mlp.fc2)


def inference_copy(module: ModuleT) -> ModuleT:
    """A copy in eval mode, without gradients."""
    return copy.deepcopy(module).requires_grad_(False).eval()


def fold_batch_norm(model: ModuleT) -> ModuleT:
    """A copy for inference whose convolutions include the affine map of their BatchNorm."""
    model = inference_copy(model)
    for projection in model.modules():
        if isinstance(projection, Projection) and isinstance(projection.spatial, nn.Sequential):
            conv, bn = projection.spatial.conv, projection.spatial.bn
            projection.spatial = fuse_conv_bn_eval(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, bn))
    return model


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T) v, all (B, heads, tokens, C / heads), with the scale already in q.

    In bfloat16 on a CPU, PyTorch's fused operator is no faster than in float32; two products with
    the scores in between are, as long as the scores fit into the cache.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, scale=1.0)
    per_image = q.shape[1] * q.shape[2] * k.shape[2]
    step = max(1, _CACHED_SCORES // per_image)
    out = torch.empty_like(q)  # with the strides of q: heads side by side
    for i in range(0, q.shape[0], step):
        images = slice(i, i + step)
        scores = q[images] @ k[images].transpose(-2, -1)
        out[images] = scores.softmax(dim=-1) @ v[images]
    return out
