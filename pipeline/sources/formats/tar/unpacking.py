"""Compressed files as streams of what they hold, recognised by their first bytes."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from pipeline.contract.errors import ShardError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK_BYTES = 2**16
LZMA_BYTES = 256 * 2**20
"""The memory that xz may take; its highest preset takes 65 MiB."""
ZSTD_BYTES = 512
FREE_BYTES = 2**30
MOST_TIMES = 2000
"""Once ``FREE_BYTES`` are unpacked, they may be this many times what was read. Deflate stays below
1033 times; no images come near it."""


class Readable(Protocol):
    """Bytes in order."""

    def read(self, size: int, /) -> bytes: ...


class _Decompressor(Protocol):
    """Of one compressed stream."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


class _Gzip:
    """One member of a gzip file; zlib reads its header, whatever fields it has, and checks it."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data


def _lzma() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=LZMA_BYTES)


_DECOMPRESSORS: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": _Gzip,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": _lzma,
    b"\x5d\0\0\x80": _lzma,
}
"""By the first bytes of a stream."""
_ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes([n]) + b"\x2a\x4d\x18" for n in range(0x50, 0x60)))
"""The first bytes of a frame, and those of one to be skipped."""


def unpacked(stream: Readable) -> io.BufferedReader:
    """The content of a file: as it is, or of gzip, bzip2, xz or zstd. Streams that follow one
    another are one, as for their tools; what follows them and is none is ignored, likewise.

    Reading it takes bounded memory, and raises EOFError or OSError where the file breaks off, and
    what zlib, bz2, lzma and Arrow raise on damage.
    """
    head = b""
    while len(head) < 8 and (more := stream.read(8 - len(head))):
        head += more
    source = _Source(stream, head)
    if head.startswith(_ZSTD):
        frames = pa.CompressedInputStream(pa.PythonFile(source, mode="r"), "zstd")
        # Of a read that meets damage, Arrow loses what it has so far.
        return io.BufferedReader(_Unpacked(source, lambda _: frames.read(ZSTD_BYTES)), CHUNK_BYTES)
    for magic, decompressor in _DECOMPRESSORS.items():
        if head.startswith(magic):
            streams = _Streams(source, magic, decompressor)
            return io.BufferedReader(_Unpacked(source, streams.read), CHUNK_BYTES)
    return io.BufferedReader(source, CHUNK_BYTES)


class _Source(io.RawIOBase):
    """The file as it is stored, put together again from its first bytes and the rest."""

    def __init__(self, stream: Readable, head: bytes) -> None:
        self.total = 0
        """Bytes that were read."""
        self._stream = stream
        self._head = head

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        data = self._head[: len(view)] or self._stream.read(len(view))
        self._head = self._head[len(data) :]
        self.total += len(data)
        view[: len(data)] = data
        return len(data)


class _Unpacked(io.RawIOBase):
    """What ``produce`` gives, at most as many bytes as it is asked for."""

    def __init__(self, source: _Source, produce: Callable[[int], bytes]) -> None:
        self._source = source
        self._produce = produce
        self._total = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        data = self._produce(len(view))
        self._total += len(data)
        if self._total > max(FREE_BYTES, MOST_TIMES * self._source.total):
            raise ShardError(
                "shard_corrupt", f"it unpacks to more than {MOST_TIMES} times its size"
            )
        view[: len(data)] = data
        return len(data)


class _Streams:
    """Compressed streams that follow one another, with or without zeros between them."""

    def __init__(
        self, source: _Source, magic: bytes, decompressor: Callable[[], _Decompressor]
    ) -> None:
        self._source = source
        self._magic = magic
        self._decompressor = decompressor
        self._current = decompressor()
        self._pending = b""
        """What was read, and not given to it yet."""

    def read(self, size: int) -> bytes:
        """At least one byte, unless it is the end."""
        while True:
            if self._current.eof and not self._begin_next():
                return b""
            is_hungry = self._current.needs_input
            data = self._input() if is_hungry else b""
            if made := self._current.decompress(data, size):
                return made
            if is_hungry and not data and not self._current.eof:
                raise EOFError("the compressed data breaks off")

    def _input(self) -> bytes:
        data, self._pending = self._pending, b""
        return data or self._source.read(CHUNK_BYTES) or b""

    def _begin_next(self) -> bool:
        rest = self._current.unused_data.lstrip(b"\0")
        while len(rest) < len(self._magic) and (more := self._source.read(CHUNK_BYTES)):
            rest = (rest + more).lstrip(b"\0")
        if not rest.startswith(self._magic):
            return False
        self._current, self._pending = self._decompressor(), rest
        return True
