"""The CPU stage: WORK in, DECODED out. Fetch and decode share a task, so that encoded bytes never
travel through the object store; what leaves are uint8 pixels of the model's size. Only with
``--decode gpu`` do JPEG files leave as they are, once their headers are checked."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipeline.contract.errors import NOBODYS_FAULT, ItemError, JobError, one_line
from pipeline.contract.schema import KEPT, Status
from pipeline.model.network import Pixels
from pipeline.output.ledger.hashes import HashIndex, hash_strings
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item
from pipeline.sources.formats.registry import is_shard
from pipeline.stages.allocation import GPU_BLOCK_BYTES
from pipeline.stages.decode.block import Block
from pipeline.stages.decode.guard import Decoder, decoder
from pipeline.stages.decode.image import failure
from pipeline.stages.decode.members import Members
from pipeline.stages.decode.settings import DecodeSettings
from pipeline.stages.watching.reach import check_failure


def decode_block(work: pa.Table, settings: DecodeSettings) -> Iterator[pa.Table]:
    """One row per image, in tables of ``block_size`` rows, so that a shard of any size streams.

    Never raises for what is wrong with an image, its bytes or its shard: that becomes the row.

    Raises:
        CutOffError: this host does not reach the store.
    """
    settings.environment.apply()
    if _is_late(work, settings):
        yield _deferred(work, settings.schema)
        return
    items = fetch_items(work, settings.max_bytes, settings.read)
    yield from decode_items(items, settings, Members(work).count)


def decode_items(
    items: Iterator[Item],
    settings: DecodeSettings,
    count: Callable[[list[dict[str, Any]]], dict[str, float]] = lambda rows: {},
) -> Iterator[pa.Table]:
    """One row per item, in their order, as ``decode_block`` makes them.

    Args:
        count: says what else to report of some rows.
    """
    known = ray.get(settings.known_contents) if settings.known_contents else None
    with decoder(settings) as images:
        while True:
            started = time.perf_counter()
            block = Block(settings.block_size * settings.image_bytes)
            for item in islice(items, settings.block_size):
                row, pixels = _decode_item(item, images, settings, known)
                block.add(row, pixels)
                if block.jpeg_bytes >= GPU_BLOCK_BYTES or _took_too_long(item, row):
                    break
            if not block.rows:
                return
            settings.reporter.report(
                decoded=len(block.rows),
                decode_seconds=time.perf_counter() - started,
                **count(block.rows),
            )
            yield block.table(settings.schema)


def _took_too_long(item: Item, row: dict[str, Any]) -> bool:
    """After such an image its rows go on at once: a run that shows none for minutes is ended."""
    return item.error is None and row.get("error_code") == "timeout"


def _is_late(work: pa.Table, settings: DecodeSettings) -> bool:
    """Whether to leave the work to the next run; a shard that was begun is always finished."""
    begun = work["_done"].null_count < len(work)
    stop_at = settings.stop_at
    return stop_at is not None and not begun and settings.reporter.now() >= stop_at


def _deferred(work: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows that say only that their image, or shard, was not begun."""
    columns = {
        "uri": work["uri"],
        "status": pa.array([Status.DEFERRED.value] * len(work)),
        "_shard": pc.if_else(is_shard(work["kind"]), work["uri"], None),
    }
    return pa.table([columns.get(f.name, pa.nulls(len(work), f.type)) for f in schema], schema)


def _decode_item(
    item: Item, images: Decoder, settings: DecodeSettings, known: HashIndex | None
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
        check_failure(item.uri, item.error, settings.stores)
        return row | _said(item.error), None
    data = item.data or b""
    row["sha256"] = hashlib.sha256(data).hexdigest()
    if known is not None and known.find(hash_strings(pa.chunked_array([[row["sha256"]]])))[0][0]:
        return row | {"status": Status.COPIED.value}, None
    try:
        is_sampled = _is_sampled(item.uri, settings.thumbnail_rate)
        found, pixels = images.read(data, with_thumbnail=is_sampled)
    except (*NOBODYS_FAULT, JobError):
        raise
    except BaseException as error:  # noqa: BLE001  # decoders raise whatever they like
        return row | _said(failure(error)), None
    return row | {"status": Status.OK.value} | found, pixels


def _said(error: ItemError) -> dict[str, Any]:
    """The columns that say why there are no pixels."""
    return {"error_code": error.code, "error_message": one_line(error)}


def _is_sampled(uri: str, rate: float) -> bool:
    """A choice that falls the same in every attempt and on every worker."""
    return zlib.crc32(uri.encode()) < rate * 2**32
