"""The bytes of an image: out of a file, an object, or a member of a tar.

Fetching runs ahead of decoding in threads, so that the latency of the storage hides behind the
work of the core; the window is bounded in images and in bytes.
"""

from __future__ import annotations

import os
import tarfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import IO, Any, Self, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from pipeline.errors import FetchError, ItemError, ShardError, one_line
from pipeline.inventory import Kind
from pipeline.spec import IMAGE_EXTENSIONS
from pipeline.storage import filesystem, local_path, printable, s3_endpoint, split_uri

WINDOW_IMAGES = 32
WINDOW_BYTES = 64 * 2**20
TAR_BUFFER_BYTES = 4 * 2**20
"""One request to an object store; each of tarfile's own reads is of 10 KiB."""
RETRY_PAUSES_SECONDS = (0.2, 1.0)

_IMAGE_SUFFIXES = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image on its way to the decoder: its bytes, or why there are none."""

    uri: str
    source_version: str | None
    size_bytes: int | None
    data: bytes | None = None
    error: ItemError | None = None
    shard: str | None = None
    shard_rows: int | None = None
    """On the last item of a shard: how many rows the shard has in all."""


def fetch_items(work: pa.Table, max_bytes: int) -> Iterator[Item]:
    """The items behind a WORK table; every listed image yields exactly one, whatever happens."""
    for row in work.filter(pc.equal(work["kind"], Kind.WEBDATASET.value)).to_pylist():
        yield from _mark_last(_shard_items(row, max_bytes), already=len(row["_done"] or ()))
    images = work.filter(pc.equal(work["kind"], Kind.IMAGE.value)).to_pylist()
    yield from _read_ahead(images, max_bytes)


def read_bytes(uri: str) -> bytes:
    """The whole object.

    Raises:
        FetchError: with the code that says whether another try makes sense.
    """
    pauses = iter(RETRY_PAUSES_SECONDS)
    while True:
        try:
            with _open(uri) as stream:
                return stream.read()
        except FetchError as error:
            _pause(error, pauses)


def _pause(error: FetchError, pauses: Iterator[float]) -> None:
    """Wait before another try; raise the error where there is none left, or none makes sense."""
    pause = next(pauses, None)
    if pause is None or error.code in ("not_found", "access_denied"):
        raise error
    time.sleep(pause)


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
    """The bytes of an object. Every filesystem raises classes of its own; here all become one."""

    file: Any

    def read(self, size: int | None = None) -> bytes:
        try:
            data: bytes = self.file.read(size)
        except Exception as error:
            raise _classify(error) from error
        return data


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


def _fetch(row: dict[str, Any], max_bytes: int) -> Item:
    item = Item(uri=row["uri"], source_version=row["source_version"], size_bytes=row["size_bytes"])
    try:
        _check_size(row["size_bytes"], max_bytes)
        data = read_bytes(row["uri"])
        _check_size(len(data), max_bytes)
    except ItemError as error:
        return replace(item, error=error)
    return replace(item, data=data, size_bytes=len(data))


def _check_size(size: int | None, max_bytes: int) -> None:
    if size is not None and size > max_bytes:
        raise FetchError("too_large", f"{size} bytes are more than --max-bytes {max_bytes}")


def _read_ahead(rows: list[dict[str, Any]], max_bytes: int) -> Iterator[Item]:
    """Items in the order of ``rows``, fetched by threads within the window."""
    waiting: deque[tuple[Future[Item], int]] = deque()
    held = 0
    with ThreadPoolExecutor(WINDOW_IMAGES) as threads:
        for row in rows:
            size = min(row["size_bytes"] or 0, max_bytes)
            while waiting and (len(waiting) >= WINDOW_IMAGES or held + size > WINDOW_BYTES):
                future, freed = waiting.popleft()
                held -= freed
                yield future.result()
            waiting.append((threads.submit(_fetch, row, max_bytes), size))
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


def _shard_items(row: dict[str, Any], max_bytes: int) -> Iterator[Item]:
    """The images of a tar, streamed; what makes the rest unreadable is one more, failed item."""
    base = Item(
        uri=row["uri"], source_version=row["source_version"], size_bytes=None, shard=row["uri"]
    )
    done = set(row["_done"] or ())
    try:
        for item in _shard_members(base, max_bytes):
            if item.uri not in done:
                yield item
    except ItemError as error:
        if base.uri not in done:
            yield replace(base, error=error, size_bytes=row["size_bytes"])


def _shard_members(base: Item, max_bytes: int) -> Iterator[Item]:
    """Every image once; when the storage fails, the tar is read anew up to where it broke off."""
    pauses = iter(RETRY_PAUSES_SECONDS)
    found = 0
    while True:
        try:
            with _open(base.uri, TAR_BUFFER_BYTES) as stream:
                for item in islice(_tar_members(stream, base, max_bytes), found, None):
                    found += 1
                    yield item
            break
        except FetchError as error:
            _pause(error, pauses)
    if not found:
        raise ShardError("shard_empty", "the tar holds no image")


class _Header(tarfile.TarInfo):
    """A header of a tar. To tarfile the first one that is missing or damaged is the end; here that
    is what the end mark is for, a block of zeros."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) < tarfile.BLOCKSIZE:
            raise ShardError("shard_truncated", "the tar ends without its end mark")
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise ShardError("shard_corrupt", f"no header of a tar: {error}") from error
            raise


def _tar_members(stream: _Stream, base: Item, max_bytes: int) -> Iterator[Item]:
    """Image members in the order of the tar; a name that comes again gets a number."""
    seen: set[str] = set()
    try:
        file = cast(IO[bytes], stream)  # of which a stream mode only reads
        with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Header) as tar:
            for member in tar:
                if member.isfile() and member.name.lower().endswith(_IMAGE_SUFFIXES):
                    uri = _unused(f"{base.uri}#{printable(member.name)}", seen)
                    yield _read_member(tar, member, replace(base, uri=uri), max_bytes)
    except ItemError:
        raise
    except Exception as error:  # of damaged headers tarfile raises whatever it trips over
        ends = isinstance(error, EOFError) or "unexpected end" in str(error)
        code = "shard_truncated" if ends else "shard_corrupt"
        raise ShardError(code, f"the tar ends early or is damaged: {one_line(error)}") from error


def _unused(uri: str, seen: set[str]) -> str:
    unused, number = uri, 1
    while unused in seen:
        number += 1
        unused = f"{uri}#{number}"
    seen.add(unused)
    return unused


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo, item: Item, max_bytes: int) -> Item:
    item = replace(item, size_bytes=member.size)
    try:
        _check_size(member.size, max_bytes)
    except FetchError as error:
        return replace(item, error=error)
    file = tar.extractfile(member)
    data = file.read() if file else b""
    if len(data) < member.size:
        raise ShardError("shard_truncated", f"the tar ends inside {member.name}")
    return replace(item, data=data)
