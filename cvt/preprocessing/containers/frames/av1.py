"""How large the frames of an AVIF file really are: their own headers say it, not the file's.

Decoders decode a frame whatever its size, and then scale it to what the file says. Where a file is
damaged nothing is found here, and the decoder has the last word.
"""

import struct
from collections.abc import Iterator

from cvt.preprocessing.containers.frames.items import boxes, content, kinds, locations

_SEQUENCE, _FRAME = 1, (3, 6)
_MOST_BYTES = 1 << 16
"""Of an item, in whose first bytes the size stands."""
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_Size = tuple[int, int]


def frame_sizes(data: bytes) -> Iterator[_Size]:
    """Width and height of what is coded in the file's items and at the start of its tracks."""
    try:
        for kind, start, end in boxes(data, 0, len(data)):
            if kind == b"meta":
                yield from _of_items(data, start + 4, end)
            if kind == b"moov":
                for place in _tracks(data, start, end):
                    yield from _of_frame(data[place : place + _MOST_BYTES])
    except (struct.error, IndexError):
        return


def _tracks(data: bytes, start: int, end: int) -> Iterator[int]:
    """Where the first chunk of each track lies."""
    for kind, first, last in boxes(data, start, end):
        if kind in _PARENTS:
            yield from _tracks(data, first, last)
        elif kind in (b"stco", b"co64"):
            yield struct.unpack_from(">I" if kind == b"stco" else ">Q", data, first + 8)[0]


def _of_items(data: bytes, start: int, end: int) -> Iterator[_Size]:
    found = {kind: (first, last) for kind, first, last in boxes(data, start, end)}
    if b"iinf" not in found or b"iloc" not in found:
        return
    coded = {item for item, kind in kinds(data, *found[b"iinf"]) if kind == b"av01"}
    inside, _ = found.get(b"idat", (0, 0))
    for item, extents in locations(data, found[b"iloc"][0], inside):
        if item in coded:
            yield from _of_frame(content(data, extents, _MOST_BYTES))


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
