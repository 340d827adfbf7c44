"""The shape of a CvT: a dataclass that reads and writes Hugging Face's config.json."""

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from cvt.errors import ConfigError
from cvt.interface.as_config import AsConfig
from cvt.interface.fields import (
    FLAG,
    Field,
    class_names,
    default_labels,
    label_list,
    one_of,
    per_stage,
    real,
    whole,
)

PROJECTIONS: Final = ("dw_bn", "avg", "linear")
ACTIVATIONS: Final = ("gelu", "quick_gelu")
PROBLEM_TYPES: Final = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)

# How the published models differ from the defaults below, which are CvT-13 (paper, table 2).
PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "cvt-13": {},
    "cvt-21": {"depth": (1, 4, 16)},
    "cvt-w24": {
        "embed_dim": (192, 768, 1024),
        "num_heads": (3, 12, 16),
        "depth": (2, 2, 20),
        "drop_path_rate": (0.0, 0.0, 0.3),
    },
}


@dataclass(init=False, unsafe_hash=True)  # a key, as long as nobody sets a field
class CvtConfig(AsConfig):
    """A CvT's architecture, one entry per stage. The defaults are CvT-13 with 1000 classes.

    Lists become tuples. What each field accepts stands in the table at the end of this module.

    Field names are those of transformers' CvtConfig, except ``activation`` ("hidden_act" in
    config.json, which transformers ignores for CvT) and ``labels`` ("id2label"); its names are
    taken as well, and what is set later is checked as at the beginning.

    Raises:
        ConfigError: the values do not describe a CvT.
    """

    num_channels: int = 3
    """Channels of the input image."""
    patch_sizes: tuple[int, ...] = (7, 3, 3)
    """Kernel of each stage's token embedding."""
    patch_stride: tuple[int, ...] = (4, 2, 2)
    """Stride of each stage's token embedding."""
    patch_padding: tuple[int, ...] = (2, 1, 1)
    """Zero padding of each stage's token embedding."""
    embed_dim: tuple[int, ...] = (64, 192, 384)
    """Width C of each stage."""
    num_heads: tuple[int, ...] = (1, 3, 6)
    """Attention heads of each stage; each must divide the stage's width."""
    depth: tuple[int, ...] = (1, 2, 10)
    """Blocks in each stage."""
    mlp_ratio: tuple[float, ...] = (4.0, 4.0, 4.0)
    """Hidden width of the MLP, as a multiple of C."""
    attention_drop_rate: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Dropout on the attention weights."""
    drop_rate: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Dropout on the tokens, the attention's output and both layers of the MLP."""
    drop_path_rate: tuple[float, ...] = (0.0, 0.0, 0.1)
    """Stochastic depth of each stage's last block; the blocks before it ramp up from zero."""
    qkv_bias: tuple[bool, ...] = (True, True, True)
    """Whether the linear maps of query, key and value have a bias."""
    cls_token: tuple[bool, ...] = (False, False, True)
    """Whether a stage has a class token of its own. The head reads the last stage's."""
    qkv_projection_method: tuple[str, ...] = ("dw_bn", "dw_bn", "dw_bn")
    """What precedes the linear map of q, k, v: "dw_bn" (depthwise convolution, BatchNorm; every
    published model), "avg" (pooling of k and v) or "linear" (nothing)."""
    kernel_qkv: tuple[int, ...] = (3, 3, 3)
    """Kernel of the convolutional (or average pooling) projection."""
    padding_kv: tuple[int, ...] = (1, 1, 1)
    """Padding of the key and value projections."""
    stride_kv: tuple[int, ...] = (2, 2, 2)
    """Stride of the key and value projections."""
    padding_q: tuple[int, ...] = (1, 1, 1)
    """Padding of the query projection; must keep the map's size."""
    stride_q: tuple[int, ...] = (1, 1, 1)
    """Stride of the query projection: always 1, as the residual needs every query."""
    initializer_range: float = 0.02
    """Standard deviation of new linear weights and of the class token."""
    activation: str | None = None
    """"gelu" (exact, as in transformers) or "quick_gelu" (x sigmoid(1.702 x), as in Microsoft's
    code); the same weights exist under both conventions. None leaves it to the checkpoint's layout,
    and means "gelu" in a new model."""
    labels: tuple[str, ...] = default_labels(1000)
    """The class names in the order of the logits; empty for a model without a classifier."""
    problem_type: str | None = None
    """One of PROBLEM_TYPES, or None: the labels then choose the loss, as in transformers."""
    image_size: int | None = None
    """The input size that the checkpoint was made for, if it says so. The network accepts any."""

    def check(self) -> None:
        """Hold every field against the table below, and the stages against each other."""
        stages = len(_DEPTH.read("depth", self.depth))
        for name, field in _FIELDS.items():
            value = getattr(self, name)
            if name in _PER_STAGE:
                value = per_stage(field, name, value, stages)
            elif value is not None or name not in _OPTIONAL:
                value = field.read(name, value)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "labels", label_list(self.labels, "labels"))
        for s in range(stages):
            self._check_stage(s)

    def _check_stage(self, s: int) -> None:
        width, heads, kernel = self.embed_dim[s], self.num_heads[s], self.kernel_qkv[s]
        if width % heads:
            raise ConfigError(
                f"stage {s}: embed_dim {width} must be a positive multiple of num_heads {heads}"
            )
        same_size = self.stride_q[s] == 1 and 2 * self.padding_q[s] == kernel - 1
        if self.qkv_projection_method[s] == "dw_bn" and not same_size:
            raise ConfigError(
                f"stage {s}: the query projection must keep the map's size: stride_q 1 and "
                f"padding_q (kernel_qkv - 1) / 2, not {self.stride_q[s]} and {self.padding_q[s]}"
            )
        kernels = {"patch_padding": self.patch_sizes[s]}
        if self.qkv_projection_method[s] != "linear":
            kernels["padding_kv"] = kernel
        for name, side in kernels.items():
            if (padding := getattr(self, name)[s]) >= side:
                raise ConfigError(
                    f"stage {s}: {name} must be less than the kernel, {side}, not {padding}"
                )
        if self.qkv_projection_method[s] == "avg" and 2 * self.padding_kv[s] > kernel:
            raise ConfigError(
                f"stage {s}: padding_kv must be at most half of what is averaged, {kernel}, "
                f"not {self.padding_kv[s]}"
            )

    @property
    def num_stages(self) -> int:
        """How many stages the network has; three in every published model."""
        return len(self.depth)

    @property
    def mean_stage(self) -> int:
        """The stage whose map the pooling "mean" uses by default: the last but one."""
        return max(self.num_stages - 2, 0)

    def check_images(self, size: int) -> None:
        """Check that the network takes RGB images of ``size`` x ``size``.

        Raises:
            ConfigError: it does not.
        """
        if self.num_channels != 3:
            raise ConfigError(f"num_channels is {self.num_channels}, and images have three")
        side = size
        for s in range(self.num_stages):
            side = _convolved(
                side, self.patch_sizes[s], self.patch_padding[s], self.patch_stride[s]
            )
            seen = side  # by the keys and values
            if self.qkv_projection_method[s] != "linear":
                seen = _convolved(side, self.kernel_qkv[s], self.padding_kv[s], self.stride_kv[s])
            if min(side, seen) < 1:
                raise ConfigError(f"stage {s} leaves nothing of images of {size} x {size}")

    @classmethod
    def from_preset(cls, name: str) -> Self:
        """The configuration of a published model with 1000 classes, named in PRESETS."""
        return cls(**PRESETS[one_of(*PRESETS).read("preset", name)])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that a config.json describes.

        Unknown, legacy and dead keys are ignored (layer_norm_eps among them: transformers never
        reads it); an absent key takes its default here, as in transformers.
        """
        if "model_type" not in values and isinstance(values.get("architecture"), str):
            raise ConfigError("it is timm's, which says little of the network: write transformers'")
        if (kind := values.get("model_type", "cvt")) != "cvt":
            raise ConfigError(
                f'model_type must be "cvt", not {reprlib.repr(kind)}: this is not a CvT'
            )
        known = _FIELDS.keys() - {"activation"}
        given = {name: values[name] for name in known if values.get(name) is not None}
        sides = given.get("image_size")
        if isinstance(sides, list) and sides and sides == sides[:1] * len(sides):
            given["image_size"] = sides[0]
        if (activation := values.get("hidden_act")) is not None:
            activation = _FIELDS["activation"].read("hidden_act", activation)
        return cls(**given, activation=activation, labels=class_names(values))

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json, which transformers reads as well."""
        values = dataclasses.asdict(self)
        del values["labels"]
        values["hidden_act"] = values.pop("activation")
        kept = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {
            "architectures": ["CvtForImageClassification"],
            "model_type": "cvt",
            **{k: v for k, v in kept.items() if v is not None},
            "id2label": {str(i): label for i, label in self.id2label.items()},
            "label2id": self.label2id,
        }


