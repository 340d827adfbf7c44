"""The directories of a TIFF or BigTIFF file, read and written."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

_CODES = {
    1: "B",
    3: "H",
    4: "I",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
_LONG, _LONG_8 = 4, (16, 17, 18)
# More than any field has that pixels need: the palette of 16 bits, three numbers a colour.
_MOST_VALUES = 1 << 18
_MOST_BYTES = 1 << 20
# Bytes of a value, by its kind.
_SIZES = {2: 1, 5: 8, 10: 8, 11: 4, 12: 8} | {
    kind: struct.calcsize("=" + code) for kind, code in _CODES.items()
}


@dataclass(frozen=True)
class Entry:
    """One field, its values still packed."""

    kind: int
    count: int
    field: bytes
    """The values, or where they are if they take more than these bytes."""


@dataclass(frozen=True)
class Directory:
    """The fields of one image. Methods raise struct.error where the file is cut off."""

    data: bytes
    order: str
    """As in `struct`: < or >."""
    is_big: bool
    entries: Mapping[int, Entry]
    next: int
    """Where the next directory begins; 0 for none."""

    @classmethod
    def first_of(cls, data: bytes) -> Self:
        """The directory of the file's first image."""
        order = "<" if data[:2] == b"II" else ">"
        is_big = 43 in data[2:4]
        (offset,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
        return cls._at(data, offset, order, is_big=is_big)

    @classmethod
    def _at(cls, data: bytes, offset: int, order: str, *, is_big: bool) -> Self:
        if offset >= len(data):
            raise struct.error("a directory lies beyond the end of the file")
        (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, offset)
        start, layout = offset + (8 if is_big else 2), order + ("HHQ8s" if is_big else "HHI4s")
        size = struct.calcsize(layout)
        if count * size > len(data) - start:
            raise struct.error("a directory is cut off")
        entries: dict[int, Entry] = {}
        for position in range(start, start + count * size, size):
            tag, kind, length, field = struct.unpack_from(layout, data, position)
            entries.setdefault(tag, Entry(kind, length, field))
        end = start + count * size
        pointer = order + ("Q" if is_big else "I")
        is_whole = end + struct.calcsize(pointer) <= len(data)
        following = struct.unpack_from(pointer, data, end)[0] if is_whole else 0
        return cls(data, order, is_big, entries, following)

    def others(self, most: int) -> Iterator[tuple[Self, bool]]:
        """The directories below and behind this one, and whether each lies below; at most ``most``.

        Those that cannot be read are left out.
        """
        wanted = [(offset, True) for offset in self.values(330, most)]
        wanted.append((self.next, False))
        for offset, is_below in wanted:
            if offset == 0:
                continue
            try:
                yield self._at(self.data, offset, self.order, is_big=self.is_big), is_below
            except (struct.error, OverflowError):
                continue

    def values(self, tag: int, most: int = _MOST_VALUES) -> tuple[int, ...]:
        """The whole numbers of a field, but no more than ``most``, since each takes many times its
        size in the file; none if it is absent or of another type.
        """
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _CODES:
            return ()
        size = entry.count * _SIZES[entry.kind]
        code = f"{self.order}{min(entry.count, most)}{_CODES[entry.kind]}"
        return struct.unpack_from(code, *self._place(entry, size))

    def first(self, tag: int, default: int) -> int:
        """The first number of a field."""
        return (self.values(tag, 1) or (default,))[0]

    def text(self, tag: int) -> bytes:
        """The bytes of a field; none if it is absent or cut off."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in (1, 2, 7):
            return b""
        source, start = self._place(entry, entry.count)
        return source[start : start + entry.count]

    def _place(self, entry: Entry, size: int) -> tuple[bytes, int]:
        if size <= len(entry.field):
            return entry.field, 0
        (offset,) = struct.unpack(self.order + ("Q" if self.is_big else "I"), entry.field)
        return self.data, offset

    def rebuilt(self, keep: frozenset[int], changes: Mapping[int, tuple[int, ...]]) -> bytes:
        """The file as a classic TIFF with one directory: of the fields to keep, and of new ones.

        Pillow cannot read a BigTIFF whose numbers have their highest byte first.
        """
        fields: dict[int, tuple[int, int, bytes]] = {}
        for tag, entry in self.entries.items():
            size = entry.count * _SIZES.get(entry.kind, 0)
            if tag in keep and 0 < size <= _MOST_BYTES:
                fields[tag] = self._classic(tag, entry)
        for tag, values in changes.items():
            fields[tag] = _LONG, len(values), struct.pack(f"{self.order}{len(values)}I", *values)
        behind = bytearray(len(self.data) % 2)
        start = len(self.data)
        entries = bytearray(struct.pack(self.order + "H", len(fields)))
        for tag, (kind, count, packed) in sorted(fields.items()):
            field = packed.ljust(4, b"\0")
            if len(packed) > 4:
                field = struct.pack(self.order + "I", start + len(behind))
                behind += packed + bytes(len(packed) % 2)
            entries += struct.pack(self.order + "HHI4s", tag, kind, count, field)
        mark = b"II" if self.order == "<" else b"MM"
        header = mark + struct.pack(self.order + "HI", 42, start + len(behind))
        return b"".join([header, memoryview(self.data)[8:], behind, entries, bytes(4)])

    def _classic(self, tag: int, entry: Entry) -> tuple[int, int, bytes]:
        """Kind, count and packed values as they are without BigTIFF's long numbers."""
        if entry.kind in _LONG_8:
            values = self.values(tag)
            return _LONG, len(values), struct.pack(f"{self.order}{len(values)}I", *values)
        size = entry.count * _SIZES[entry.kind]
        source, start = self._place(entry, size)
        packed = source[start : start + size]
        if len(packed) < size:
            raise struct.error(f"field {tag} is cut off")
        return entry.kind, entry.count, packed
