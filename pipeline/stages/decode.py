"""The CPU stage: WORK in, DECODED out. Fetch and decode share a task, so that encoded bytes never
travel through the object store; what leaves are uint8 pixels of the model's size."""

from __future__ import annotations

import hashlib
import io
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
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
from pipeline.stages.allocation import CPU_BLOCK
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
    block_size: int = CPU_BLOCK
    """Rows of a table; every cut of work has its own."""
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
        """Settings for a run; ``state`` holds what only a start of it decides."""
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

    @property
    def image_bytes(self) -> int:
        """Of the pixels of an image, (S, S, 3)."""
        return self.preprocessing.size**2 * 3


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
    while True:
        started = time.perf_counter()
        block = _Block(settings.block_size * settings.image_bytes)
        for item in islice(items, settings.block_size):
            block.add(*_decode_item(item, settings, known))
        if not block.rows:
            return
        settings.reporter.report(
            decoded=len(block.rows), decode_seconds=time.perf_counter() - started
        )
        yield block.table(schema)


class _Block:
    """Rows of a table to be, their pixels in one piece of memory: each image is copied there as it
    is decoded, and from there by Ray to the object store."""

    def __init__(self, capacity: int) -> None:
        """``capacity``: bytes of all pixels there may be."""
        self.rows: list[dict[str, Any]] = []
        self._capacity = capacity
        self._has_pixels: list[bool] = []
        self._ends = [0]
        """Where the pixels of each row end, behind where those of the first begin."""

    @cached_property
    def _memory(self) -> pa.Buffer:
        # Arrow's allocator gives again what it was given back. Fresh memory has to be cleared by
        # the operating system first, which takes as long as the copy.
        return pa.allocate_buffer(self._capacity)

    def add(self, row: dict[str, Any], pixels: Pixels | None) -> None:
        """Append a row, and its pixels (S, S, 3) if it has some."""
        end = self._ends[-1]
        if pixels is not None:
            place = np.frombuffer(self._memory, np.uint8, pixels.size, end)
            place.reshape(pixels.shape)[:] = pixels
            end += pixels.size
        self.rows.append(row)
        self._has_pixels.append(pixels is not None)
        self._ends.append(end)

    def table(self, schema: pa.Schema) -> pa.Table:
        """All rows; what was not filled of the memory is not part of it."""
        at = schema.get_field_index(PIXELS.name)
        rows = pa.Table.from_pylist(self.rows, schema=schema.remove(at))
        end = self._ends[-1]
        pixels = pa.LargeBinaryArray.from_buffers(
            PIXELS.type,
            len(self.rows),
            [
                pa.array(self._has_pixels, pa.bool_()).buffers()[1],
                pa.py_buffer(np.array(self._ends, np.int64)),
                self._memory.slice(0, end) if end else pa.py_buffer(b""),
            ],
        )
        return rows.add_column(at, schema.field(at), pixels)


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


def _decode_item(
    item: Item, settings: DecodeSettings, known: HashIndex | None
) -> tuple[dict[str, Any], Pixels | None]:
    """The row of an image, and its pixels (S, S, 3) if the network is to see them."""
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
        return row | {"error_code": item.error.code, "error_message": one_line(item.error)}, None
    data = item.data or b""
    row["sha256"] = hashlib.sha256(data).hexdigest()
    if known is not None and known.find(hash_strings(pa.chunked_array([[row["sha256"]]])))[0][0]:
        return row | {"status": Status.COPIED.value}, None
    try:
        image = settings.preprocessing.decode(
            data, mode=settings.mode, max_pixels=settings.max_pixels
        )
    except DecodeError as error:
        return row | {"error_code": error.code, "error_message": one_line(error)}, None
    row |= {"status": Status.OK.value, "width": image.width, "height": image.height}
    if _is_sampled(item.uri, settings.thumbnail_rate):
        row["_thumbnail"] = _thumbnail(image.pixels)
    return row, image.pixels


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
