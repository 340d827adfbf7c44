"""What weights tell about their architecture, and one line on why they do not fit another."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Self

from torch import Tensor

from cvt.checkpoints.layouts import Layout, rename
from cvt.config import CvtConfig

Shapes = Mapping[str, tuple[int, ...]]

_EMBEDDING = re.compile(r"backbone\.stages\.\d+\.embed\.conv\.bias")
_BLOCK = re.compile(r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.norm1\.bias")

_STATISTICS: Final = ("running_mean", "running_var", "num_batches_tracked")

# A part of one of our names -> the configuration field that determines it.
_FIELDS: Final[Mapping[str, str]] = {
    "cls_token": "cls_token",
    "linear.bias": "qkv_bias",
    "spatial.": "qkv_projection_method or kernel_qkv",
    "mlp.": "mlp_ratio",
    "embed.conv": "patch_sizes or num_channels",
}


@dataclass(frozen=True)
class Anatomy:
    """What weights under our names tell."""

    embed_dim: tuple[int, ...]
    depth: tuple[int, ...]
    num_labels: int | None
    """None where there is no head."""

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        """Count widths, blocks and classes."""
        widths = [_length(state[name]) for name in filter(_EMBEDDING.fullmatch, sorted(state))]
        blocks = [match[1] for match in map(_BLOCK.fullmatch, state) if match]
        head = state.get("head.weight")
        return cls(
            embed_dim=tuple(widths),
            depth=tuple(blocks.count(str(s)) for s in range(len(widths))),
            num_labels=None if head is None else _length(head),
        )


def _length(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.ndim else 0


def explain_size(anatomy: Anatomy, config: CvtConfig) -> str | None:
    """Why a configuration is far too large for weights; None if it can be built and compared."""
    if sum(config.depth) <= 100 + sum(anatomy.depth):
        return None
    return f"The weights have depth {anatomy.depth}, the configuration {config.depth}"


def explain_mismatch(
    found: Shapes, expected: Shapes, anatomy: Anatomy, config: CvtConfig, layout: Layout
) -> str | None:
    """Why weights do not fit, in one line with the weights' own names; None if they fit."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    reshaped = [name for name in expected if name in found and found[name] != expected[name]]
    parts = [
        *_listed("missing", missing, layout),
        *_listed("unexpected", unexpected, layout),
        *(
            f"{rename(name, 'ours', layout)} is {found[name]}, not {expected[name]}"
            for name in reshaped[:2]
        ),
    ]
    if not parts:
        return None
    cause = _cause([*missing, *unexpected, *reshaped], anatomy, config)
    if cause is None:
        cause = "The file seems incomplete" if missing else "The file holds more than a CvT"
    return f"{'; '.join(parts)}. {cause}"


def _listed(what: str, names: Collection[str], layout: Layout) -> list[str]:
    if not names:
        return []
    first = ", ".join(rename(name, "ours", layout) for name in list(names)[:2])
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return [f"{what} {first}{more}"]


def _cause(names: list[str], anatomy: Anatomy, config: CvtConfig) -> str | None:
    """The likely cause: what differs in kind, else the field that determines the first name."""
    for field in ("embed_dim", "depth"):
        have, want = getattr(anatomy, field), getattr(config, field)
        if have != want:
            return f"The weights have {field} {have}, the configuration {want}"
    if anatomy.num_labels not in (None, config.num_labels):
        return (
            f"The weights have {anatomy.num_labels} classes, the configuration "
            f"{config.num_labels}: correct id2label, or pass num_labels={anatomy.num_labels} to "
            "keep the weights' head"
        )
    if all(name.endswith(_STATISTICS) for name in names):
        return "They are parameters alone: save what state_dict() returns, with BatchNorm's buffers"
    hints = [field for part, field in _FIELDS.items() if part in names[0]]
    return f"Check {hints[0]} in the configuration" if hints else None
