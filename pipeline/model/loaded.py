"""The network of a run: loaded once, on the driver, with everything that names its numbers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa

from cvt import (
    CheckpointError,
    ConfigError,
    CvtConfig,
    CvtForImageClassification,
    CvtImageProcessor,
    default_scores,
    weights_hash,
)
from cvt.preprocessing.processor import size_mismatch
from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.schema import NO_COLUMNS, result_schema
from pipeline.contract.spec import Dtype, ModelSpec, OutputSpec, RunSpec, Runtime
from pipeline.model.bundle import ModelBundle
from pipeline.model.label_columns import check_threshold_names, class_thresholds
from pipeline.output.identity import Provenance, short_hash
from pipeline.sources.kept_columns import kept_columns

log = logging.getLogger(__name__)

_ARROW_FLOATS = {"float32": pa.float32(), "float16": pa.float16()}


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint, ready to be shared with the actors."""

    bundle: ModelBundle
    provenance: Provenance
    dtype: Dtype
    runtime: Runtime
    """No part of the provenance: like CPU and GPU, the runtimes give the same numbers, to within
    what the self-check of every actor allows at its dtype."""
    output: OutputSpec
    kept: pa.Schema = NO_COLUMNS
    """Columns of the input that stand in the output as well."""

    @classmethod
    def load(cls, spec: RunSpec) -> LoadedModel:
        """Read weights and preprocessing.

        Raises:
            UsageError: the checkpoint cannot be read, or has not what the output asks for; or the
                input has not what is to be kept of it.
        """
        _check_runtime(spec.model.runtime)
        model, processor = _read(spec.model)
        _check(model.config, spec.output)
        if not processor.do_resize:
            raise UsageError("the preprocessing does not resize; a batch needs images of one size")
        provenance = Provenance(
            model=spec.model.source,
            weights_sha256=weights_hash(model),
            activation=model.config.activation or "gelu",
            preprocessing=processor.to_dict() | {"decode": spec.model.decode},
            pooling=spec.output.pooling,
            normalize=spec.output.normalize,
            dtype=spec.model.dtype,
        )
        bundle = ModelBundle.of(model, processor, spec.output.pooling)
        if broken := [n for n, array in bundle.arrays.items() if not np.isfinite(array).all()]:
            raise UsageError(f"the checkpoint's weights hold NaN or infinity, as in {broken[0]}")
        kept = kept_columns(spec.inputs)
        return cls(bundle, provenance, spec.model.dtype, spec.model.runtime, spec.output, kept)

    @property
    def config(self) -> CvtConfig:
        return self.bundle.config

    @property
    def scores(self) -> str:
        """What was asked for, or what the problem type of the checkpoint means."""
        return self.output.scores or default_scores(self.config)

    @property
    def classes(self) -> list[str]:
        """Names by ``label_id``."""
        return [label for _, label in sorted(self.config.id2label.items())]

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Of every class; empty when the run writes no ``labels`` column."""
        if self.output.top_k is None:
            return ()
        return class_thresholds(self.output.thresholds, self.scores, self.classes)

    @property
    def schema(self) -> pa.Schema:
        """Of the published files, but for what is kept of the input."""
        embedding = None
        if self.output.embeddings:
            width = _embedding_width(self.config, self.output)
            embedding = pa.list_(_ARROW_FLOATS[self.output.embedding_dtype], width)
        return result_schema(
            labels=self.output.top_k is not None,
            thresholds=bool(self.thresholds),
            embedding=embedding,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What must agree between rows of one table: the numbers' origin and the columns."""
        comparable = self.provenance.to_dict()
        del comparable["model"]
        if len(self.kept):
            comparable["kept"] = {field.name: str(field.type) for field in self.kept}
        return comparable | {
            "classes_sha256": short_hash("\n".join(self.classes)),
            "scores": self.scores if self.output.top_k is not None else None,
            "top_k": self.output.top_k,
            "thresholds": list(self.thresholds),
            "embedding": str(self.schema.field("embedding").type)
            if self.output.embeddings
            else None,
        }

    def pack(self) -> ModelBundle:
        """What the actors get; some seconds of work with the runtime openvino, else none."""
        if self.runtime == "openvino":
            return self.bundle.converted(self.dtype, self.output.pooling)
        return self.bundle


def _check_runtime(runtime: Runtime) -> None:
    if runtime == "openvino" and find_spec("openvino") is None:
        raise UsageError("--runtime openvino needs: pip install 'cvt-batch[openvino]'")


def _read(spec: ModelSpec) -> tuple[CvtForImageClassification, CvtImageProcessor]:
    try:
        model = CvtForImageClassification.from_pretrained(spec.source, activation=spec.activation)
        processor = CvtImageProcessor.from_pretrained(spec.source, size=spec.image_size)
    except (CheckpointError, ConfigError, OSError) as error:
        raise UsageError(f"cannot load the model: {one_line(error)}") from error
    if complaint := size_mismatch(processor.size, model.config.to_dict(), spec.source):
        log.warning("%s with --image-size", complaint)
    return model, processor


def _check(config: CvtConfig, output: OutputSpec) -> None:
    """Refuse what the network cannot give, before anything else is done."""
    if output.top_k is not None and not config.num_labels:
        raise UsageError("the checkpoint has no classifier; use jobs.embed without --with-labels")
    if output.pooling == "cls" and not config.cls_token[-1]:
        raise UsageError(
            "--pooling cls needs a class token, which this model has not; use cls_norm"
        )
    if output.pooling == "mean" and config.num_stages < 2:
        raise UsageError("--pooling mean is over the last stage but one; this model has one stage")
    check_threshold_names(output.thresholds, list(config.id2label.values()))


def _embedding_width(config: CvtConfig, output: OutputSpec) -> int:
    return config.embed_dim[-2 if output.pooling == "mean" else -1]
