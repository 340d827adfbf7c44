"""The CPU stage: WORK in, DECODED out. Fetch and decode share a task, so that encoded bytes never
travel through the object store; what leaves are uint8 pixels of the model's size."""

from __future__ import annotations

import hashlib
import io
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from PIL import Image

from pipeline.contract.errors import DecodeError, one_line
from pipeline.contract.schema import DECODED, KEPT, PIXELS, Status, with_kept
from pipeline.contract.spec import DecodeMode, RunSpec
from pipeline.model.network import Pixels, Preprocessing
from pipeline.output.ledger import HashIndex, hash_strings
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item, ReadOptions
from pipeline.sources.formats.registry import is_shard
from pipeline.stages.progress import Reporter
from pipeline.storage.filesystems import WorkerEnvironment

THUMBNAIL_PIXELS = 128


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """What a decode task needs to know; travels with it to the worker."""

    preprocessing: Preprocessing
    mode: DecodeMode = "fast"
    environment: WorkerEnvironment
    max_pixels: int
    max_bytes: int
    read: ReadOptions = field(default_factory=ReadOptions)
    block_size: int
    stop_at: float | None = None
    """Seconds since the epoch from which on no work is begun any more."""
    known_contents: ray.ObjectRef[HashIndex] | None = None
    """Hashes of the sha256 of images whose numbers are copied, if any are."""
    thumbnail_rate: float = 0.0
    """Share of the images, chosen by their uri, that also yield a thumbnail."""
    reporter: Reporter = field(default_factory=Reporter)

    @classmethod
    def of(
        cls, spec: RunSpec, preprocessing: Preprocessing, kept: pa.Schema, **state: Any
    ) -> DecodeSettings:
        """Settings for a run; ``state`` holds block_size, and what else a start of it decides."""
        inputs = spec.inputs
        return cls(
            preprocessing=preprocessing,
            mode=spec.model.decode,
            environment=WorkerEnvironment.capture(),
            max_pixels=inputs.max_pixels,
            max_bytes=inputs.max_bytes,
            read=ReadOptions.of(inputs, kept),
            **state,
        )


def decode_block(work: pa.Table, settings: DecodeSettings) -> Iterator[pa.Table]:
    """One row per image, in tables of ``block_size`` rows, so that a shard of any size streams.

    Never raises for what is wrong with an image, its bytes or its shard: that becomes the row.
    """
    settings.environment.apply()
    schema = with_kept(DECODED, settings.read.kept)
    if _is_late(work, settings.stop_at):
        yield _deferred(work, schema)
        return
    known = ray.get(settings.known_contents) if settings.known_contents else None
    items = fetch_items(work, settings.max_bytes, settings.read)
    rows = (_decode_item(item, settings, known) for item in items)
    while True:
        started = time.perf_counter()
        chunk = list(islice(rows, settings.block_size))
        if not chunk:
            return
        settings.reporter.report(decoded=len(chunk), decode_seconds=time.perf_counter() - started)
        yield _table(chunk, schema)


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """The rows, their pixels in one piece of memory: a row at a time these would be copied twice,
    each time into memory fresh from the operating system."""
    images = [row.pop(PIXELS.name, None) for row in rows]
    at = schema.get_field_index(PIXELS.name)
    return pa.Table.from_pylist(rows, schema=schema.remove(at)).add_column(
        at, schema.field(at), _joined(images)
    )


def _joined(images: list[Pixels | None]) -> pa.LargeBinaryArray:
    sizes = [0 if image is None else image.size for image in images]
    offsets = np.append(0, np.cumsum(sizes)).astype(np.int64)
    present = [image.reshape(-1) for image in images if image is not None]
    data = np.concatenate(present) if present else np.empty(0, np.uint8)
    is_valid = pa.array([image is not None for image in images], pa.bool_())
    buffers = [is_valid.buffers()[1], pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(PIXELS.type, len(images), buffers)


def _is_late(work: pa.Table, stop_at: float | None) -> bool:
    """Whether to leave the work to the next run; a shard that was begun is always finished."""
    begun = work["_done"].null_count < len(work)
    return stop_at is not None and time.time() >= stop_at and not begun


def _deferred(work: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows that say only that their image, or shard, was not begun."""
    columns = {
        "uri": work["uri"],
        "status": pa.array([Status.DEFERRED.value] * len(work)),
        "_shard": pc.if_else(is_shard(work["kind"]), work["uri"], None),
    }
    return pa.table([columns.get(f.name, pa.nulls(len(work), f.type)) for f in schema], schema)


def _decode_item(item: Item, settings: DecodeSettings, known: HashIndex | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "uri": item.uri,
        "status": Status.FAILED.value,
        "size_bytes": item.size_bytes,
        "source_version": item.source_version,
        "_shard": item.shard,
        "_shard_rows": item.shard_rows,
        KEPT: item.kept,
    }
    if item.error is not None:
        return row | {"error_code": item.error.code, "error_message": one_line(item.error)}
    data = item.data or b""
    row["sha256"] = hashlib.sha256(data).hexdigest()
    if known is not None and known.find(hash_strings(pa.chunked_array([[row["sha256"]]])))[0][0]:
        return row | {"status": Status.COPIED.value}
    try:
        image = settings.preprocessing.decode(
            data, mode=settings.mode, max_pixels=settings.max_pixels
        )
    except DecodeError as error:
        return row | {"error_code": error.code, "error_message": one_line(error)}
    row |= {"status": Status.OK.value, "width": image.width, "height": image.height}
    if _is_sampled(item.uri, settings.thumbnail_rate):
        row["_thumbnail"] = _thumbnail(image.pixels)
    return row | {PIXELS.name: image.pixels}


def _is_sampled(uri: str, rate: float) -> bool:
    """A choice that falls the same in every attempt and on every worker."""
    return zlib.crc32(uri.encode()) < rate * 2**32


def _thumbnail(pixels: Pixels) -> bytes:
    """What the model sees, as a small JPEG."""
    image = Image.fromarray(pixels)
    if max(image.size) > THUMBNAIL_PIXELS:
        image = image.resize((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()
