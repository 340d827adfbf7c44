"""Everything that defines a run, as one tree of frozen dataclasses, validated on construction."""

from pipeline.contract.spec.compute import ComputeSpec, PoolSize
from pipeline.contract.spec.finetune import FinetuneSpec
from pipeline.contract.spec.inputs import (
    FIRST_EXTENSIONS,
    IMAGE_COLUMNS,
    IMAGE_EXTENSIONS,
    LISTED_PROTOCOLS,
    PILLOW_PIXEL_LIMIT,
    SHARD_SUFFIXES,
    URI_COLUMNS,
    InputFormat,
    InputSpec,
    suffixes,
)
from pipeline.contract.spec.model import (
    Activation,
    CpuDecodeMode,
    DecodeMode,
    Dtype,
    DtypeChoice,
    ModelSpec,
    Runtime,
    has_dtype,
)
from pipeline.contract.spec.output import (
    DEFAULT_TOP_K,
    EmbeddingDtype,
    OutputSpec,
    Pooling,
    Scores,
    Sink,
)
from pipeline.contract.spec.policy import PolicySpec
from pipeline.contract.spec.relabel import CompactSpec, CorrectionsSpec, RelabelSpec, Tool
from pipeline.contract.spec.run import SECTIONS, SETTINGS, RunSpec
from pipeline.contract.spec.settings import About, Setting, check_settings, setting, settings

__all__ = [
    "DEFAULT_TOP_K",
    "FIRST_EXTENSIONS",
    "IMAGE_COLUMNS",
    "IMAGE_EXTENSIONS",
    "LISTED_PROTOCOLS",
    "PILLOW_PIXEL_LIMIT",
    "SECTIONS",
    "SETTINGS",
    "SHARD_SUFFIXES",
    "URI_COLUMNS",
    "About",
    "Activation",
    "CompactSpec",
    "ComputeSpec",
    "CorrectionsSpec",
    "CpuDecodeMode",
    "DecodeMode",
    "Dtype",
    "DtypeChoice",
    "EmbeddingDtype",
    "FinetuneSpec",
    "InputFormat",
    "InputSpec",
    "ModelSpec",
    "OutputSpec",
    "PolicySpec",
    "PoolSize",
    "Pooling",
    "RelabelSpec",
    "RunSpec",
    "Runtime",
    "Scores",
    "Setting",
    "Sink",
    "Tool",
    "check_settings",
    "has_dtype",
    "setting",
    "settings",
    "suffixes",
]
