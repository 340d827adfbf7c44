"""How large the frames of an AVIF file really are: their own headers say it, not the file's.

Decoders decode a frame whatever its size, and then scale it to what the file says. Where a file is
damaged nothing is found here, and the decoder has the last word.
"""

import struct
from collections.abc import Iterator

_SEQUENCE, _FRAME = 1, (3, 6)
_MOST_ITEMS = 1024
_MOST_BYTES = 1 << 16
"""Of an item, in whose first bytes the size stands."""
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_Size = tuple[int, int]


def frame_sizes(data: bytes) -> Iterator[_Size]:
    """Width and height of what is coded in the file's items and at the start of its tracks."""
    try:
        for kind, start, end in _boxes(data, 0, len(data)):
            if kind == b"meta":
                yield from _of_items(data, start + 4, end)
            if kind == b"moov":
                for place in _tracks(data, start, end):
                    yield from _of_frame(data[place : place + _MOST_BYTES])
    except (struct.error, IndexError):
        return


def _boxes(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each box, and where its content begins and ends."""
    while position + 8 <= end:
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


def _tracks(data: bytes, start: int, end: int) -> Iterator[int]:
    """Where the first chunk of each track lies."""
    for kind, first, last in _boxes(data, start, end):
        if kind in _PARENTS:
            yield from _tracks(data, first, last)
        elif kind in (b"stco", b"co64"):
            yield struct.unpack_from(">I" if kind == b"stco" else ">Q", data, first + 8)[0]


def _of_items(data: bytes, start: int, end: int) -> Iterator[_Size]:
    found = {kind: (first, last) for kind, first, last in _boxes(data, start, end)}
    if b"iinf" not in found or b"iloc" not in found:
        return
    coded = {*_coded_items(data, *found[b"iinf"])}
    inside, _ = found.get(b"idat", (0, 0))
    for item, extents in _locations(data, found[b"iloc"][0], inside):
        if item in coded:
            parts = (data[place : place + size or None] for place, size in extents)
            yield from _of_frame(b"".join(part[:_MOST_BYTES] for part in parts)[:_MOST_BYTES])


def _coded_items(data: bytes, start: int, end: int) -> Iterator[int]:
    """The numbers of the items that are frames."""
    entries = start + (6 if data[start] == 0 else 8)
    for kind, first, _ in _boxes(data, entries, end):
        layout = ">HH4s" if data[first] < 3 else ">IH4s"
        item, _, what = struct.unpack_from(layout, data, first + 4)
        if kind == b"infe" and what == b"av01":
            yield item


def _locations(data: bytes, start: int, inside: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """The extents (place, size) of each item."""
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

    for _ in range(min(read(number), _MOST_ITEMS)):
        item = read(number)
        is_inside = bool(version) and read(2) & 15 == 1
        read(2)
        base = read(sizes[2]) + (inside if is_inside else 0)
        extents = []
        for _ in range(min(read(2), _MOST_ITEMS)):
            read(sizes[3])
            extents.append((base + read(sizes[0]), read(sizes[1])))
        yield item, extents


def _of_frame(data: bytes) -> Iterator[_Size]:
    """The size in each sequence header before the first frame."""
    position = 0
    while position < len(data):
        head, position = data[position], position + 1
        position += head >> 2 & 1  # an extension of the header
        size = len(data) - position
        if head & 2:
            size, shift = 0, 0
            while True:
                byte, position = data[position], position + 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128 or shift > 56:
                    break
        if head >> 3 & 15 == _SEQUENCE:
            yield _size(_Bits(data[position : position + size]))
        if head >> 3 & 15 in _FRAME:
            return
        position += size


class _Bits:
    """Bits of a header, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._left = int.from_bytes(data[:128], "big"), 8 * len(data[:128])

    def read(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._bits >> self._left & (1 << count) - 1


def _size(bits: _Bits) -> _Size:
    """The largest frame of a sequence (AV1 specification, 5.5.1)."""
    bits.read(3 + 1)
    if bits.read(1):  # a still picture's short header
        bits.read(5)
        return _sides(bits)
    delay = 0
    has_model = False
    if bits.read(1):  # timing
        bits.read(32 + 32)
        if bits.read(1):
            zeros = 0
            while not bits.read(1):
                zeros += 1
            bits.read(zeros)
        has_model = bool(bits.read(1))
        if has_model:
            delay = bits.read(5) + 1
            bits.read(32 + 5 + 5)
    has_display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if has_model and bits.read(1):
            bits.read(2 * delay + 1)
        if has_display_delay and bits.read(1):
            bits.read(4)
    return _sides(bits)


def _sides(bits: _Bits) -> _Size:
    across, down = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(across) + 1, bits.read(down) + 1
