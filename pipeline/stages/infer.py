"""The actor: holds one replica of the network, DECODED in, results out."""

from __future__ import annotations

import threading
import time
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

from pipeline.contract.errors import InferenceError, UsageError
from pipeline.contract.schema import PIXELS, Status, result_schema
from pipeline.contract.spec import EmbeddingDtype
from pipeline.model.bundle import ModelBundle
from pipeline.model.label_columns import label_columns, to_scores
from pipeline.model.loaded import LoadedModel
from pipeline.model.network import DTYPES, Outputs, Pixels
from pipeline.model.self_check import GoldenBatch
from pipeline.stages.progress import Reporter


@dataclass(frozen=True, kw_only=True)
class InferSettings:
    """What an actor computes, on what."""

    on_gpu: bool
    threads: int
    batch_size: int
    """Images of a call, but for the last ones of a block."""
    columns: tuple[pa.Field, ...]
    """What to write beside the columns that describe the image."""
    top_k: int
    scores: str
    thresholds: tuple[float, ...]
    """Score from which on a class counts, by class; empty when nothing is cut."""
    normalize: bool
    embedding_dtype: EmbeddingDtype
    reporter: Reporter = field(default_factory=Reporter)

    @classmethod
    def of(cls, model: LoadedModel, *, on_gpu: bool, **hardware: Any) -> InferSettings:
        """Settings for a model; ``hardware`` holds threads, batch_size and the reporter.

        Raises:
            UsageError: the runtime has no GPUs.
        """
        if on_gpu and model.runtime == "openvino":
            raise UsageError("--runtime openvino computes on CPUs; add --num-gpus 0 or drop it")
        described = len(result_schema(labels=False, thresholds=False, embedding=None))
        return cls(
            on_gpu=on_gpu,
            columns=tuple(model.schema)[described:],
            top_k=model.output.top_k or 1,
            scores=model.scores,
            thresholds=model.thresholds,
            normalize=model.output.normalize,
            embedding_dtype=model.output.embedding_dtype,
            **hardware,
        )


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


class _Lane(threading.local):
    """A CUDA stream for every thread of an actor; none on a CPU.

    Two threads take turns: while the GPU computes the batch of one, the other copies its batch to
    the GPU and makes rows of its last results.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def to_host(self, *results: Tensor) -> list[Tensor]:
        """The results of this thread's stream, once they are there."""
        copies = [result.to("cpu", non_blocking=True) for result in results]
        if self.stream is not None:
            self.stream.synchronize()
        return copies


class Predictor:
    """Callable for ``Dataset.map_batches``: turns decoded images into result rows."""

    def __init__(self, bundle: ray.ObjectRef[ModelBundle], settings: InferSettings) -> None:
        shared: ModelBundle = ray.get(bundle)
        self.settings = settings
        self.size, self.form = shared.size, shared.form
        self.labels = pa.array(shared.classes, pa.string())
        self.device = torch.device("cuda" if settings.on_gpu else "cpu")
        if not settings.on_gpu:
            torch.set_num_threads(settings.threads)
        self.network = shared.network.build(self.device)
        if settings.on_gpu:
            torch.cuda.synchronize(self.device)  # the weights arrive on a stream of their own
        self.lane = _Lane(self.device)
        self._check(shared.golden)
        settings.reporter.report(actors=1)

    def __call__(self, batch: pa.Table) -> pa.Table:
        started = time.perf_counter()
        rows = batch.drop_columns(PIXELS.name)
        pixels = _pixels(batch["_pixels"], self.size)
        predictions = self.predict(pixels) if len(pixels) else None
        table = _assemble(rows, predictions, self.labels, self.settings)
        self.settings.reporter.report(
            inferred=table.num_rows - _count(table, Status.DEFERRED),
            failed=_count(table, Status.FAILED),
            infer_seconds=time.perf_counter() - started,
        )
        return table

    @property
    def _has_fixed_shape(self) -> bool:
        """Whether the first call compiles or tunes something for the shape of all later ones."""
        return self.settings.on_gpu or self.form.runtime == "openvino"

    def _check(self, golden: GoldenBatch) -> None:
        count = len(golden.pixels)
        size = self.settings.batch_size if self._has_fixed_shape else count
        parts = [golden.pixels[start : start + size] for start in range(0, count, size)]
        full = [np.resize(part, (size, *part.shape[1:])) for part in parts]  # repeats its images
        with torch.inference_mode(), torch.cuda.stream(self.lane.stream):
            outputs = [self._run(pixels) for pixels in full]
            logits, embedding = self.lane.to_host(
                torch.cat([out.logits for out in outputs])[:count],
                torch.cat([out.embedding for out in outputs])[:count],
            )
        where = torch.cuda.get_device_name(self.device) if self.settings.on_gpu else "the CPU"
        golden.check(logits.numpy(), embedding.numpy(), self.form.dtype, where)

    def predict(self, pixels: Pixels) -> Predictions:
        """Run the network on uint8 pixels (B, S, S, 3)."""
        with torch.inference_mode(), torch.cuda.stream(self.lane.stream):
            out = self._run(pixels)
            embedding = out.embedding
            if self.settings.normalize:
                embedding = functional.normalize(embedding, dim=1)
            stored = embedding.to(DTYPES[self.settings.embedding_dtype])
            return Predictions(*self.lane.to_host(out.logits, stored))

    def _run(self, pixels: Pixels) -> Outputs:
        """The network's output, on the actor's device."""
        if not self.settings.on_gpu:
            return self.network(pixels)
        host = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
        np.copyto(host.numpy(), pixels)
        return self.network(host.to(self.device, non_blocking=True))


def _count(table: pa.Table, status: Status) -> int:
    number: int = pc.sum(pc.equal(table["status"], status.value)).as_py() or 0
    return number


def _pixels(column: pa.ChunkedArray, size: int) -> Pixels:
    """uint8 (B, S, S, 3) of the rows that have pixels: Arrow's own memory, not to be written."""
    values = column.drop_null().combine_chunks()
    if not len(values):
        return np.empty((0, size, size, 3), np.uint8)
    offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset :][: len(values) + 1]
    data = np.frombuffer(values.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return data.reshape(len(values), size, size, 3)


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
