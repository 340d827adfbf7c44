"""The layers of CvT, from the token embedding to the stage, and what they share."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # SyncBatchNorm is one, and no BatchNorm2d
from torch.utils.checkpoint import checkpoint

from cvt.config import CvtConfig
from cvt.layers.drop_path import DropPath
from cvt.layers.tokens import (
    Grid,
    split_heads,
    split_tokens,
    to_tokens,
    with_dense_gradient,
)


def check_images(pixel_values: Tensor, channels: int) -> Tensor:
    """Return the argument after checking its shape.

    Raises:
        ValueError: it is not (B, channels, H, W) with H and W of 3 or more.
    """
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


def recomputed(module: nn.Module, *args: Any) -> Any:
    """Call a module, keeping only its inputs for the backward pass, which calls it again.

    A compiled graph updates statistics in its forward part alone, and takes no contexts.
    """
    if torch.compiler.is_compiling():
        return checkpoint(module, *args, use_reentrant=False)
    return checkpoint(
        module,
        *args,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _statistics_untouched(module)),
    )


@contextmanager
def _statistics_untouched(module: nn.Module) -> Iterator[None]:
    """Use batch statistics as in training, without counting the batch a second time."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter


LAYER_NORM_EPS = 1e-5  # the published weights' value; nothing reads config.json's layer_norm_eps


class TokenEmbedding(nn.Module):
    """Convolutional token embedding: an overlapping strided convolution and a LayerNorm."""

    def __init__(self, config: CvtConfig, s: int) -> None:
        super().__init__()
        width = config.embed_dim[s]
        self.conv = nn.Conv2d(
            config.embed_dim[s - 1] if s else config.num_channels,
            width,
            config.patch_sizes[s],
            config.patch_stride[s],
            config.patch_padding[s],
        )
        self.norm = nn.LayerNorm(width, LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> tuple[Tensor, Grid]:
        """The previous stage's map -> tokens (B, H W, C) and (H, W)."""
        x = self.conv(x)  # (B, C, H, W)
        return self.norm(to_tokens(x)), (x.shape[2], x.shape[3])


class Projection(nn.Module):
    """Convolutional projection of q, k or v (paper, section 3.2).

    The map goes through ``spatial``; the class token bypasses it; the linear map, the pointwise
    half of the separable convolution, applies to both.
    """

    def __init__(self, config: CvtConfig, s: int, *, stride: int, padding: int, pool: bool) -> None:
        super().__init__()
        width, kernel = config.embed_dim[s], config.kernel_qkv[s]
        method = config.qkv_projection_method[s]
        self.has_cls = config.cls_token[s]
        self.spatial: nn.Module = nn.Identity()
        if method == "dw_bn":
            self.spatial = nn.Sequential()
            self.spatial.conv = nn.Conv2d(
                width, width, kernel, stride, padding, groups=width, bias=False
            )
            self.spatial.bn = nn.BatchNorm2d(width)
        elif method == "avg" and pool:
            self.spatial = nn.AvgPool2d(kernel, stride, padding, ceil_mode=True)
        self.linear = nn.Linear(width, width, bias=config.qkv_bias[s])

    def forward(self, maps: Tensor, cls: Tensor | None) -> Tensor:
        """(B, C, H, W) and (B, 1, C) -> (B, T', C), where the convolution may have a stride."""
        tokens = to_tokens(self.spatial(maps))  # (B, H' W', C)
        if cls is not None:
            tokens = torch.cat((cls, with_dense_gradient(tokens)), dim=1)
        y: Tensor = self.linear(tokens)
        return y


class Attention(nn.Module):
    """Multi-head attention whose q, k and v come from convolutions, k and v on a coarser map."""

    def __init__(self, config: CvtConfig, s: int) -> None:
        super().__init__()
        width, stride, padding = config.embed_dim[s], config.stride_kv[s], config.padding_kv[s]
        self.num_heads = config.num_heads[s]
        self.scale = width**-0.5  # the stage's full width, not the head's, as in both references
        self.drop_rate = config.attention_drop_rate[s]
        self.query = Projection(config, s, stride=1, padding=config.padding_q[s], pool=False)
        self.key = Projection(config, s, stride=stride, padding=padding, pool=True)
        self.value = Projection(config, s, stride=stride, padding=padding, pool=True)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.drop_rate[s])

    def forward(
        self, x: Tensor, grid: Grid, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(B, T, C) -> (B, T, C), and the weights (B, heads, T, T') if asked for."""
        maps, cls = split_tokens(x, grid, self.query.has_cls)
        maps = maps.contiguous(memory_format=torch.channels_last)  # once, not in each convolution
        q = split_heads(self.query(maps, cls), self.num_heads)  # (B, heads, T, C / heads)
        k = split_heads(self.key(maps, cls), self.num_heads)  # (B, heads, T', C / heads)
        v = split_heads(self.value(maps, cls), self.num_heads)
        drop_rate = self.drop_rate if self.training else 0.0
        weights = None
        if need_weights:
            weights = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
            x = F.dropout(weights, drop_rate) @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=drop_rate, scale=self.scale)
        x = x.transpose(1, 2).flatten(2)  # (B, T, C)
        return self.dropout(self.out(x)), weights


class Mlp(nn.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, config: CvtConfig, s: int) -> None:
        super().__init__()
        width = config.embed_dim[s]
        hidden = int(width * config.mlp_ratio[s])
        self.fc1 = nn.Linear(width, hidden)
        self.act = activation_layer(config.activation)
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(config.drop_rate[s])

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, mlp_ratio C) -> (B, T, C)."""
        x = self.dropout(self.act(self.fc1(x)))
        y: Tensor = self.dropout(self.fc2(x))
        return y


class Block(nn.Module):
    """Pre-norm Transformer block."""

    def __init__(self, config: CvtConfig, s: int, drop_path_rate: float) -> None:
        super().__init__()
        width = config.embed_dim[s]
        self.norm1 = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.attn = Attention(config, s)
        self.norm2 = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.mlp = Mlp(config, s)
        self.drop_path = DropPath(drop_path_rate)

    def forward(
        self, x: Tensor, grid: Grid, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(B, T, C) -> (B, T, C), and the attention weights if asked for."""
        branch, weights = self.attn(self.norm1(x), grid, need_weights)
        x = x + self.drop_path(branch)
        return x + self.drop_path(self.mlp(self.norm2(x))), weights


