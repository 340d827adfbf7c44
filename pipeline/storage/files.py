"""The bytes of one file, wherever it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

from fsspec.spec import AbstractFileSystem

from pipeline.contract.errors import FetchError, JobError, UsageError, one_line
from pipeline.storage.filesystems import SpecialFileError, filesystem, open_local
from pipeline.storage.objects.bodies import RangeFile, RemoteObject
from pipeline.storage.objects.filesystem import ObjectFileSystem, StoreObject
from pipeline.storage.objects.s3.requests import S3Object
from pipeline.storage.read_ahead import Hold, WindowClosedError
from pipeline.storage.retry import Patience, classify
from pipeline.storage.uris import split_uri

_MORE_BYTES = 2**20
"""How much is read at a time of what an object has beyond its size."""

T = TypeVar("T")


def read_bytes(uri: str, max_bytes: int = sys.maxsize, hold: Hold = lambda size: None) -> bytes:
    """The whole object.

    Args:
        uri: of a local file or an object; not a web address.
        max_bytes: the most it may have.
        hold: called with its size as soon as that is known, before it is read.

    Raises:
        FetchError: it cannot be read; the code says why.
    """

    def read() -> bytes:
        with closing(_open(*split_uri(uri), is_streamed=True)) as file:
            size = _size(file)
            check_size(size, max_bytes)
            hold(size)
            return _read_all(file, size, max_bytes, hold)

    return _with_patience(read)


def _read_all(file: Any, size: int, max_bytes: int, hold: Hold) -> bytes:
    """All bytes, of which there may be more than ``size`` says, but not more than allowed."""
    data: bytes = file.read(size + 1)
    if len(data) == size:
        return data
    found = bytearray(data)
    while len(found) <= max_bytes:
        hold(len(found) + _MORE_BYTES)
        if not (more := file.read(min(_MORE_BYTES, max_bytes + 1 - len(found)))):
            return bytes(found)
        found += more
    raise FetchError("too_large", f"more bytes than --max-bytes {max_bytes}")


def _with_patience(read: Callable[[], T]) -> T:
    """What ``read`` returns, as soon as the storage lets it; FetchError if it never does."""
    patience = Patience()
    while True:
        try:
            result = read()
        except (JobError, WindowClosedError):
            raise
        except SpecialFileError as error:
            raise FetchError("url_refused", str(error)) from error
        except Exception as error:  # noqa: BLE001  # every filesystem raises classes of its own
            patience.pause(classify(error))
        else:
            patience.succeed()
            return result


def _open(protocol: str, path: str, *, start: int = 0, is_streamed: bool) -> Any:
    """The object as an open binary file, at ``start``. If streamed, it is only read in order;
    otherwise it can also seek."""
    if protocol == "file":
        file: Any = open_local(path)
    elif remote := _remote_object(protocol, path):
        if is_streamed:
            return remote.open(start)
        file = RangeFile(remote)
    else:
        file = _filesystem(protocol).open(path, "rb")
    file.seek(start)
    return file


def _remote_object(protocol: str, path: str) -> RemoteObject | None:
    """What is read by requests of our own; None for other filesystems."""
    if protocol == "s3":
        return S3Object(path)
    store = _filesystem(protocol)
    return StoreObject(store, path) if isinstance(store, ObjectFileSystem) else None


def _filesystem(protocol: str) -> AbstractFileSystem:
    """The filesystem of a protocol that somebody's list names: if there is none here, that is the
    fault of the list's line."""
    try:
        return filesystem(protocol)
    except UsageError as error:
        raise FetchError("url_refused", one_line(error)) from error


def _size(file: Any) -> int:
    """In bytes."""
    size = getattr(file, "size", None)
    if size is None:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
    return int(size)


class FileStream:
    """A shard as a file that survives failing requests: it is reopened where one failed."""

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

    def rewind(self) -> None:
        """Go back to the start, also in what is streamed."""
        self.end()
        self._position = 0

    @property
    def closed(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing: Arrow closes what it reads, but only the opener may, by ``end``."""

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


def check_size(size: int | None, max_bytes: int) -> None:
    """Refuse an image that is larger than allowed.

    Raises:
        FetchError: too_large.
    """
    if size is not None and size > max_bytes:
        raise FetchError("too_large", f"{size} bytes are more than --max-bytes {max_bytes}")
