"""The bytes of an image: out of a file, an object, a member of a tar, a row of a Parquet file.

Fetching runs ahead of decoding in threads, so that the latency of the storage hides behind the
work of the core; the window is bounded in images and in bytes.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from pipeline.errors import FetchError, ItemError, one_line
from pipeline.http import is_web, read_url
from pipeline.item import Item, ReadOptions, check_size
from pipeline.objects import Kind
from pipeline.schema import KEPT
from pipeline.storage import filesystem, local_path, s3_endpoint, split_uri
from pipeline.tables import parquet_members
from pipeline.tar import tar_members

WINDOW_IMAGES = 32
WINDOW_BYTES = 64 * 2**20
TAR_BUFFER_BYTES = 4 * 2**20
"""One request to an object store; each of tarfile's own reads is of 10 KiB."""
RETRY_PAUSES_SECONDS = (0.2, 1.0)
OUTAGE_SECONDS = 120.0
"""How long a server that nobody answers for may be away before its images fail."""
OUTAGE_PAUSE_SECONDS = 2.0

_NO_CONNECTION = re.compile(r"(?i)curlCode: [67],|could ?n[o']t (connect|resolve)")


def fetch_items(
    work: pa.Table,
    max_bytes: int,
    options: ReadOptions = ReadOptions(),  # noqa: B008  # frozen
) -> Iterator[Item]:
    """The items behind a WORK table; every listed image yields exactly one, whatever happens."""
    is_image = pc.equal(work["kind"], Kind.IMAGE.value)
    for row in work.filter(pc.invert(is_image)).to_pylist():
        items = _shard_items(row, max_bytes, options)
        yield from _mark_last(items, already=len(row["_done"] or ()))
    yield from _read_ahead(work.filter(is_image).to_pylist(), max_bytes, options)


def read_bytes(uri: str) -> bytes:
    """The whole object.

    Raises:
        FetchError: with the code that says whether another try makes sense.
    """
    patience = _Patience()
    while True:
        try:
            with _open(uri) as stream:
                return stream.read()
        except FetchError as error:
            patience.pause(error)


class _Patience:
    """How often and how long one object is tried again: some errors are the object's own, but a
    server that is away (restarted, failed over) takes everything with it, and comes back."""

    def __init__(self) -> None:
        self.pauses = iter(RETRY_PAUSES_SECONDS)
        self.give_up = time.monotonic() + OUTAGE_SECONDS

    def pause(self, error: FetchError) -> None:
        """Wait before another try; raise the error where there is none left, or none makes
        sense."""
        if _is_outage(error) and time.monotonic() < self.give_up:
            time.sleep(OUTAGE_PAUSE_SECONDS)
            return
        pause = next(self.pauses, None)
        if pause is None or error.code in ("not_found", "access_denied"):
            raise error
        time.sleep(pause)


def _is_outage(error: FetchError) -> bool:
    """Whether no connection came about: what curl (behind pyarrow), botocore and the operating
    system call it."""
    text = str(error)
    return isinstance(error.__cause__, ConnectionRefusedError) or bool(_NO_CONNECTION.search(text))


def _classify(error: Exception) -> FetchError:
    """The error class of a storage failure; object stores tell theirs only in the text."""
    text = one_line(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return FetchError("not_found", f"no longer there: {text}")
    if isinstance(error, PermissionError) or "ACCESS_DENIED" in text:
        return FetchError("access_denied", text)
    if isinstance(error, TimeoutError) or "timeout" in text.lower() or "timed out" in text:
        return FetchError("timeout", text)
    return FetchError("storage_error", text)


@cache
def _s3(endpoint: str | None, region: str | None) -> pafs.S3FileSystem:
    """pyarrow's client takes a quarter of s3fs' CPU time per object; settings as botocore's."""
    options = {"endpoint_override": endpoint, "region": region}
    given = {name: value for name, value in options.items() if value}
    return pafs.S3FileSystem(connect_timeout=10, request_timeout=60, **given)


@dataclass(frozen=True)
class _Stream:
    """A file over an object. Every filesystem raises classes of its own; here all become one."""

    file: Any

    def read(self, size: int | None = None) -> bytes:
        data: bytes = self._call("read", size)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        position: int = self._call("seek", offset, whence)
        return position

    def tell(self) -> int:
        position: int = self._call("tell")
        return position

    @property
    def closed(self) -> bool:
        return bool(self.file.closed)

    def close(self) -> None:
        """Left to whoever opened it: Arrow closes what it reads."""

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self.file, method)(*arguments)
        except Exception as error:
            raise _classify(error) from error


