"""CvT, the convolutional vision Transformer (arXiv 2103.15808), in PyTorch.

Shapes in comments: B images, C channels of a stage, H x W its map, T tokens (H W, plus 1 where the
stage has a class token). Tokens are (B, T, C), row-major, the class token first; a map is
(B, C, H, W), a view of them in channels-last memory.
"""

from collections.abc import Iterable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor, nn

from cvt.checkpoints.pretrained import Pretrained
from cvt.config import CvtConfig
from cvt.inference.optimize import optimize
from cvt.interface.as_in_timm import AsInTimm
from cvt.interface.outputs import CvtModelOutput, CvtOutput
from cvt.layers.blocks import LAYER_NORM_EPS, Stage, check_images, init_weights
from cvt.layers.heads import check_pooling, classification_loss, widened
from cvt.layers.tokens import to_tokens


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
        return CvtModelOutput(
            last_hidden_state=x,
            cls_token_value=cls,
            hidden_states=hidden_states or None,
            attentions=attentions or None,
        )

    def features(self, pixel_values: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Maps (B, C, H, W) by name, of stages ("stages.1") and blocks ("stages.2.blocks.4").

        Stages after the last name are not run.

        Raises:
            ValueError: a name is unknown.
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
        """Every name that ``features`` knows, in the order of computation."""
        return [
            name
            for s, depth in enumerate(self.config.depth)
            for name in [*(f"stages.{s}.blocks.{i}" for i in range(depth)), f"stages.{s}"]
        ]

    def check(self, pixel_values: Tensor) -> Tensor:
        """The images in the weights' dtype.

        Raises:
            ValueError: they have the wrong shape.
        """
        dtype = next(self.parameters()).dtype
        return check_images(pixel_values, self.config.num_channels).to(dtype)

    def freeze(self, stages: int | None = None) -> None:
        """Exclude the first ``stages`` stages (default: all) from training, BatchNorm included."""
        for stage in list(self.stages)[:stages]:
            cast(Stage, stage).frozen = True
            stage.requires_grad_(False).eval()


class CvtForImageClassification(AsInTimm, Pretrained):
    """The backbone with its head: LayerNorm(class token), then a linear classifier."""

    config: CvtConfig
    backbone: CvtModel

    def __init__(self, config: CvtConfig) -> None:
        super().__init__(config)
        self.backbone = CvtModel(config)
        self.norm = nn.LayerNorm(config.embed_dim[-1], LAYER_NORM_EPS)
        self.head = self.new_head(config.num_labels)

    def new_head(self, num_classes: int) -> nn.Module:
        """A linear classifier to train; without classes, the embedding passes through."""
        head = nn.Linear(self.config.embed_dim[-1], num_classes) if num_classes else nn.Identity()
        return head.apply(partial(init_weights, std=self.config.initializer_range))

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> CvtOutput:
        """Classify normalised images (B, 3, H, W).

        ``labels`` are class indices (B,) int64, multi-hot (B, N) float, or targets (B,) or (B, N)
        float, by the config's problem_type.
        """
        out = self.backbone(
            pixel_values,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        embedding = self.pool(out)
        logits = widened(self.head(embedding))
        loss = None if labels is None else classification_loss(self.config, logits, labels)
        return CvtOutput(
            loss=loss,
            logits=logits,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
            embedding=widened(embedding),
        )

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

        Args:
            pooling: "cls_norm": the head's input, LayerNorm(class token): what training shaped,
                and the choice for retrieval, clustering and linear probes.
                "cls": the class token before its norm, for a head that brings its own.
                "mean": the mean over the map of ``stage``, a name known to ``backbone.features``
                (default: the last stage but one): texture and layout rather than class. The last
                stage's own map is a poor choice: after its last block, only the class token was
                ever trained by a loss.

        Raises:
            ValueError: the pooling is none of these, or "cls" without a class token.
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
        vectors = widened(vectors)
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
        """A fast copy with the same call, for logits and embeddings; see ``inference.optimize``."""
        return optimize(
            self,
            dtype,
            device,
            compile,
            pooling=pooling,
            runtime=runtime,
            calibration=calibration,
        )
