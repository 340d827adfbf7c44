"""The actor: holds one replica of the network, DECODED in, results out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from torch import Tensor
from torch.nn import functional

from cvt import (
    CvtConfig,
    CvtForImageClassification,
    CvtImageProcessor,
    to_scores,
)
from pipeline.columns import label_columns
from pipeline.errors import InferenceError
from pipeline.golden import GoldenBatch
from pipeline.progress import Reporter
from pipeline.schema import PIXELS, Status
from pipeline.spec import Dtype, EmbeddingDtype, Pooling

DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


Forward = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Normalised images (B, 3, S, S) to logits (B, N), the head's input (B, C), embeddings (B, D)."""


@dataclass(frozen=True)
class ModelBundle:
    """A network as plain data. The driver loads it once; Ray's object store shares the arrays
    with every actor of a node, so that no actor downloads weights."""

    config: CvtConfig
    arrays: dict[str, npt.NDArray[Any]]
    processor: CvtImageProcessor
    golden: GoldenBatch

    @classmethod
    def of(cls, model: CvtForImageClassification, processor: CvtImageProcessor) -> ModelBundle:
        arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        return cls(model.config, arrays, processor, GoldenBatch.compute(model, processor))

    def build(self) -> CvtForImageClassification:
        """The network in float32 on the CPU, over the bundle's own memory."""
        return CvtForImageClassification.from_state(self.config, self.arrays)


@dataclass(frozen=True, kw_only=True)
class InferSettings:
    """What an actor computes, on what."""

    dtype: Dtype
    on_gpu: bool
    threads: int
    columns: tuple[pa.Field, ...]
    """What to write beside the columns that describe the image."""
    top_k: int
    scores: str
    thresholds: tuple[float, ...]
    """Score from which on a class counts, by class; empty when nothing is cut."""
    pooling: Pooling
    normalize: bool
    embedding_dtype: EmbeddingDtype
    reporter: Reporter = field(default_factory=Reporter)


@dataclass(frozen=True)
class Predictions:
    """What the network says about a batch, on the host, one row per image."""

    logits: Tensor
    """(B, N) float32."""
    embedding: Tensor
    """(B, C) as it is stored: what is too large for half precision is infinite."""

    def finite(self) -> npt.NDArray[np.bool_]:
        """(B,): which images have numbers only."""
        finite = self.logits.isfinite().all(dim=1) & self.embedding.isfinite().all(dim=1)
        mask: npt.NDArray[np.bool_] = finite.numpy()
        return mask