@contextmanager
def _open(uri: str, buffer_size: int | None = None) -> Iterator[_Stream]:
    """The object as a stream; FetchError, here and when reading, says why it cannot be read."""
    try:
        file = _open_file(*split_uri(uri), buffer_size)
    except Exception as error:
        raise _classify(error) from error
    with file:
        yield _Stream(file)


def _open_file(protocol: str, path: str, buffer_size: int | None) -> Any:
    """An open binary file over the object; without a buffer every read is a request."""
    if protocol == "file":
        return open(local_path(path), "rb")
    if protocol == "s3" and "//" not in path:  # in pyarrow's eyes no key has empty components
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        s3 = _s3(s3_endpoint(), region)
        if buffer_size is None:
            return s3.open_input_file(path)  # knows its size, and reads it with one request
        return s3.open_input_stream(path, buffer_size=buffer_size)
    return filesystem(protocol).open(path, "rb")


def _item(row: dict[str, Any], **values: Any) -> Item:
    """What a WORK row says of an image, or of those in a shard."""
    item = Item(
        uri=row["uri"],
        source_version=row["source_version"],
        size_bytes=row["size_bytes"],
        kept=row.get(KEPT),
    )
    return replace(item, **values)


def _fetch(row: dict[str, Any], max_bytes: int, options: ReadOptions) -> Item:
    item = _item(row)
    try:
        check_size(row["size_bytes"], max_bytes)
        if is_web(item.uri):
            data = read_url(item.uri, max_bytes, allow_private=options.allow_private_urls)
        else:
            data = read_bytes(item.uri)
        check_size(len(data), max_bytes)
    except ItemError as error:
        return replace(item, error=error)
    return replace(item, data=data, size_bytes=len(data))


def _read_ahead(rows: list[dict[str, Any]], max_bytes: int, options: ReadOptions) -> Iterator[Item]:
    """Items in the order of ``rows``, fetched by threads within the window."""
    waiting: deque[tuple[Future[Item], int]] = deque()
    held = 0
    guess = WINDOW_BYTES // WINDOW_IMAGES  # of unknown sizes: the largest one so far
    with ThreadPoolExecutor(WINDOW_IMAGES) as threads:
        for row in rows:
            known = row["size_bytes"]
            size = min(guess if known is None else known, max_bytes)
            while waiting and (len(waiting) >= WINDOW_IMAGES or held + size > WINDOW_BYTES):
                future, freed = waiting.popleft()
                held -= freed
                item = future.result()
                guess = max(guess, item.size_bytes or 0)
                yield item
            waiting.append((threads.submit(_fetch, row, max_bytes, options), size))
            held += size
        while waiting:
            yield waiting.popleft()[0].result()


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
    is_done = base.uri in done
    try:
        for item in _shard_members(base, Kind(row["kind"]), done, max_bytes, options):
            yield item
            done.add(item.uri)
    except ItemError as error:
        if not is_done:
            yield replace(base, error=error, size_bytes=row["size_bytes"])


def _shard_members(
    base: Item, kind: Kind, done: Set[str], max_bytes: int, options: ReadOptions
) -> Iterator[Item]:
    """Every image that is not done yet; when the storage fails, the shard is opened anew."""
    patience = _Patience()
    buffer_size = TAR_BUFFER_BYTES if kind is Kind.WEBDATASET else None
    while True:
        try:
            with _open(base.uri, buffer_size) as stream:
                if kind is Kind.PARQUET:
                    members = parquet_members(stream, base, done, max_bytes, options)
                else:
                    members = tar_members(stream, base, max_bytes, options)
                yield from (item for item in members if item.uri not in done)
            return
        except FetchError as error:
            patience.pause(error)
