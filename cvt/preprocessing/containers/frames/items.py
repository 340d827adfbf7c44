"""Items of an ISO media file (AVIF, HEIF): its boxes, what each item is, and where its bytes lie.

Where a file is damaged, IndexError or struct.error is raised, or nothing more is found.
"""

import struct
from collections.abc import Iterator

MOST_ITEMS = 1 << 14
"""Of items and their pieces together, more are not looked for."""
_MOST_BOXES = 1 << 16
Extents = list[tuple[int, int]]
"""Place and size of each piece; a size of 0 reaches to the end of the file."""


def boxes(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each box, and where its content begins and ends."""
    for _ in range(_MOST_BOXES):
        if position + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        stop = end if size == 0 else position + size
        if stop < start:
            return
        yield kind, start, min(stop, end)
        position = stop


def kinds(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Number and kind of each item, from the content of ``iinf``."""
    entries = start + (6 if data[start] == 0 else 8)
    for kind, first, _ in boxes(data, entries, end):
        layout = ">HH4s" if data[first] < 3 else ">IH4s"
        if kind == b"infe":
            item, _, what = struct.unpack_from(layout, data, first + 4)
            yield item, what


def locations(data: bytes, start: int, inside: int) -> Iterator[tuple[int, Extents]]:
    """Number and extents of each item, from the content of ``iloc``.

    inside: where the content of ``idat`` begins, in which items may lie.
    """
    version, sizes = data[start], [data[start + 4] >> 4, data[start + 4] & 15]
    sizes += [data[start + 5] >> 4, data[start + 5] & 15 if version else 0]
    position = start + 6
    number = 2 if version < 2 else 4

    def read(size: int) -> int:
        nonlocal position
        if position + size > len(data):
            raise IndexError
        position += size
        return int.from_bytes(data[position - size : position], "big")

    left = MOST_ITEMS
    for _ in range(read(number)):
        item = read(number)
        is_inside = bool(version) and read(2) & 15 == 1
        read(2)
        base = read(sizes[2]) + (inside if is_inside else 0)
        pieces = read(2)
        left -= 1 + pieces
        if left < 0:
            return
        extents = []
        for _ in range(pieces):
            read(sizes[3])
            extents.append((base + read(sizes[0]), read(sizes[1])))
        yield item, extents


def content(data: bytes, extents: Extents, most: int) -> bytes:
    """The first bytes of an item, ``most`` at most."""
    found = bytearray()
    for place, size in extents:
        left = most - len(found)
        if left <= 0:
            break
        found += data[place : place + (min(size, left) or left)]
    return bytes(found)
