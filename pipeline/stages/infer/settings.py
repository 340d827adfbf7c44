"""What an actor computes, and on which hardware."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.contract.errors import UsageError
from pipeline.contract.schema import result_schema
from pipeline.contract.spec import ComputeSpec, EmbeddingDtype
from pipeline.model.loaded import LoadedModel
from pipeline.model.network import DevicePreprocessing
from pipeline.monitoring.review.queue import ReviewQueue
from pipeline.stages.allocation import Allocation
from pipeline.stages.watching.progress import Reporter


@dataclass(frozen=True, kw_only=True)
class InferSettings:
    """What an actor computes, and on which hardware."""

    gpus: float = 0.0
    """Its share of GPUs; 0 on a CPU."""
    threads: int = 1
    """On a CPU."""
    calls: int = 1
    """Batches in hand at a time."""
    batch_size: int
    """Images per call; the last call of a block may have fewer."""
    find_batch_size: bool = False
    """On a GPU: compute in smaller batches if they are about as fast."""
    compile: bool = False
    """On a GPU."""
    preprocessing: DevicePreprocessing | None = None
    """Of JPEG files that the GPU decodes; None if all images arrive as pixels."""
    columns: tuple[pa.Field, ...]
    """The columns to write beside those that describe the image."""
    top_k: int
    scores: str
    thresholds: tuple[float, ...]
    """The lowest score at which a class is listed, by class; empty for no ``labels`` column."""
    normalize: bool
    embedding_dtype: EmbeddingDtype
    review: ReviewQueue | None = None
    """Of the run: which images may be shown to a person; None if none are."""
    reporter: Reporter = field(default_factory=Reporter)

    @classmethod
    def of_run(
        cls, model: LoadedModel, compute: ComputeSpec, allocation: Allocation, **state: Any
    ) -> InferSettings:
        """Settings for a run; ``state`` holds the fields that are decided at its start.

        Raises:
            UsageError: the runtime has no GPUs, or the dtype needs some.
        """
        return cls.of(
            model,
            gpus=allocation.actor_gpus,
            threads=allocation.actor_threads,
            calls=allocation.actor_calls,
            batch_size=allocation.batch_size,
            find_batch_size=compute.batch_size == "auto",
            **state,
        )

    @classmethod
    def of(cls, model: LoadedModel, *, gpus: float, **hardware: Any) -> InferSettings:
        """Settings for a model; ``hardware`` holds the fields that do not depend on the model.

        Raises:
            UsageError: the runtime has no GPUs, or the dtype needs some.
        """
        if not gpus and model.dtype == "tf32":
            raise UsageError("<model.dtype> tf32 needs GPUs, and this run has none; use float32")
        if gpus and model.runtime == "openvino":
            raise UsageError(
                "<model.runtime> openvino runs only on CPUs; drop it or set <compute.num_gpus> to 0"
            )
        if not gpus and model.device_preprocessing:
            raise UsageError("<model.decode> gpu needs GPUs, and this run has none; use fast")
        described = len(result_schema(labels=False, thresholds=False, embedding=None))
        return cls(
            gpus=gpus,
            preprocessing=model.device_preprocessing,
            columns=tuple(model.schema)[described:],
            top_k=model.output.top_k or 1,
            scores=model.scores,
            thresholds=model.thresholds,
            normalize=model.output.normalize,
            embedding_dtype=model.output.embedding_dtype,
            **hardware,
        )
