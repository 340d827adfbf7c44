"""The CPU stage: WORK in, DECODED out. Fetch and decode share a task, so that encoded bytes never
travel through the object store; what leaves are uint8 pixels of the model's size. Only with
``--decode gpu`` do JPEG files leave as they are, once their headers are checked."""

from __future__ import annotations

import hashlib
import io
import time
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from PIL import Image

from pipeline.contract.errors import NOBODYS_FAULT, ItemError, one_line
from pipeline.contract.schema import JPEG, KEPT, Status
from pipeline.model.network import Pixels
from pipeline.output.ledger import HashIndex, hash_strings
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item
from pipeline.sources.formats.registry import is_shard
from pipeline.stages.allocation import GPU_BLOCK_BYTES
from pipeline.stages.decode.block import Block
from pipeline.stages.decode.settings import DecodeSettings

THUMBNAIL_PIXELS = 128


def decode_block(work: pa.Table, settings: DecodeSettings) -> Iterator[pa.Table]:
    """One row per image, in tables of ``block_size`` rows, so that a shard of any size streams.

    Never raises for what is wrong with an image, its bytes or its shard: that becomes the row.
    """
    settings.environment.apply()
    schema = settings.schema
    if _is_late(work, settings.stop_at):
        yield _deferred(work, schema)
        return
    known = ray.get(settings.known_contents) if settings.known_contents else None
    items = fetch_items(work, settings.max_bytes, settings.read)
    while True:
        started = time.perf_counter()
        block = Block(settings.block_size * settings.image_bytes)
        for item in islice(items, settings.block_size):
            block.add(*_decode_item(item, settings, known))
            if block.jpeg_bytes >= GPU_BLOCK_BYTES:
                break
        if not block.rows:
            return
        settings.reporter.report(
            decoded=len(block.rows), decode_seconds=time.perf_counter() - started
        )
        yield block.table(schema)


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
        return row | _failed(item.error), None
    data = item.data or b""
    row["sha256"] = hashlib.sha256(data).hexdigest()
    if known is not None and known.find(hash_strings(pa.chunked_array([[row["sha256"]]])))[0][0]:
        return row | {"status": Status.COPIED.value}, None
    try:
        found, pixels = _decode(data, settings, _is_sampled(item.uri, settings.thumbnail_rate))
    except NOBODYS_FAULT:
        raise
    except BaseException as error:  # noqa: BLE001  # decoders raise whatever they like
        return row | _failed(error), None
    return row | {"status": Status.OK.value} | found, pixels


def _decode(
    data: bytes, settings: DecodeSettings, is_sampled: bool
) -> tuple[dict[str, Any], Pixels | None]:
    """What is known of an image now, and its pixels, unless the actor has to decode it."""
    header = settings.header(data)
    if header is None:
        image = settings.decode(data)
        thumbnail = _thumbnail(image.pixels) if is_sampled else None
        return {
            "width": image.width,
            "height": image.height,
            "_thumbnail": thumbnail,
        }, image.pixels
    return {
        "width": header.width,
        "height": header.height,
        "_thumbnail": _thumbnail(settings.decode(data).pixels) if is_sampled else None,
        JPEG.name: {"file": data, "orientation": header.orientation},
    }, None


def _failed(error: BaseException) -> dict[str, Any]:
    """The columns that say why there are no pixels."""
    if isinstance(error, ItemError):
        return {"error_code": error.code, "error_message": one_line(error)}
    text = one_line(f"the decoder fails with {type(error).__name__}: {one_line(error)}")
    return {"error_code": "corrupt", "error_message": text}


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
