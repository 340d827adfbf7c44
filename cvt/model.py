"""CvT, the convolutional vision Transformer (arXiv 2103.15808), in PyTorch.

Shapes in comments: B images, C channels of a stage, H x W its map, T tokens (H W, plus 1 where the
stage has a class token). Tokens are (B, T, C), row-major, the class token first; a map is
(B, C, H, W), a view of them in channels-last memory.
"""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple, Self, cast

import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor, nn

from cvt.checkpoints.pretrained import Pretrained
from cvt.config import CvtConfig
from cvt.heads import check_pooling, classification_loss
from cvt.layers import (
    DropPath,
    Grid,
    activation_layer,
    check_images,
    recomputed,
    to_map,
    to_tokens,
)
from cvt.outputs import CvtModelOutput, CvtOutput

LAYER_NORM_EPS = 1e-5  # the published weights' value; config.json's layer_norm_eps is dead


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

    The map goes through `spatial`; the class token goes around it; the linear map, the pointwise
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

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, T, C) -> (B, T', C), where the convolution may have a stride."""
        cls, patches = x[:, :1], x[:, int(self.has_cls) :]
        patches = to_tokens(self.spatial(to_map(patches, grid)))  # (B, H' W', C)
        y: Tensor = self.linear(torch.cat((cls, patches), dim=1) if self.has_cls else patches)
        return y


class Attention(nn.Module):
    """Multi-head attention whose q, k, v come from convolutions, k and v on a coarser map."""

    def __init__(self, config: CvtConfig, s: int) -> None:
        super().__init__()
        width, stride, padding = config.embed_dim[s], config.stride_kv[s], config.padding_kv[s]
        self.num_heads = config.num_heads[s]
        self.scale = width**-0.5  # the stage's full width, not the head's: as in both references
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
        q = self.split_heads(self.query(x, grid))  # (B, heads, T, C / heads)
        k = self.split_heads(self.key(x, grid))  # (B, heads, T', C / heads)
        v = self.split_heads(self.value(x, grid))
        drop_rate = self.drop_rate if self.training else 0.0
        weights = None
        if need_weights:
            weights = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
            x = F.dropout(weights, drop_rate) @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=drop_rate, scale=self.scale)
        x = x.transpose(1, 2).flatten(2)  # (B, T, C)
        return self.dropout(self.out(x)), weights

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, heads, T, C / heads)."""
        return x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


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
    """What a stage computes; `blocks` and `attentions` only hold what was asked for."""

    maps: Tensor  # (B, C, H, W)
    cls: Tensor | None  # (B, 1, C)
    blocks: list[Tensor]  # of each block, (B, C, H, W)
    attentions: list[Tensor]  # of each block, (B, heads, T, T')


class Stage(nn.Module):
    """Token embedding, then `depth` blocks. A class token lives in its own stage only."""

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
        if self.cls_token is None:
            return to_map(tokens, grid), None
        return to_map(tokens[:, 1:], grid), tokens[:, :1]

    def train(self, mode: bool = True) -> Self:
        """As in nn.Module; a frozen stage stays in eval mode, BatchNorm statistics included."""
        return super().train(mode and not self.frozen)


class CvtModel(Pretrained):
    """The backbone: every stage, no final norm, no head. Takes any image of 3x3 pixels or more."""

    def __init__(self, config: CvtConfig) -> None:
        super().__init__(config)
        self.stages = nn.ModuleList(Stage(config, s) for s in range(config.num_stages))
        self.apply(partial(init_weights, std=config.initializer_range))

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> CvtModelOutput:
        """Run the network on normalised images (B, 3, H, W)."""
        x, cls = self.check(pixel_values), None
        hidden_states: tuple[Tensor, ...] = ()
        attentions: dict[str, Tensor] = {}
        for s, stage in enumerate(self.stages):
            x, cls, _, weights = stage(x, need_weights=output_attentions)
            hidden_states += (x,) if output_hidden_states else ()
            attentions |= {f"stages.{s}.blocks.{i}": w for i, w in enumerate(weights)}
        return CvtModelOutput(x, cls, hidden_states or None, attentions or None)

    def features(self, pixel_values: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Maps (B, C, H, W) by name, of stages ("stages.1") and blocks ("stages.2.blocks.4").

        Stages behind the last name are not run. Raises ValueError for an unknown name.
        """
        x, wanted, found = self.check(pixel_values), list(names), dict[str, Tensor]()
        if unknown := set(wanted) - set(self.feature_names):
            known = ", ".join(self.feature_names)
            raise ValueError(f"unknown feature {min(unknown)!r}: this model has {known}")
        for s, stage in enumerate(self.stages):
            x, _, blocks, _ = stage(x, need_blocks=True)
            maps = {f"stages.{s}.blocks.{i}": m for i, m in enumerate(blocks)} | {f"stages.{s}": x}
            found |= {name: m for name, m in maps.items() if name in wanted}
            if len(found) == len(set(wanted)):
                break
        return {name: found[name] for name in wanted}

    @property
    def feature_names(self) -> list[str]:
        """Every name that `features` knows, in the order of computation."""
        return [
            name
            for s, depth in enumerate(self.config.depth)
            for name in [*(f"stages.{s}.blocks.{i}" for i in range(depth)), f"stages.{s}"]
        ]

    def check(self, pixel_values: Tensor) -> Tensor:
        """The images in the weights' dtype. Raises ValueError if they are no such images."""
        dtype = next(self.parameters()).dtype
        return check_images(pixel_values, self.config.num_channels).to(dtype)

    def freeze(self, stages: int | None = None) -> None:
        """Exclude the first `stages` stages (default: all) from training, BatchNorm included."""
        for stage in list(self.stages)[:stages]:
            cast(Stage, stage).frozen = True
            stage.requires_grad_(False).eval()

    def gradient_checkpointing_enable(self) -> None:
        """Trade time for memory: recompute each block's activations in the backward pass."""
        for stage in self.stages:
            cast(Stage, stage).gradient_checkpointing = True


