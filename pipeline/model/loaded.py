"""The network of a run: loaded once, on the driver, with everything that names its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import torch

from pipeline.contract.errors import UsageError
from pipeline.contract.provenance import Identity, Provenance
from pipeline.contract.schema import result_schema
from pipeline.contract.spec import Dtype, OutputSpec, RunSpec, Runtime
from pipeline.contract.urls import public
from pipeline.model.arithmetic import Arithmetic
from pipeline.model.bundle import ModelBundle
from pipeline.model.families.registry import load_checkpoint
from pipeline.model.label_columns import check_threshold_names, class_thresholds
from pipeline.model.network import DTYPES, Checkpoint, DevicePreprocessing, Form, Preprocessing
from pipeline.model.self_check import GoldenBatch
from pipeline.output.identity import fingerprinted, short_hash
from pipeline.storage.uris import printable

_SMALL = 2**26
"""Parameters of a network that computes two images on one thread within a second."""
_ARROW_FLOATS = {"float32": pa.float32(), "float16": pa.float16()}


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint, and what a run makes of it."""

    checkpoint: Checkpoint
    provenance: Provenance
    arithmetic: Arithmetic
    runtime: Runtime
    """No part of the provenance: like CPU and GPU, the runtimes give the same numbers, to within
    what the self-check of every actor allows at its dtype."""
    output: OutputSpec

    @classmethod
    def load(cls, spec: RunSpec, dtype: Dtype) -> LoadedModel:
        """Read weights and preprocessing, to compute in ``dtype`` whatever the spec says.

        Raises:
            UsageError: the checkpoint cannot be read, or has not what the output asks for.
        """
        return cls.of(read_checkpoint(spec), spec, Arithmetic(dtype))

    @classmethod
    def of(cls, checkpoint: Checkpoint, spec: RunSpec, arithmetic: Arithmetic) -> LoadedModel:
        """What a run makes of a checkpoint that was read for it."""
        provenance = Provenance(
            model=printable(public(spec.model.source)),
            weights_sha256=checkpoint.weights_sha256,
            activation=checkpoint.activation,
            preprocessing=checkpoint.preprocessing.to_dict() | {"decode": spec.model.decode},
            pooling=spec.output.pooling,
            normalize=spec.output.normalize,
            dtype=arithmetic.dtype,
        )
        return cls(
            checkpoint, fingerprinted(provenance), arithmetic, spec.model.runtime, spec.output
        )

    @property
    def dtype(self) -> Dtype:
        """What the actors compute in."""
        return self.arithmetic.dtype

    @property
    def preprocessing(self) -> Preprocessing:
        """What a decode task makes of an image's bytes."""
        return self.checkpoint.preprocessing

    @property
    def device_preprocessing(self) -> DevicePreprocessing | None:
        """What an actor makes of JPEG files; None if it gets none."""
        preprocessing = self.checkpoint.preprocessing
        decodes = self.provenance.preprocessing["decode"] == "gpu"
        return preprocessing if decodes and isinstance(preprocessing, DevicePreprocessing) else None

    @property
    def weights_bytes(self) -> int:
        """As an actor computes with them."""
        return self._parameters * DTYPES[self.dtype].itemsize

    @property
    def _parameters(self) -> int:
        return sum(array.size for array in self.checkpoint.arrays.values())

    @property
    def form(self) -> Form:
        """How the actors compute."""
        return Form(dtype=self.dtype, runtime=self.runtime, pooling=self.output.pooling)

    @property
    def scores(self) -> str:
        """What was asked for, or what the problem type of the checkpoint means."""
        return self.output.scores or self.checkpoint.default_scores

    @property
    def classes(self) -> list[str]:
        """Names by ``label_id``."""
        return list(self.checkpoint.classes)

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
            width = self.checkpoint.embedding_width(self.output.pooling)
            embedding = pa.list_(_ARROW_FLOATS[self.output.embedding_dtype], width)
        return result_schema(
            labels=self.output.top_k is not None,
            thresholds=bool(self.thresholds),
            embedding=embedding,
        )

    @property
    def identity(self) -> Identity:
        """What must agree between rows of one table: the numbers' origin and their columns."""
        origin = self.provenance.to_dict()
        del origin["model"]
        output = self.output
        return Identity(
            **origin,
            classes_sha256=short_hash("\n".join(self.classes)),
            scores=self.scores if output.top_k is not None else None,
            top_k=output.top_k,
            thresholds=self.thresholds,
            embedding=str(self.schema.field("embedding").type) if output.embeddings else None,
        )

    def pack(self) -> ModelBundle:
        """What the actors get; some seconds of work with the runtime openvino."""
        with _one_thread(is_enough=self._parameters < _SMALL):
            golden = GoldenBatch.compute(self.checkpoint, self.output.pooling)
            network = self.checkpoint.pack(self.form)
        return ModelBundle(network, self.form, golden, self.checkpoint.classes)


def read_checkpoint(spec: RunSpec) -> Checkpoint:
    """Read weights and preprocessing.

    Raises:
        UsageError: they cannot be read, or have not what the output asks for.
    """
    _check_runtime(spec.model.runtime)
    with _one_thread():
        checkpoint = load_checkpoint(spec.model)
    if spec.model.decode == "gpu":
        _check_device_preprocessing(checkpoint)
    _check(checkpoint, spec.output)
    return checkpoint


@contextmanager
def _one_thread(*, is_enough: bool = True) -> Iterator[None]:
    """Have PyTorch do with one thread what several would mostly wait for each other in, busily: on
    cores that have other work, and Ray starts beside, that takes five times the CPU time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if is_enough else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_runtime(runtime: Runtime) -> None:
    if runtime == "openvino" and find_spec("openvino") is None:
        raise UsageError("<model.runtime> openvino needs packages: pip install openvino nncf")


def _check_device_preprocessing(checkpoint: Checkpoint) -> None:
    if not isinstance(checkpoint.preprocessing, DevicePreprocessing):
        raise UsageError(
            "<model.decode> gpu is not for this family of models; use <model.decode> fast"
        )


def _check(checkpoint: Checkpoint, output: OutputSpec) -> None:
    """Refuse what the network cannot give, before anything else is done."""
    for name, array in checkpoint.arrays.items():
        if not np.isfinite(array).all():
            raise UsageError(f"the checkpoint's weights hold NaN or infinity, as in {name}")
    if output.top_k is not None and not checkpoint.classes:
        raise UsageError(
            "the checkpoint has no classifier; ask for embeddings alone, as jobs.embed without "
            "--with-labels does"
        )
    checkpoint.embedding_width(output.pooling)
    check_threshold_names(output.thresholds, checkpoint.classes)
