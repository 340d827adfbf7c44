"""The shape of a CvT: a frozen dataclass that reads and writes Hugging Face's config.json."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from cvt.errors import ConfigError

PROJECTIONS: Final = ("dw_bn", "avg", "linear")
ACTIVATIONS: Final = ("gelu", "quick_gelu")
PROBLEM_TYPES: Final = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)

# How the published models differ from the defaults below, which are CvT-13 (paper, table 2).
PRESETS: Final[Mapping[str, Mapping[str, tuple[float, ...]]]] = {
    "cvt-13": {},
    "cvt-21": {"depth": (1, 4, 16)},
    "cvt-w24": {
        "embed_dim": (192, 768, 1024),
        "num_heads": (3, 12, 16),
        "depth": (2, 2, 20),
        "drop_path_rate": (0.0, 0.0, 0.3),
    },
}


def default_labels(count: int) -> tuple[str, ...]:
    """The placeholder names LABEL_0, LABEL_1, ... that transformers uses."""
    return tuple(f"LABEL_{i}" for i in range(count))


@dataclass(frozen=True, kw_only=True)
class CvtConfig:
    """A CvT's architecture, one tuple entry per stage. The defaults are CvT-13 with 1000 classes.

    Field names are those of transformers' CvtConfig, except ``activation`` ("hidden_act" in
    config.json, which transformers ignores for CvT) and ``labels`` ("id2label").

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

    def __post_init__(self) -> None:
        self._check_stages()
        for s in range(self.num_stages):
            self._check_stage(s)
        if self.activation is not None:
            _check_choice("activation", self.activation, ACTIVATIONS)
        if self.problem_type is not None:
            _check_choice("problem_type", self.problem_type, PROBLEM_TYPES)

    def _check_stages(self) -> None:
        for name in _PER_STAGE:
            value = getattr(self, name)
            if not isinstance(value, tuple) or len(value) != self.num_stages or not value:
                raise ConfigError(
                    f"{name} must have one value per stage ({self.num_stages}, as depth has), "
                    f"not {value!r}"
                )

    def _check_stage(self, s: int) -> None:
        width, heads = self.embed_dim[s], self.num_heads[s]
        if min(width, heads, self.depth[s]) < 1 or width % heads:
            raise ConfigError(
                f"stage {s}: embed_dim {width} must be a positive multiple of num_heads {heads}, "
                f"and depth {self.depth[s]} at least 1"
            )
        method = self.qkv_projection_method[s]
        _check_choice("qkv_projection_method", method, PROJECTIONS)
        same_size = self.stride_q[s] == 1 and 2 * self.padding_q[s] == self.kernel_qkv[s] - 1
        if method == "dw_bn" and not same_size:
            raise ConfigError(
                f"stage {s}: the query projection must keep the map's size: stride_q 1 and "
                f"padding_q (kernel_qkv - 1) / 2, not {self.stride_q[s]} and {self.padding_q[s]}"
            )
        for name in ("attention_drop_rate", "drop_rate", "drop_path_rate"):
            if not 0 <= (rate := getattr(self, name)[s]) < 1:
                raise ConfigError(f"stage {s}: {name} must lie in [0, 1), not {rate}")

    @property
    def num_stages(self) -> int:
        """How many stages the network has; three in every published model."""
        return len(self.depth)

    @property
    def mean_stage(self) -> int:
        """The stage whose map the pooling "mean" uses by default: the last but one."""
        return max(self.num_stages - 2, 0)

    @property
    def num_labels(self) -> int:
        """How many classes the head distinguishes; 0 means that there is no head."""
        return len(self.labels)

    @property
    def id2label(self) -> dict[int, str]:
        """Class names by the index of their logit."""
        return dict(enumerate(self.labels))

    @property
    def label2id(self) -> dict[str, int]:
        """Indices of the logits by class name."""
        return {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def from_preset(cls, name: str) -> Self:
        """The configuration of a published model with 1000 classes, named in PRESETS."""
        _check_choice("preset", name, tuple(PRESETS))
        return cls(**PRESETS[name])  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that a config.json describes.

        Unknown, legacy and dead keys are ignored (layer_norm_eps among them: transformers never
        reads it); an absent key takes its default here, as in transformers.
        """
        if (kind := values.get("model_type", "cvt")) != "cvt":
            raise ConfigError(f'model_type must be "cvt", not {kind!r}: this is not a CvT')
        known = {f.name for f in dataclasses.fields(cls)} - {"labels", "activation"}
        given = {k: _frozen(v) for k, v in values.items() if k in known and v is not None}
        if isinstance(given.get("image_size"), tuple):
            given["image_size"] = given["image_size"][0]
        return cls(**given, activation=values.get("hidden_act"), labels=_labels(values))

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


_PER_STAGE = tuple(
    f.name
    for f in dataclasses.fields(CvtConfig)
    if isinstance(f.default, tuple) and f.name != "labels"
)


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{field} must be one of {', '.join(choices)}, not {value!r}")


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _labels(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names from id2label; without it transformers assumes ``num_labels``, or two."""
    names = values.get("id2label")
    if names is None:
        return default_labels(int(values.get("num_labels") or 2))
    by_index = {int(i): str(label) for i, label in names.items()}
    if sorted(by_index) != list(range(len(by_index))):
        raise ConfigError("id2label must name every class from 0 to N-1 exactly once")
    return tuple(by_index[i] for i in range(len(by_index)))
