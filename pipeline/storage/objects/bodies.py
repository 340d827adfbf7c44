"""The bytes of an object as they arrive, and an object as a file in which one can seek."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any, BinaryIO, Protocol, cast

from pipeline.contract.errors import FetchError, one_line
from pipeline.storage.retry import PassingError


class RemoteObject(Protocol):
    """An object that requests read."""

    def open(self, start: int = 0, stop: int | None = None) -> Body | UnpackedBody:
        """Its bytes from ``start`` up to ``stop``, or to the end."""

    def size(self) -> int:
        """In bytes."""


class Body:
    """The bytes that a server sends, as a file that is read once, in order.

    Args:
        raw: urllib3's response, or botocore's.
        size: how many bytes it has.
    """

    def __init__(self, raw: Any, size: int) -> None:
        self._raw = raw
        self.size = size
        self._left = size

    def read(self, size: int | None = None) -> bytes:
        data: bytes = self._raw.read(size)
        self._left -= len(data)
        if self._left and (size is None or not data):
            raise PassingError("storage_error", f"the connection broke {self._left} bytes early")
        return data

    def close(self) -> None:
        """The connection is used again if everything was read, and closed otherwise."""
        self._raw.close()
        self._raw.release_conn()


class UnpackedBody:
    """The bytes of an object that is stored with ``Content-Encoding: gzip``: as every client of
    such a store gives them, unpacked."""

    def __init__(self, packed: Body) -> None:
        self._packed = packed
        self._file = gzip.GzipFile(fileobj=cast(BinaryIO, packed))
        self.size = packed.size
        """As it is stored."""

    def read(self, size: int | None = None) -> bytes:
        try:
            return self._file.read(-1 if size is None else size)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            text = f"it has Content-Encoding: gzip, and does not unpack: {one_line(error)}"
            raise FetchError("storage_error", text) from error

    def close(self) -> None:
        self._packed.close()


class RangeFile:
    """An object as a seekable file; every read is a request of its own."""

    def __init__(self, remote: RemoteObject) -> None:
        self._object = remote
        self._position = 0
        self._size: int | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}
        self._position = offset + (base[whence] if whence in base else self._end())
        return self._position

    def read(self, size: int | None = None) -> bytes:
        stop = self._end() if size is None else min(self._position + size, self._end())
        if stop <= self._position:
            return b""
        body = self._object.open(self._position, stop)
        try:
            data = body.read()
        finally:
            body.close()
        self._position += len(data)
        return data

    def close(self) -> None:
        """Nothing is open between two reads."""

    def _end(self) -> int:
        if self._size is None:
            self._size = self._object.size()
        return self._size
