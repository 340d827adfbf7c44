"""The bytes of an image: from a file, an object, a member of a tar, a row of a Parquet file.

Fetching runs ahead of decoding in threads, so that the latency of the storage hides behind the
work of the core; ``storage/read_ahead.py`` bounds what is read ahead, ``storage/retry.py`` says
what is retried.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.errors import (
    NOBODYS_FAULT,
    FetchError,
    ItemError,
    JobError,
    ShardError,
    one_line,
)
from pipeline.contract.schema import KEPT
from pipeline.sources.doors import check_door
from pipeline.sources.formats.item import Item, ReadOptions
from pipeline.sources.formats.registry import Format, format_of_kind, is_shard
from pipeline.storage.files import FileStream, check_size, read_bytes
from pipeline.storage.read_ahead import (
    Hold,
    WindowClosedError,
    iterate_ahead,
    read_ahead_if_slow,
    read_all_ahead,
)
from pipeline.storage.uris import is_web, split_uri
from pipeline.storage.web.http import read_url

PASSED_ON = (*NOBODYS_FAULT, JobError, WindowClosedError)
"""What ends more than an image."""


def fetch_items(
    work: pa.Table,
    max_bytes: int,
    options: ReadOptions = ReadOptions(),  # noqa: B008  # frozen
) -> Iterator[Item]:
    """The items behind a WORK table; every listed image yields exactly one, whatever happens."""
    of_shards = is_shard(work["kind"])
    for row in work.filter(of_shards).to_pylist():
        items = iterate_ahead(_shard_items(row, max_bytes, options), Item.held)
        yield from _mark_last(items, already=len(row["_done"] or ()))
    rows = work.filter(pc.invert(of_shards)).to_pylist()
    read_all = read_ahead_if_slow if all(map(_is_local, rows)) else read_all_ahead
    yield from read_all([partial(_fetch, row, max_bytes, options) for row in rows])


def _is_local(row: dict[str, Any]) -> bool:
    return not is_web(row.get("address") or row["uri"]) and split_uri(row["uri"])[0] == "file"


def _fetch(row: dict[str, Any], max_bytes: int, options: ReadOptions, hold: Hold) -> Item:
    item = _item(row)
    try:
        _check_row(row, options)
        check_size(row["size_bytes"], max_bytes)
        hold(row["size_bytes"] or 0)  # better to wait before there is a connection
        address = row.get("address") or item.uri
        if is_web(address):
            private = options.allow_private_urls
            data = read_url(address, max_bytes, allow_private=private, hold=hold)
        else:
            data = read_bytes(item.uri, max_bytes, hold)
    except PASSED_ON:
        raise
    except BaseException as error:  # noqa: BLE001  # libraries raise whatever they like
        return replace(item, error=_as_item_error(error))
    return replace(item, data=data, size_bytes=len(data))


def _check_row(row: dict[str, Any], options: ReadOptions) -> None:
    """Refuse what a list must not name, and what it does not name at all."""
    if refusal := row.get("refusal"):
        raise FetchError("url_refused", refusal)
    check_door(row["uri"], options.protocols)


def _as_item_error(error: BaseException) -> ItemError:
    if isinstance(error, ItemError):
        return error
    text = f"reading it fails with {type(error).__name__}: {one_line(error)}"
    return FetchError("storage_error", text)


def _item(row: dict[str, Any], **values: Any) -> Item:
    """What a WORK row says about an image, or about those in a shard."""
    said = {
        "uri": row["uri"],
        "source_version": row["source_version"],
        "size_bytes": row["size_bytes"],
        "kept": row.get(KEPT),
    }
    return Item(**said | values)


def _mark_last(items: Iterator[Item], already: int) -> Iterator[Item]:
    """Note on the last item how many rows the shard has, including those of earlier attempts."""
    count = already
    previous: Item | None = None
    for item in items:
        if previous is not None:
            yield previous
        previous = item
        count += 1
    if previous is not None:
        yield replace(previous, shard_rows=count)


def _shard_items(row: dict[str, Any], max_bytes: int, options: ReadOptions) -> Iterator[Item]:
    """The images of a shard, streamed; damage that hides some becomes one more, failed item."""
    base = _item(row, size_bytes=None, shard=row["uri"])
    done = set(row["_done"] or ())
    try:
        _check_row(row, options)
        is_empty = not done
        for item in _members(base, format_of_kind(row["kind"]), done, max_bytes, options):
            is_empty = False
            yield item
        if is_empty:  # whatever it says of itself: without a row it would never be done
            raise ShardError("shard_empty", "nothing comes out of it")
    except PASSED_ON:
        raise
    except BaseException as error:  # noqa: BLE001  # libraries raise whatever they like
        if base.uri not in done:
            yield replace(base, error=_as_item_error(error), size_bytes=row["size_bytes"])


def _members(
    base: Item, format: Format, done: Set[str], max_bytes: int, options: ReadOptions
) -> Iterator[Item]:
    """Every image that is not done yet."""
    file = FileStream(base.uri, is_streamed=format.is_streamed)
    try:
        yield from format.members(file, base, done, max_bytes, options)
    finally:
        file.end()
