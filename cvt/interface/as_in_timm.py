"""What users of timm ask of a classifier: its parts, and how training treats them."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from cvt.interface.as_in_transformers import AsInTransformers

_WITH_THE_LAYER_BEFORE = (99999,)  # timm's own mark for it


class AsInTimm(AsInTransformers):
    """The methods that timm's models share, for the parts ``backbone``, ``norm`` and ``head``."""

    config: Any
    backbone: Any
    norm: nn.LayerNorm
    head: nn.Module

    @abstractmethod
    def new_head(self, num_classes: int) -> nn.Module:
        """A classifier to train; for 0 classes, one that passes the embedding through."""

    @property
    def num_classes(self) -> int:
        """How many classes the head distinguishes; 0 without one."""
        return len(self.config.labels)

    @property
    def num_features(self) -> int:
        """C, the width of the embedding."""
        return int(self.config.embed_dim[-1])

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head in place of the old one; 0 classes leave the embedding as the logits.

        Raises:
            ValueError: another pooling is asked for; ``embed`` has those that there are.
        """
        if global_pool not in (None, "token"):
            raise ValueError(f"the head reads the class token, and not {global_pool!r}")
        head = self.new_head(num_classes)
        self.head = head.to(self.norm.weight.device, self.norm.weight.dtype)
        self.config = self.config.changed(num_labels=num_classes)
        self.backbone.config = self.config

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """Tokens (B, T, C) behind the last norm, the class token first if there is one."""
        out = self.backbone(pixel_values)
        tokens = out.last_hidden_state.flatten(2).transpose(1, 2)
        if out.cls_token_value is not None:
            tokens = torch.cat((out.cls_token_value, tokens), dim=1)
        normed: Tensor = self.norm(tokens)
        return normed

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, N) of such tokens; the embedding (B, C) with ``pre_logits``."""
        vectors = features[:, 0] if self.config.cls_token[-1] else features.mean(dim=1)
        return vectors if pre_logits else self.head(vectors)

    def no_weight_decay(self) -> set[str]:
        """The class tokens, which Microsoft's recipe does not decay either."""
        return {name for name, _ in self.named_parameters() if name.endswith("cls_token")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that order the weights by depth, block by block or stage by stage."""
        stage = r"^backbone\.stages\.(\d+)"
        blocks = [
            (rf"{stage}\.blocks\.(\d+)", None),
            (rf"{stage}\.", (0,)),
            (r"^norm", _WITH_THE_LAYER_BEFORE),
        ]
        return {"stem": r"^backbone\.stages\.0\.embed", "blocks": stage if coarse else blocks}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether blocks recompute their activations in the backward pass."""
        if enable:
            self.gradient_checkpointing_enable()
        else:
            self.gradient_checkpointing_disable()
