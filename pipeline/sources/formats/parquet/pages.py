"""The pages of a Parquet file, held against a limit before they are unpacked.

Their sizes stand in their headers, which Arrow reads and believes; so they are read here, too, on
their way to Arrow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

FREE_BYTES = 128 * 2**20
MOST_TIMES = 100
"""Pages that are open at the same time may unpack to ``FREE_BYTES``, or to this many times what
they take in the file. Images hardly shrink."""
HEADER_BYTES = 16 * 2**20
"""The most that the header of a page may have; Arrow takes no longer ones either."""

_BOOLEANS = (1, 2)
_BYTE = 3
_INTEGERS = (4, 5, 6)
_DOUBLE = 7
_BINARY = 8
_STRUCT = 12
_NESTING = 8

_KIND, _UNPACKED, _PACKED = 1, 2, 3
"""Fields of a page's header."""
_DICTIONARY = 2


class PageError(ValueError):
    """A page would take too much memory, or nobody knows how much."""


class PageGuard:
    """A file for Arrow that refuses to read pages which would take too much memory.

    Raises:
        PageError: on reading one.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._chunks: list[_Chunk] = []

    def watch(self, chunks: Iterable[tuple[int, int]]) -> None:
        """Look at the pages of these column chunks, each a start and an end in the file, which are
        read next, and side by side."""
        self._chunks = [_Chunk(start, end) for start, end in chunks]

    def read(self, size: int | None = None) -> bytes:
        start = self._file.tell()
        data: bytes = self._file.read(size)
        begun = [chunk.see(start, data) for chunk in self._chunks]
        if any(begun):
            unpacked = sum(chunk.unpacked for chunk in self._chunks)
            packed = sum(chunk.packed for chunk in self._chunks)
            if unpacked > max(FREE_BYTES, MOST_TIMES * packed):
                raise PageError(f"pages of {packed} bytes that would unpack to {unpacked}")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    @property
    def closed(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing: the file is its opener's."""


class _Chunk:
    """The pages of a column in a row group, which are read in order."""

    def __init__(self, start: int, end: int) -> None:
        self._end = end
        self._header = start
        """Where the next header begins."""
        self._begun = b""
        """What has been seen of it."""
        self._sizes: dict[bool, tuple[int, int]] = {}
        """Unpacked and packed, of the dictionary, which stays, and of the newest other page."""

    @property
    def unpacked(self) -> int:
        return sum(unpacked for unpacked, _ in self._sizes.values())

    @property
    def packed(self) -> int:
        return sum(packed for _, packed in self._sizes.values())

    def see(self, start: int, data: bytes) -> bool:
        """Look at a piece of the file; whether a page begins in it."""
        is_begun = False
        while (
            start <= (seen := self._header + len(self._begun)) < min(start + len(data), self._end)
        ):
            known = self._begun + data[seen - start : seen - start + HEADER_BYTES]
            try:
                header = _Header(known)
            except _IncompleteError:
                if len(known) >= HEADER_BYTES:
                    raise _damaged("it is too long") from None
                self._begun = known
                break
            self._sizes[header.is_dictionary] = header.unpacked, header.packed
            self._header, self._begun = self._header + header.length + header.packed, b""
            is_begun = True
        return is_begun


class _Header:
    """The header of a page: a struct in Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        fields = self._struct()
        self.is_dictionary = fields.get(_KIND) == _DICTIONARY
        self.unpacked = fields.get(_UNPACKED, -1)
        self.packed = fields.get(_PACKED, -1)
        if self.unpacked < 0 or self.packed < 0:
            raise _damaged("it has no sizes")
        self.length = self._at

    def _struct(self, depth: int = 0) -> dict[int, int]:
        """Its numbers, by their field; what else there is is passed over."""
        if depth > _NESTING:
            raise _damaged("it is nested too deeply")
        fields: dict[int, int] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._number()
            kind = head & 15
            if kind in _INTEGERS:
                fields[number] = self._number()
            else:
                self._pass(kind, depth)
        return fields

    def _pass(self, kind: int, depth: int) -> None:
        if kind == _STRUCT:
            self._struct(depth + 1)
        elif kind == _BINARY:
            length = self._varint()
            self._at += length
        elif kind in (_BYTE, _DOUBLE):
            self._at += 8 if kind == _DOUBLE else 1
        elif kind not in _BOOLEANS:
            raise _damaged(f"it has a field of type {kind}")

    def _byte(self) -> int:
        if self._at >= len(self._data):
            raise _IncompleteError
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise _damaged("a number is too long")
        return value | byte << shift

    def _number(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


class _IncompleteError(Exception):
    """A header goes on beyond what there is of it."""


def _damaged(what: str) -> PageError:
    return PageError(f"the header of a page is damaged: {what}")
