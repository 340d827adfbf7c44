"""The settings of a run's model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipeline.contract.errors import UsageError
from pipeline.contract.spec.settings import About, check_settings, setting

Activation = Literal["gelu", "quick_gelu"]
CpuDecodeMode = Literal["exact", "fast", "draft"]
DecodeMode = Literal[CpuDecodeMode, "gpu"]
"""How images become pixels; "gpu" is "fast" for files that a GPU does not decode."""
Dtype = Literal["float32", "tf32", "bfloat16", "float16"]
"""What a network computes in; tf32 is float32 whose products GPUs round."""
DtypeChoice = Literal["auto", Dtype]
"""What can be asked for."""
Runtime = Literal["torch", "openvino"]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which network computes, and in which arithmetic."""

    source: str = field(
        metadata=About(
            "checkpoint: directory, file, URI or hub name", metavar="SOURCE", flag="--model"
        ).metadata
    )
    shadow: str | None = setting(
        None,
        "a second model, or MODELS, that looks at the same images: where it says something else, "
        "the report and shadow.parquet have it, and the table nothing",
        metavar="CHALLENGER",
    )
    activation: Activation | None = setting(None, "override the checkpoint's convention")
    image_size: int | None = setting(
        None, "override the size in preprocessor_config.json", metavar="S", at_least=3
    )
    dtype: DtypeChoice = setting(
        "auto",
        "arithmetic of the model; auto: what the output has, and for a new one bfloat16 where the "
        "hardware has it, else float32",
    )
    runtime: Runtime = setting(
        "torch", "what runs the model; openvino, an extra, is faster on CPUs"
    )
    decode: DecodeMode = setting(
        "fast",
        "exact: bit-equal to the reference; fast: within 2 grey levels, twice as fast; draft: the "
        "same, and large JPEGs at reduced scale; gpu: JPEGs on the GPU, within 3 grey levels on "
        "average, which needs torchvision with nvJPEG",
    )

    def __post_init__(self) -> None:
        check_settings(self, "model")
        if not self.source:
            raise UsageError(
                "<model.source> is empty: name a checkpoint directory, file, URI or hub name"
            )
        if self.shadow == "":
            raise UsageError("<model.shadow> is empty: name a checkpoint, or drop it")
        if self.decode == "gpu" and self.runtime == "openvino":
            raise UsageError(
                "<model.decode> gpu needs GPUs, and <model.runtime> openvino runs on CPUs; drop one"
            )
        if self.dtype != "auto" and not has_dtype(self.runtime, self.dtype):
            instead = "bfloat16 is as small" if self.dtype == "float16" else "float32 is near it"
            raise UsageError(
                f"<model.runtime> {self.runtime} has no {self.dtype}; <model.dtype> {instead}"
            )


def has_dtype(runtime: Runtime, dtype: Dtype) -> bool:
    """Whether a runtime computes in a dtype, on hardware that does."""
    return runtime == "torch" or dtype in ("float32", "bfloat16")