def _convolved(side: int, kernel: int, padding: int, stride: int) -> int:
    return (side + 2 * padding - kernel) // stride + 1


_MAX_STAGES: Final = 16
_DEPTH: Final = Field(
    f"be a list with one number per stage, for 1 to {_MAX_STAGES} of them",
    lambda value: isinstance(value, list | tuple) and 1 <= len(value) <= _MAX_STAGES,
    tuple,
)
_KERNEL: Final = whole(1, 255)
_PADDING: Final = whole(0, 255)
_RATE: Final = real(0, 0.999999, rule="lie in [0, 1)")

# What each field accepts. Weights are held against the sizes afterwards; what has none (strides,
# paddings, pooling) is bounded here alone.
_FIELDS: Final[Mapping[str, Field]] = {
    "num_channels": whole(1, 4096),
    "patch_sizes": _KERNEL,
    "patch_stride": _KERNEL,
    "patch_padding": _PADDING,
    "embed_dim": whole(1, 65_536),
    "num_heads": whole(1, 65_536),
    "depth": whole(1, 256),
    "mlp_ratio": real(0, 256, open_low=True, rule="be a number above 0 and at most 256"),
    "attention_drop_rate": _RATE,
    "drop_rate": _RATE,
    "drop_path_rate": _RATE,
    "qkv_bias": FLAG,
    "cls_token": FLAG,
    "qkv_projection_method": one_of(*PROJECTIONS),
    "kernel_qkv": _KERNEL,
    "padding_kv": _PADDING,
    "stride_kv": _KERNEL,
    "padding_q": _PADDING,
    "stride_q": _KERNEL,
    "initializer_range": real(0, 100),
    "activation": one_of(*ACTIVATIONS),
    "problem_type": one_of(*PROBLEM_TYPES),
    "image_size": whole(1, 65_536),
}
_OPTIONAL: Final = frozenset({"activation", "problem_type", "image_size"})
_PER_STAGE: Final = frozenset(
    field.name for field in dataclasses.fields(CvtConfig) if isinstance(field.default, tuple)
) - {"labels"}