class CvtForImageClassification(Pretrained):
    """The backbone with its head: LayerNorm(class token), then a linear classifier."""

    def __init__(self, config: CvtConfig) -> None:
        super().__init__(config)
        self.backbone = CvtModel(config)
        width = config.embed_dim[-1]
        self.norm = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.head = nn.Linear(width, config.num_labels) if config.num_labels else nn.Identity()
        self.head.apply(partial(init_weights, std=config.initializer_range))

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> CvtOutput:
        """Classify normalised images (B, 3, H, W).

        `labels` are class indices (B,) int64, multi-hot (B, N) float, or targets (B,) or (B, N)
        float, by the config's problem_type.
        """
        out = self.backbone(pixel_values, output_hidden_states, output_attentions)
        embedding = self.pool(out)
        logits = self.head(embedding).float()
        loss = None if labels is None else classification_loss(self.config, logits, labels)
        return CvtOutput(logits, embedding.float(), loss, out.hidden_states, out.attentions)

    def pool(self, out: CvtModelOutput) -> Tensor:
        """The head's input (B, C). Without a class token: LayerNorm on every token, then mean."""
        cls = out.cls_token_value
        x: Tensor = self.norm(to_tokens(out.last_hidden_state) if cls is None else cls)
        return x.mean(dim=1)

    def embed(
        self,
        pixel_values: Tensor,
        *,
        pooling: str = "cls_norm",
        stage: str | None = None,
        normalize: bool = False,
    ) -> Tensor:
        """Embed normalised images (B, 3, H, W) as vectors (B, C), L2-normalised on request.

        pooling:
            "cls_norm"  the head's input, LayerNorm(class token): what training shaped, and the
                        choice for retrieval, clustering and linear probes.
            "cls"       the class token before its norm, for a head that brings its own.
            "mean"      the mean over the map of `stage`, a name known to `backbone.features`
                        (default: the last stage but one): texture and layout rather than class.
                        The last stage's own map is a poor choice: behind its last block nothing
                        but the class token ever met a loss.

        Raises ValueError for any other pooling, and for "cls" without a class token.
        """
        check_pooling(self.config, pooling)
        if stage is not None and pooling != "mean":
            raise ValueError(f'stage={stage!r} needs pooling="mean", not {pooling!r}')
        if pooling == "mean":
            name = stage or f"stages.{self.config.mean_stage}"
            vectors = self.backbone.features(pixel_values, [name])[name].mean(dim=(2, 3))
        else:
            out = self.backbone(pixel_values)
            vectors = out.cls_token_value.squeeze(1) if pooling == "cls" else self.pool(out)
        vectors = vectors.float()
        return F.normalize(vectors, dim=1) if normalize else vectors

    def optimize(
        self,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        compile: bool = False,
        *,
        pooling: str = "cls_norm",
        runtime: str = "torch",
        calibration: Tensor | None = None,
    ) -> nn.Module:
        """A fast copy with the same call, for logits and embeddings; see `inference.optimize`."""
        from cvt.inference.network import optimize

        return optimize(
            self,
            dtype,
            device,
            compile,
            pooling=pooling,
            runtime=runtime,
            calibration=calibration,
        )


def init_weights(module: nn.Module, std: float) -> None:
    """Initialisation of Microsoft's code; convolutions keep PyTorch's default."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Stage) and module.cls_token is not None:
        nn.init.trunc_normal_(module.cls_token, std=std)
