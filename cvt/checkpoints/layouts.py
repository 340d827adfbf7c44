"""The names of every weight in three code bases: ours, Hugging Face's and Microsoft's.

The layouts are plain renames of each other, without arithmetic. Modules are renamed; what follows
a module's name (weight, bias, running_mean, ...) is the same everywhere.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final, Literal, TypeVar

Layout = Literal["ours", "hugging_face", "microsoft"]
T = TypeVar("T")

_COLUMNS: Final[tuple[Layout, ...]] = ("ours", "hugging_face", "microsoft")
_OUR_BLOCK: Final = "backbone.stages.{s}.blocks.{i}"
_HF_BLOCK: Final = "cvt.encoder.stages.{s}.layers.{i}"
_HF_EMBEDDING: Final = "cvt.encoder.stages.{s}.embedding.convolution_embeddings"
_HF_CONV: Final = "attention.attention.convolution_projection_{p}.convolution_projection"
_MS_BLOCK: Final = "stage{s}.blocks.{i}"

_PER_PROJECTION: Final = (
    ("attn.{p}.spatial.conv", f"{_HF_CONV}.convolution", "attn.conv_proj_{q}.conv"),
    ("attn.{p}.spatial.bn", f"{_HF_CONV}.normalization", "attn.conv_proj_{q}.bn"),
    ("attn.{p}.linear", "attention.attention.projection_{p}", "attn.proj_{q}"),
)
_PER_BLOCK: Final = (
    ("norm1", "layernorm_before", "norm1"),
    *(
        tuple(name.format(p=p, q=p[0]) for name in names)
        for names in _PER_PROJECTION
        for p in ("query", "key", "value")
    ),
    ("attn.out", "attention.output.dense", "attn.proj"),
    ("norm2", "layernorm_after", "norm2"),
    ("mlp.fc1", "intermediate.dense", "mlp.fc1"),
    ("mlp.fc2", "output.dense", "mlp.fc2"),
)
# One row per module: ours, Hugging Face's, Microsoft's.
_MODULES: Final = (
    ("backbone.stages.{s}.embed.conv", f"{_HF_EMBEDDING}.projection", "stage{s}.patch_embed.proj"),
    (
        "backbone.stages.{s}.embed.norm",
        f"{_HF_EMBEDDING}.normalization",
        "stage{s}.patch_embed.norm",
    ),
    ("backbone.stages.{s}.cls_token", "cvt.encoder.stages.{s}.cls_token", "stage{s}.cls_token"),
    *((f"{_OUR_BLOCK}.{a}", f"{_HF_BLOCK}.{b}", f"{_MS_BLOCK}.{c}") for a, b, c in _PER_BLOCK),
    ("norm", "layernorm", "norm"),
    ("head", "classifier", "head"),
)
_TAIL: Final = 2  # rows at the end: what follows the backbone
_ROOTS: Final[Mapping[Layout, str]] = {
    "ours": "backbone.stages.",
    "hugging_face": "cvt.encoder.",
    "microsoft": "stage0.",
}


def detect(names: Iterable[str]) -> Layout | None:
    """The layout whose backbone names occur; those of a base model (no prefix) count as well."""
    full = [with_prefix(name) for name in names]
    return next((k for k, root in _ROOTS.items() if any(n.startswith(root) for n in full)), None)


def is_backbone(name: str) -> bool:
    """Whether a backbone's weight has this name in some layout, with or without its prefix."""
    return _backbone().fullmatch(with_prefix(name)) is not None


def with_prefix(name: str) -> str:
    """A classification model's name for a weight that may come from a base model."""
    if name.startswith("encoder.stages."):
        return f"cvt.{name}"
    return f"backbone.{name}" if name.startswith("stages.") else name


def translate(state: Mapping[str, T], source: Layout, target: Layout) -> dict[str, T]:
    """The same values under another layout's names; a name without a counterpart is kept."""
    return {rename(with_prefix(name), source, target): value for name, value in state.items()}


def rename(name: str, source: Layout, target: Layout) -> str:
    """One name, prefix included, under another layout; itself if it has no counterpart."""
    for pattern, template in _rules(source, target):
        if match := pattern.fullmatch(name):
            return template.format(**match.groupdict()) + match["leaf"]
    return name


@cache
def _rules(source: Layout, target: Layout) -> list[tuple[re.Pattern[str], str]]:
    """Pairs of a pattern for the source name and a template for the target name."""
    a, b = _COLUMNS.index(source), _COLUMNS.index(target)
    return [(_pattern(row[a]), row[b]) for row in _MODULES]


@cache
def _backbone() -> re.Pattern[str]:
    names = (re.escape(name) for row in _MODULES[:-_TAIL] for name in row)
    modules = "|".join(names).replace(r"\{s\}", r"\d{1,4}").replace(r"\{i\}", r"\d{1,4}")
    return re.compile(rf"(?:{modules})(?:\.\w+)?")


def _pattern(template: str) -> re.Pattern[str]:
    fields = re.escape(template).replace(r"\{s\}", r"(?P<s>\d+)").replace(r"\{i\}", r"(?P<i>\d+)")
    return re.compile(fields + r"(?P<leaf>(\.\w+)?)")
