"""Between a table and a network: the pixels of its rows, and the results as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor
from torch.nn import functional

from pipeline.contract.errors import InferenceError
from pipeline.contract.schema import SHADOW, Status
from pipeline.model.bundle import ShadowBundle
from pipeline.model.label_columns import label_columns, to_scores
from pipeline.model.network import DTYPES, Outputs, Pixels
from pipeline.stages.infer.settings import InferSettings


@dataclass(frozen=True)
class Predictions:
    """The results of the network for a batch, on the host, one row per image."""

    logits: Tensor
    """(B, N) float32."""
    embedding: Tensor
    """(B, C) as it is stored: numbers too large for half precision are infinite."""

    @classmethod
    def of(cls, outputs: Outputs, settings: InferSettings) -> Predictions:
        """The outputs as the run stores them."""
        embedding = outputs.embedding
        if settings.normalize:
            embedding = functional.normalize(embedding, dim=1)
        return cls(outputs.logits, embedding.to(DTYPES[settings.embedding_dtype]))

    def finite(self) -> npt.NDArray[np.bool_]:
        """(B,): which images have only finite numbers."""
        finite = self.logits.isfinite().all(dim=1) & self.embedding.isfinite().all(dim=1)
        mask: npt.NDArray[np.bool_] = finite.numpy()
        return mask


def count(table: pa.Table, status: Status) -> int:
    """How many rows have this status."""
    number: int = pc.sum(pc.equal(table["status"], status.value)).as_py() or 0
    return number


def pixels_of(column: pa.ChunkedArray, size: int) -> Pixels:
    """uint8 (B, S, S, 3) of the rows that have pixels; a read-only view of Arrow's memory."""
    values = column.drop_null().combine_chunks()
    if not len(values):
        return np.empty((0, size, size, 3), np.uint8)
    offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset :][: len(values) + 1]
    data = np.frombuffer(values.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return data.reshape(len(values), size, size, 3)


def _decoded(rows: pa.Table) -> npt.NDArray[np.intp]:
    """Which rows have pixels, in the order of these."""
    return np.flatnonzero(pc.equal(rows["status"], Status.OK.value).to_numpy())


def _indices(rows: pa.Table, finite: npt.NDArray[np.bool_]) -> pa.Array:
    """Of each row, its position among the decoded images; null without one, or finite numbers."""
    slots = np.full(len(rows), -1)
    slots[_decoded(rows)[finite]] = np.flatnonzero(finite)
    return pa.array(slots, mask=slots < 0)


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


def assemble(
    rows: pa.Table, predictions: Predictions | None, labels: pa.Array, settings: InferSettings
) -> pa.Table:
    """Result rows in the order of ``rows``, null where an image has no predictions."""
    columns: dict[str, pa.Array] = {}
    indices = pa.nulls(len(rows), pa.int64())
    if predictions is not None:
        finite = predictions.finite()
        indices = _indices(rows, finite)
        rows = _fail_non_finite(rows, _decoded(rows)[~finite])
        columns = _columns(predictions, labels, settings)
    for column in settings.columns:
        values = columns[column.name].take(indices) if columns else pa.nulls(len(rows), column.type)
        rows = rows.append_column(column, values.cast(column.type))
    return rows


def shadow_answers(
    rows: pa.Table, logits: Tensor, labels: pa.Array, shadow: ShadowBundle
) -> pa.Array:
    """What a second network says, as ``SHADOW``, in the order of ``rows``; null where an image has
    no finite ``logits`` (B, N)."""
    best = label_columns(to_scores(logits, shadow.scores), labels, 1)
    told = pa.StructArray.from_arrays(
        [pa.repeat(shadow.key, len(logits)), best["label"], best["score"]], fields=list(SHADOW.type)
    )
    return told.take(_indices(rows, logits.isfinite().all(dim=1).numpy()))


def _columns(
    predictions: Predictions, labels: pa.Array, settings: InferSettings
) -> dict[str, pa.Array]:
    """All columns that can be made of the predictions, one element per decoded image."""
    vectors = predictions.embedding.numpy()
    flat = pa.array(vectors.ravel())
    embedding = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    if not len(labels):  # a backbone without a head
        return {"embedding": embedding}
    scores = to_scores(predictions.logits, settings.scores)
    columns = label_columns(scores, labels, settings.top_k, settings.thresholds)
    return columns | {"embedding": embedding}
