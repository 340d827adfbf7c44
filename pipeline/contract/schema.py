"""The tables that flow through the pipeline: one schema for every arrow of the picture.

    inventory ──LISTING──► plan ──WORK──► decode ──DECODED──► infer ──RESULT──► write

All are plain Arrow types. Columns whose name starts with an underscore travel between stages and
never reach a published file.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc


class Status(StrEnum):
    """What became of an image. Only the first three reach a published file."""

    OK = "ok"
    FAILED = "failed"
    VANISHED = "vanished"  # earlier runs have it, the listing no longer; only its uri is set
    DEFERRED = "deferred"  # the deadline came first; not written, so the next run takes it up
    COPIED = "copied"  # the content of an earlier row; its numbers are filled in at the run's end


KEPT = "_kept"
"""A struct of the input's own columns that are carried along; flattened when written."""
NO_COLUMNS = pa.schema([])

LISTING = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # a Format's name
        pa.field("source_version", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("images", pa.int64()),  # how many a shard holds, if that is known already
        pa.field("refusal", pa.string()),  # why a line of a list names nothing that is read
        pa.field("address", pa.string()),  # what is read, if a URL holds more than its row may show
    ]
)
"""What was found: one row per object that holds one image (or, for a shard, many)."""

WORK = LISTING.append(pa.field("_done", pa.list_(pa.string())))
"""What is left to do: rows of the listing, with the URIs of a shard's members already done."""

SOURCE = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_code", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("size_bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("source_version", pa.string()),
    ]
)
"""What every result row says about its image, whatever the model computes."""

INTERNAL = pa.schema(
    [
        pa.field("_shard", pa.string()),  # uri of the shard that the image came from
        pa.field("_shard_rows", pa.int64()),  # on a shard's last row: how many rows it has in all
        pa.field("_thumbnail", pa.binary()),  # JPEG, on the few rows sampled for the report
    ]
)

PIXELS = pa.field("_pixels", pa.large_binary())
"""uint8 (S, S, 3) as raw bytes, null on failed rows. Raw because Ray's tensor types would reach
the object store as an extension that only Ray reads."""

JPEG = pa.field(
    "_jpeg", pa.struct([pa.field("file", pa.large_binary()), pa.field("orientation", pa.int8())])
)
"""A file that the actor's GPU decodes, and how its pixels are to be turned, as in EXIF; instead of
``_pixels``. Tables of runs without such files lack the column."""

SHADOW = pa.field(
    "_shadow",
    pa.struct(
        [
            pa.field("key", pa.string()),  # which model it is
            pa.field("label", pa.string()),
            pa.field("score", pa.float32()),
        ]
    ),
)
"""What a second model says of the image; null where it says nothing. It travels with the rows, in
parts too, until they are merged: so whatever becomes of a row becomes of it."""

PICTURE = pa.field("_picture", pa.binary())
"""JPEG of what the model saw, on rows that may end up in the review queue. The actors add it, and
parts keep it until their rows are merged."""

TRAINING_PICTURE = pa.field("training_picture", pa.binary())
"""A JPEG or PNG file of the image, for networks that are trained on it. Only tables of a
fine-tuning have the column."""

DECODED = pa.unify_schemas([SOURCE, INTERNAL]).append(PIXELS)
TOP_K = [
    pa.field("label_id", pa.int32()),
    pa.field("label", pa.string()),
    pa.field("score", pa.float32()),
    pa.field("topk_ids", pa.list_(pa.int32())),
    pa.field("topk_labels", pa.list_(pa.string())),
    pa.field("topk_scores", pa.list_(pa.float32())),
]
"""Best class first."""

LABELS = pa.field("labels", pa.list_(pa.string()))
"""Multi-label models: every class whose score reaches its threshold, best first."""

CORRECTION = pa.field("correction", pa.string())
"""Of relabelled rows: the verdict of the person whom the label comes from; null if it is the
model's."""


def result_schema(*, labels: bool, thresholds: bool, embedding: pa.DataType | None) -> pa.Schema:
    """The schema of a published file: what the image is, then what the model says of it."""
    fields = [*SOURCE, *(TOP_K if labels else [])]
    if thresholds:
        fields.append(LABELS)
    if embedding is not None:
        fields.append(pa.field("embedding", embedding))
    return pa.schema(fields)


def vanished_rows(uris: Sequence[str], schema: pa.Schema) -> pa.Table:
    """Rows of a published file for images that are no longer there."""
    columns = {
        "uri": pa.array(uris, pa.string()),
        "status": pa.array([Status.VANISHED.value] * len(uris), pa.string()),
    }
    nulls = (pa.nulls(len(uris), field.type) for field in schema)
    arrays = [columns.get(name, null) for name, null in zip(schema.names, nulls, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def present(table: pa.Table) -> pa.Table:
    """The rows of a published file without those of images that are no longer there."""
    is_present = pc.not_equal(table["status"], Status.VANISHED.value)
    return table if pc.all(is_present).as_py() else table.filter(is_present)


def with_kept(schema: pa.Schema, kept: pa.Schema) -> pa.Schema:
    """The schema of a table that also carries columns of the input, if there are any."""
    return schema.append(pa.field(KEPT, pa.struct(list(kept)))) if len(kept) else schema


def without_internal(table: pa.Table) -> pa.Table:
    """The table without columns that only travel; the same one if it has none."""
    names = [name for name in table.column_names if not name.startswith("_")]
    return table if len(names) == len(table.column_names) else table.select(names)


def published(table: pa.Table) -> pa.Table:
    """The table without the columns that only travel between stages, kept ones last."""
    result = without_internal(table)
    if KEPT in table.column_names:
        for number, field in enumerate(table.schema.field(KEPT).type):
            result = result.append_column(field, pc.struct_field(table[KEPT], [number]))
    return result
