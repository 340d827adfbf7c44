"""What the models return."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class CvtModelOutput:
    """Result of CvtModel; maps are (B, C, H, W), before any norm."""

    last_hidden_state: Tensor
    """The last stage's map."""
    cls_token_value: Tensor | None
    """The last stage's class token (B, 1, C), before the norm."""
    hidden_states: tuple[Tensor, ...] | None = None
    """The map after each stage, when asked for."""
    attentions: dict[str, Tensor] | None = None
    """Attention weights (B, heads, T, T') by block, e.g. "stages.2.blocks.9", when asked for."""


@dataclass
class CvtOutput:
    """Result of CvtForImageClassification."""

    logits: Tensor
    """(B, N), one for each class."""
    embedding: Tensor
    """(B, C): the head's input, LayerNorm(class token)."""
    loss: Tensor | None = None
    """A scalar, when labels were given."""
    hidden_states: tuple[Tensor, ...] | None = None
    """The map after each stage, when asked for."""
    attentions: dict[str, Tensor] | None = None
    """Attention weights (B, heads, T, T') by block, when asked for."""