class StageOutput(NamedTuple):
    """What a stage computes; ``blocks`` and ``attentions`` hold only what was asked for."""

    maps: Tensor  # (B, C, H, W)
    cls: Tensor | None  # (B, 1, C)
    blocks: list[Tensor]  # of each block, (B, C, H, W)
    attentions: list[Tensor]  # of each block, (B, heads, T, T')


class Stage(nn.Module):
    """Token embedding, then ``depth`` blocks. A class token exists only within its stage."""

    def __init__(self, config: CvtConfig, s: int) -> None:
        super().__init__()
        self.embed = TokenEmbedding(config, s)
        has_cls, width, depth = config.cls_token[s], config.embed_dim[s], config.depth[s]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if has_cls else None
        self.dropout = nn.Dropout(config.drop_rate[s])
        ramp = (config.drop_path_rate[s] * i / max(depth - 1, 1) for i in range(depth))
        self.blocks = nn.ModuleList(Block(config, s, rate) for rate in ramp)
        self.gradient_checkpointing = False
        self.frozen = False

    def forward(
        self, x: Tensor, *, need_blocks: bool = False, need_weights: bool = False
    ) -> StageOutput:
        """The previous stage's map -> this stage's."""
        tokens, grid = self.embed(x)
        if self.cls_token is not None:
            tokens = torch.cat((self.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        tokens = self.dropout(tokens)
        saving = self.gradient_checkpointing and torch.is_grad_enabled()
        blocks, attentions = [], []
        for block in self.blocks:
            run = partial(recomputed, block) if saving else block
            tokens, weights = run(tokens, grid, need_weights)
            if need_blocks:
                blocks.append(self.split(tokens, grid)[0])
            if weights is not None:
                attentions.append(weights)
        return StageOutput(*self.split(tokens, grid), blocks, attentions)

    def split(self, tokens: Tensor, grid: Grid) -> tuple[Tensor, Tensor | None]:
        """(B, T, C) -> the map (B, C, H, W), the class token (B, 1, C) if there is one."""
        return split_tokens(tokens, grid, self.cls_token is not None)

    def train(self, mode: bool = True) -> Self:
        """As in nn.Module; a frozen stage stays in eval mode, BatchNorm statistics included."""
        return super().train(mode and not self.frozen)


def init_weights(module: nn.Module, std: float) -> None:
    """Initialise as Microsoft's code does; convolutions keep PyTorch's default."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Stage) and module.cls_token is not None:
        nn.init.trunc_normal_(module.cls_token, std=std)