class Predictor:
    """Callable for ``Dataset.map_batches``: turns decoded images into result rows."""

    def __init__(self, bundle: ray.ObjectRef[ModelBundle], settings: InferSettings) -> None:
        shared: ModelBundle = ray.get(bundle)
        self.settings = settings
        self.processor = shared.processor
        self.labels = pa.array([label for _, label in sorted(shared.config.id2label.items())])
        self.device = torch.device("cuda" if settings.on_gpu else "cpu")
        self.dtype = DTYPES[settings.dtype]
        if not settings.on_gpu:
            torch.set_num_threads(settings.threads)
        self.forward = _forward(shared.build(), settings.pooling, self.dtype, self.device)
        self._check(shared.golden)
        settings.reporter.report(actors=1)

    def __call__(self, batch: pa.Table) -> pa.Table:
        started = time.perf_counter()
        rows = batch.drop_columns(PIXELS.name)
        pixels = _pixels(batch["_pixels"], self.processor.size)
        predictions = self.predict(pixels) if len(pixels) else None
        table = _assemble(rows, predictions, self.labels, self.settings)
        self.settings.reporter.report(
            inferred=table.num_rows - _count(table, Status.DEFERRED),
            failed=_count(table, Status.FAILED),
            infer_seconds=time.perf_counter() - started,
        )
        return table

    def _check(self, golden: GoldenBatch) -> None:
        with torch.inference_mode():
            _, head_input, _ = self.forward(self._normalize(golden.pixels))
        where = torch.cuda.get_device_name(self.device) if self.settings.on_gpu else "the CPU"
        golden.check(head_input.float().cpu().numpy(), self.settings.dtype, where)

    def _normalize(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """(B, 3, S, S) in the run's dtype on the actor's device."""
        host = torch.from_numpy(pixels)
        if self.settings.on_gpu:
            host = host.pin_memory()
        return self.processor.normalize(host.to(self.device, non_blocking=True)).to(self.dtype)

    def predict(self, pixels: npt.NDArray[np.uint8]) -> Predictions:
        """Run the network on uint8 pixels (B, S, S, 3)."""
        with torch.inference_mode():
            logits, _, embedding = self.forward(self._normalize(pixels))
            embedding = embedding.float()
            if self.settings.normalize:
                embedding = functional.normalize(embedding, dim=1)
            stored = embedding.to(DTYPES[self.settings.embedding_dtype])
            return Predictions(logits.float().cpu(), stored.cpu())


def _forward(
    model: CvtForImageClassification, pooling: Pooling, dtype: torch.dtype, device: torch.device
) -> Forward:
    """The network on its device; in the form that runs fast where that has what is asked for."""
    if pooling == "cls_norm":
        fast = model.optimize(dtype=dtype, device=device)

        def head(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            out = fast(values)
            return out.logits, out.embedding, out.embedding

        return head
    model = model.to(device, dtype)

    def pooled(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = model.backbone(values, output_hidden_states=True)
        head_input = model.pool(out)
        if pooling == "cls":
            return model.head(head_input), head_input, out.cls_token_value.squeeze(1)
        return model.head(head_input), head_input, out.hidden_states[-2].mean(dim=(2, 3))

    return pooled


def _count(table: pa.Table, status: Status) -> int:
    number: int = pc.sum(pc.equal(table["status"], status.value)).as_py() or 0
    return number


def _pixels(column: pa.ChunkedArray, size: int) -> npt.NDArray[np.uint8]:
    """uint8 (B, S, S, 3) of the rows that have pixels."""
    values = column.drop_null().combine_chunks()
    if not len(values):
        return np.empty((0, size, size, 3), np.uint8)
    offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset :][: len(values) + 1]
    data = np.frombuffer(values.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return data.reshape(len(values), size, size, 3).copy()


def _fail_non_finite(rows: pa.Table, positions: npt.NDArray[np.intp]) -> pa.Table:
    """The rows with those at ``positions`` turned into failures."""
    if not len(positions):
        return rows
    bad = np.zeros(len(rows), bool)
    bad[positions] = True
    error = InferenceError("non_finite_output", "the model gave NaN or infinity; try float32")
    values = {"status": "failed", "error_code": error.code, "error_message": str(error)}
    for name, value in values.items():
        column = pc.if_else(pa.array(bad), value, rows[name])
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), column)
    return rows


def _assemble(
    rows: pa.Table, predictions: Predictions | None, labels: pa.Array, settings: InferSettings
) -> pa.Table:
    """Result rows in the order of ``rows``, null where an image has no predictions."""
    slots = np.full(len(rows), -1)
    columns: dict[str, pa.Array] = {}
    if predictions is not None:
        decoded = np.flatnonzero(pc.equal(rows["status"], "ok").to_numpy())
        finite = predictions.finite()
        rows = _fail_non_finite(rows, decoded[~finite])
        slots[decoded[finite]] = np.flatnonzero(finite)
        columns = _columns(predictions, labels, settings)
    indices = pa.array(slots, mask=slots < 0)
    for column in settings.columns:
        values = columns[column.name].take(indices) if columns else pa.nulls(len(rows), column.type)
        rows = rows.append_column(column, values.cast(column.type))
    return rows


def _columns(
    predictions: Predictions, labels: pa.Array, settings: InferSettings
) -> dict[str, pa.Array]:
    """Everything that a row can say about its predictions, one element per decoded image."""
    vectors = predictions.embedding.numpy()
    flat = pa.array(vectors.ravel())
    embedding = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    if not len(labels):  # a backbone without a head
        return {"embedding": embedding}
    scores = to_scores(predictions.logits, settings.scores)
    columns = label_columns(scores, labels, settings.top_k, settings.thresholds)
    return columns | {"embedding": embedding}
