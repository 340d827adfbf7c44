"""The settings of a run's output."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from pipeline.contract.errors import UsageError
from pipeline.contract.layout import LANCE
from pipeline.contract.spec.settings import About, check_output, check_settings, setting

EmbeddingDtype = Literal["float32", "float16"]
Pooling = Literal["cls_norm", "cls", "mean"]
Scores = Literal["softmax", "sigmoid", "logits"]
Sink = Literal["parquet", "lance"]

DEFAULT_TOP_K = 5
"""How many labels a command writes unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """Which columns a row gets, and where the rows go."""

    uri: str = field(
        metadata=About("directory or URI of the results", metavar="OUT", flag="--output").metadata
    )
    top_k: int | None = setting(
        None, "how many labels a row gets, best first", metavar="K", at_least=1
    )
    scores: Scores | None = setting(
        None, "what the logits become (default: according to the checkpoint's problem type)"
    )
    thresholds: float | dict[str, float] | None = setting(
        None,
        "lowest score that puts a class into `labels`: one for all, or by label (*: all others)",
        metavar="T|FILE.json",
    )
    embeddings: bool = setting(False, "also write embeddings", flag="--with-embeddings")
    pooling: Pooling = setting(
        "cls_norm",
        "what the embedding is: LayerNorm(class token), the class token itself, or the mean of "
        "the last stage but one",
    )
    normalize: bool = setting(False, "scale embeddings to length 1", negatable=True)
    embedding_dtype: EmbeddingDtype = setting("float32", "number type of the embeddings")
    rows_per_file: int | None = setting(
        None,
        "rows per published file (default: as many as make about 256 MiB)",
        metavar="N",
        at_least=1,
    )
    review: int = setting(
        50,
        "how many images of each kind to show to a person: uncertain, unlike earlier ones, near a "
        "threshold, and drawn by lot; 0 for no review page",
        metavar="K",
        at_least=0,
    )
    sink: Sink = setting(
        "parquet", f"lance: also keep the newest row of every image in OUT/{LANCE}"
    )

    def __post_init__(self) -> None:
        check_settings(self, "output")
        check_output(self.uri)
        if self.top_k is None and not self.embeddings:
            raise UsageError(
                "nothing to write: give <output.top_k> for labels, <output.embeddings>, or both"
            )
        if self.thresholds is not None and self.top_k is None:
            raise UsageError("<output.thresholds> needs labels; give <output.top_k> too")
        check_thresholds(self.thresholds)


def check_thresholds(thresholds: float | dict[str, float] | None) -> None:
    """Refuse scores that are not finite.

    Raises:
        UsageError: one is not; the message names its label.
    """
    if isinstance(thresholds, dict):
        for label, value in thresholds.items():
            if not math.isfinite(value):
                raise UsageError(
                    f"<output.thresholds> for {label!r} is {value}; it must be a finite number"
                )
    elif thresholds is not None and not math.isfinite(thresholds):
        raise UsageError(f"<output.thresholds> is {thresholds}; it must be a finite number")
