"""The bytes of an image: out of a file, an object, a member of a tar, a row of a Parquet file.

Fetching runs ahead of decoding in threads, so that the latency of the storage hides behind the
work of the core; ``storage/read_ahead.py`` bounds what is read ahead, ``storage/retry.py`` says
what is tried again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Set
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.errors import ItemError, JobError
from pipeline.contract.schema import KEPT
from pipeline.sources.formats.item import Item, ReadOptions, check_size
from pipeline.sources.formats.parquet import parquet_members
from pipeline.sources.formats.tar import tar_members
from pipeline.sources.inputs import Kind
from pipeline.storage.http import is_web, read_url
from pipeline.storage.read_ahead import Hold, WindowClosedError, iterate_ahead, read_all_ahead
from pipeline.storage.retry import Patience, classify
from pipeline.storage.s3.requests import RangeFile, S3Object
from pipeline.storage.store import filesystem, local_path, split_uri

T = TypeVar("T")


def fetch_items(
    work: pa.Table,
    max_bytes: int,
    options: ReadOptions = ReadOptions(),  # noqa: B008  # frozen
) -> Iterator[Item]:
    """The items behind a WORK table; every listed image yields exactly one, whatever happens."""
    is_image = pc.equal(work["kind"], Kind.IMAGE.value)
    for row in work.filter(pc.invert(is_image)).to_pylist():
        items = iterate_ahead(_shard_items(row, max_bytes, options))
        yield from _mark_last(items, already=len(row["_done"] or ()))
    rows = work.filter(is_image).to_pylist()
    yield from read_all_ahead([partial(_fetch, row, max_bytes, options) for row in rows])


def _fetch(row: dict[str, Any], max_bytes: int, options: ReadOptions, hold: Hold) -> Item:
    item = _item(row)
    try:
        check_size(row["size_bytes"], max_bytes)
        hold(row["size_bytes"] or 0)  # if it has to wait, then better without a connection
        if is_web(item.uri):
            private = options.allow_private_urls
            data = read_url(item.uri, max_bytes, allow_private=private, hold=hold)
        else:
            data = read_bytes(item.uri, max_bytes, hold)
    except ItemError as error:
        return replace(item, error=error)
    return replace(item, data=data, size_bytes=len(data))


def _item(row: dict[str, Any], **values: Any) -> Item:
    """What a WORK row says of an image, or of those in a shard."""
    item = Item(
        uri=row["uri"],
        source_version=row["source_version"],
        size_bytes=row["size_bytes"],
        kept=row.get(KEPT),
    )
    return replace(item, **values)


def read_bytes(uri: str, max_bytes: int = sys.maxsize, hold: Hold = lambda size: None) -> bytes:
    """The whole object.

    Args:
        uri: of a local file or an object; not one of the web.
        max_bytes: how many it may have.
        hold: called with its size as soon as that is known, before it is read.

    Raises:
        FetchError: with the code that says whether another try makes sense.
    """

    def read() -> bytes:
        with closing(_open(*split_uri(uri), is_streamed=True)) as file:
            size = _size(file)
            check_size(size, max_bytes)
            hold(size)
            data: bytes = file.read()
        check_size(len(data), max_bytes)
        return data

    return _with_patience(read)


def _with_patience(read: Callable[[], T]) -> T:
    """What ``read`` returns, as soon as the storage lets it; FetchError if it never does."""
    patience = Patience()
    while True:
        try:
            result = read()
        except (JobError, WindowClosedError):
            raise
        except Exception as error:  # noqa: BLE001  # every filesystem raises classes of its own
            patience.pause(classify(error))
        else:
            patience.succeed()
            return result


def _open(protocol: str, path: str, *, start: int = 0, is_streamed: bool) -> Any:
    """An open binary file over the object, from ``start`` on. What is streamed is only read, in
    order; all else is sought in, too."""
    if protocol == "s3":
        if is_streamed:
            return S3Object(path).open(start)
        file: Any = RangeFile(path)
    elif protocol == "file":
        file = open(local_path(path), "rb")  # noqa: SIM115  # the caller closes it
    else:
        file = filesystem(protocol).open(path, "rb")
    file.seek(start)
    return file


def _size(file: Any) -> int:
    """In bytes."""
    size = getattr(file, "size", None)
    if size is None:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
    return int(size)


class _Stream:
    """A shard as a file that outlives failing requests: it is opened anew where it failed."""

    def __init__(self, uri: str, *, is_streamed: bool) -> None:
        self._open = partial(_open, *split_uri(uri), is_streamed=is_streamed)
        self._file: Any = None
        self._position = 0

    def read(self, size: int | None = None) -> bytes:
        data: bytes = _with_patience(lambda: self._attempt("read", size))
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = _with_patience(lambda: self._attempt("seek", offset, whence))
        return self._position

    def tell(self) -> int:
        return self._position

    @property
    def closed(self) -> bool:
        return False

    def close(self) -> None:
        """Left to whoever opened it, with ``end``: Arrow closes what it reads."""

    def end(self) -> None:
        """Close what is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _attempt(self, method: str, *arguments: Any) -> Any:
        try:
            if self._file is None:
                self._file = self._open(start=self._position)
            return getattr(self._file, method)(*arguments)
        except Exception:
            self.end()
            raise


def _mark_last(items: Iterator[Item], already: int) -> Iterator[Item]:
    """Tell on the last item how many rows the shard has, earlier attempts' rows included."""
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
    """The images of a shard, streamed; what makes some unreadable is one more, failed item."""
    base = _item(row, size_bytes=None, shard=row["uri"])
    done = set(row["_done"] or ())
    try:
        yield from _shard_members(base, Kind(row["kind"]), done, max_bytes, options)
    except ItemError as error:
        if base.uri not in done:
            yield replace(base, error=error, size_bytes=row["size_bytes"])


def _shard_members(
    base: Item, kind: Kind, done: Set[str], max_bytes: int, options: ReadOptions
) -> Iterator[Item]:
    """Every image that is not done yet."""
    stream = _Stream(base.uri, is_streamed=kind is Kind.WEBDATASET)
    try:
        if kind is Kind.PARQUET:
            members = parquet_members(stream, base, done, max_bytes, options)
        else:
            members = tar_members(stream, base, max_bytes, options)
        yield from (item for item in members if item.uri not in done)
    finally:
        stream.end()
