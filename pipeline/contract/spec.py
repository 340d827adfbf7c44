"""Everything that defines a run, as one tree of frozen dataclasses, validated on construction."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from pipeline.contract.errors import ERROR_CODES, UsageError

InputFormat = Literal["auto", "images", "webdataset", "parquet", "list", "inventory"]
DecodeMode = Literal["exact", "fast", "draft"]
Dtype = Literal["float32", "bfloat16", "float16"]
Runtime = Literal["torch", "openvino"]
EmbeddingDtype = Literal["float32", "float16"]
Activation = Literal["gelu", "quick_gelu"]
Scores = Literal["softmax", "sigmoid", "logits"]
Sink = Literal["parquet", "lance"]
Pooling = Literal["cls_norm", "cls", "mean"]

IMAGE_EXTENSIONS = ("jpg", "jpeg", "jfif", "png", "webp", "avif", "gif", "bmp", "tif", "tiff")
"""Extensions that make a listed object an image."""

_EXTENSION = re.compile(r"[^\s./,]+(\.[^\s./,]+)*")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):[0-5]\d")

PILLOW_PIXEL_LIMIT = 89_478_485
"""Pillow's own limit for a decompression bomb: 1 GiB / 4 / 3 pixels."""


def suffixes(extensions: Iterable[str]) -> tuple[str, ...]:
    """Extensions as the endings of lower-case names."""
    return tuple(f".{extension.lower()}" for extension in extensions)


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise UsageError(f"{name} is {value}; it must be a number")


def _one_of(name: str, value: object, accepted: Any) -> None:
    if value not in get_args(accepted):
        raise UsageError(f"{name} is {value!r}; accepted: {', '.join(get_args(accepted))}")


def _at_least(name: str, value: float | None, minimum: float) -> None:
    if value is not None and not value >= minimum:  # NaN is no number of anything
        raise UsageError(f"{name} is {value}; it must be {minimum} or more")


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Where the images are."""

    uris: tuple[str, ...]
    """Directories, prefixes, globs, single files: local paths or fsspec URIs."""
    format: InputFormat = "auto"
    """What an INPUT is; "auto" goes by the names, and takes images and shards of a directory."""
    extensions: tuple[str, ...] = IMAGE_EXTENSIONS
    """Of images, in directories and in tars; without a dot."""
    uri_column: str | None = None
    """Column of a list that names the images; None takes the first usual name."""
    image_column: str | None = None
    """Column of Parquet files that holds the images; None takes the first usual name."""
    keep: tuple[str, ...] = ()
    """Columns of the input that are carried along; "*" for all."""
    allow_private_urls: bool = False
    """Fetch http(s) images also from addresses that the internet does not reach."""
    max_pixels: int = PILLOW_PIXEL_LIMIT
    """Images with more pixels than this, by their header, are not decoded."""
    max_bytes: int = 512 * 2**20
    """Encoded images larger than this are not fetched."""

    def __post_init__(self) -> None:
        if not self.uris:
            raise UsageError("no INPUT given: name a directory, prefix, glob, file or shard")
        if not all(self.uris):  # an unset shell variable would mean the working directory
            raise UsageError("an INPUT is empty: name a directory, prefix, glob, file or shard")
        _one_of("--input-format", self.format, InputFormat)
        for extension in self.extensions:
            if not _EXTENSION.fullmatch(extension):
                raise UsageError(f"--extensions: {extension!r} is none; give e.g. jpg,png,heif")
        if not self.extensions:
            raise UsageError("--extensions is empty; give e.g. jpg,png,heif")
        _at_least("--max-pixels", self.max_pixels, 1)
        _at_least("--max-bytes", self.max_bytes, 1)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which network computes, and in which arithmetic."""

    source: str
    """Anything that ``CvtForImageClassification.from_pretrained`` takes."""
    activation: Activation | None = None
    """Overrides the checkpoint's convention."""
    image_size: int | None = None
    """Overrides the size in preprocessor_config.json."""
    dtype: Dtype = "float32"
    runtime: Runtime = "torch"
    """What runs the network; openvino is an extra, and faster on Intel's and AMD's CPUs."""
    decode: DecodeMode = "fast"
    """Bit-equal to the reference, within two grey levels of it, or large JPEGs at reduced scale."""

    def __post_init__(self) -> None:
        if not self.source:
            raise UsageError("--model is empty: name a checkpoint directory, file, URI or hub name")
        _one_of("--dtype", self.dtype, Dtype)
        _one_of("--runtime", self.runtime, Runtime)
        if self.runtime == "openvino" and self.dtype == "float16":
            raise UsageError("--runtime openvino has no float16; --dtype bfloat16 is as small")
        _one_of("--decode", self.decode, DecodeMode)
        if self.activation is not None:
            _one_of("--activation", self.activation, Activation)
        _at_least("--image-size", self.image_size, 3)


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """Which columns a row gets, and where the rows go."""

    uri: str
    top_k: int | None = None
    """How many labels; None for no label columns."""
    scores: Scores | None = None
    """What the scores are; None lets the checkpoint's problem type decide."""
    thresholds: float | dict[str, float] | None = None
    """Score from which on a class stands in ``labels``: one for all, or by label ("*": others)."""
    embeddings: bool = False
    pooling: Pooling = "cls_norm"
    """LayerNorm(class token), the class token itself, or the mean of the last stage but one."""
    normalize: bool = False
    """Scale embeddings to length 1."""
    embedding_dtype: EmbeddingDtype = "float32"
    rows_per_file: int | None = None
    """Rows of a published file; None sizes files to about 256 MiB."""
    review: int = 50
    """How many of the most uncertain images, and of those most unlike earlier ones, to list."""
    sink: Sink = "parquet"
    """"lance" also keeps the newest row of every image in a Lance dataset."""

    def __post_init__(self) -> None:
        if not self.uri:
            raise UsageError("--output is empty: name a directory or an fsspec URI")
        if self.top_k is None and not self.embeddings:
            raise UsageError("nothing to write: ask for labels, embeddings or both")
        self._check_thresholds()
        _at_least("--top-k", self.top_k, 1)
        _at_least("--rows-per-file", self.rows_per_file, 1)
        _at_least("--review", self.review, 0)
        if self.scores is not None:
            _one_of("--scores", self.scores, Scores)
        _one_of("--pooling", self.pooling, Pooling)
        _one_of("--embedding-dtype", self.embedding_dtype, EmbeddingDtype)
        _one_of("--sink", self.sink, Sink)

    def _check_thresholds(self) -> None:
        if self.thresholds is None:
            return
        if self.top_k is None:
            raise UsageError("--thresholds choose among labels; ask for labels too (--with-labels)")
        if isinstance(self.thresholds, dict):
            for label, value in self.thresholds.items():
                _finite(f"--thresholds for {label!r}", value)
        else:
            _finite("--thresholds", self.thresholds)


@dataclass(frozen=True, kw_only=True)
class ComputeSpec:
    """How much of the cluster the run takes; None is chosen from what the cluster has."""

    num_gpus: float | None = None
    """GPUs of the whole run; 0 computes on CPUs."""
    num_actors: int | None = None
    """Model replicas; by default one per GPU, or as many as the CPUs carry."""
    num_cpus_per_actor: int = 1
    """On CPUs: threads of one model replica."""
    batch_size: int | None = None
    """Images per forward pass; by default 64 on a GPU, 8 on a CPU."""
    # The run ends when the last actor has done its last block, and begins to show rows after its
    # first: 1.6 s at 20 images/s a core. A block costs Ray some 17 ms, half a millisecond an image.
    block_size: int = 32
    """Images per block of the data flow."""

    def __post_init__(self) -> None:
        _at_least("--num-gpus", self.num_gpus, 0)
        _at_least("--num-actors", self.num_actors, 1)
        _at_least("--num-cpus-per-actor", self.num_cpus_per_actor, 1)
        _at_least("--batch-size", self.batch_size, 1)
        _at_least("--block-size", self.block_size, 1)


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """What counts as done, and what as failed."""

    max_failure_rate: float = 0.1
    """Share of this run's images that may fail before the exit code is 3."""
    fail_on_drift: bool = False
    """Exit with code 3 when the run differs from earlier ones by more than a threshold."""
    full: bool = False
    """Do everything again; this run replaces all earlier ones."""
    allow_mixed: bool = False
    """Accept earlier runs of another model as done."""
    retry_failed: tuple[str, ...] = ()
    """Error codes of earlier rows that are tried again."""
    discard_open_run: bool = False
    """Throw away what an unfinished run has done."""
    reuse_content: bool = False
    """Copy the numbers of an earlier image with the same bytes instead of computing them again."""
    max_seconds: float | None = None
    """Stop feeding after this time, commit what is done, and leave the rest to the next run."""
    deadline: str | None = None
    """The same at the next HH:MM of the local clock."""

    def __post_init__(self) -> None:
        if unknown := set(self.retry_failed) - ERROR_CODES:
            raise UsageError(
                f"--retry-failed names no error code: {', '.join(sorted(unknown))}; "
                f"accepted: {', '.join(sorted(ERROR_CODES))}"
            )
        _at_least("--max-seconds", self.max_seconds, 0)
        if self.deadline is not None and not _CLOCK.fullmatch(self.deadline):
            raise UsageError(f"--deadline is {self.deadline!r}; it is a time of day, HH:MM")
        if not 0 <= self.max_failure_rate <= 1:
            raise UsageError(
                f"--max-failure-rate is {self.max_failure_rate}; it is a share, 0 to 1"
            )

    def stop_at(self, now: float) -> float | None:
        """When to stop feeding, in seconds since the epoch like ``now``; None for never."""
        limits = []
        if self.max_seconds is not None:
            limits.append(now + self.max_seconds)
        if self.deadline is not None:
            hour, minute = map(int, self.deadline.split(":"))
            start = datetime.fromtimestamp(now)
            end = start.replace(hour=hour, minute=minute, second=0, microsecond=0)
            limits.append((end if end > start else end + timedelta(days=1)).timestamp())
        return min(limits, default=None)


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run, whole: what comes in, what computes, what goes out."""

    inputs: InputSpec
    model: ModelSpec
    output: OutputSpec
    compute: ComputeSpec = field(default_factory=ComputeSpec)
    policy: PolicySpec = field(default_factory=PolicySpec)

    def __post_init__(self) -> None:
        if self.output.sink == "lance" and self.policy.allow_mixed:
            raise UsageError(
                "--sink lance excludes --allow-mixed: embeddings of two models are no neighbours; "
                "--full redoes everything with the new one"
            )

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON types, for the manifest."""
        return dataclasses.asdict(self)
