"""What the header of a JP2 file says of its components: palette, channels and colour space."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from cvt.errors import CorruptImageError, UnsupportedFormatError

SIGNATURE = b"\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a"
GREY, RGB, YCC, CMYK = "grey", "RGB", "YCC", "CMYK"
_SPACES = {0: GREY, 12: CMYK, 15: GREY, 16: RGB, 17: GREY, 18: YCC, 20: RGB, 21: RGB}
_PROFILES = {b"GRAY": GREY, b"RGB ": RGB}
COLOUR, OPACITY, PREMULTIPLIED = 0, 1, 2


@dataclass(frozen=True)
class Palette:
    """Colours for the values of a component."""

    columns: npt.NDArray[np.uint8]
    """(entries, channels)."""
    channels: tuple[tuple[int, int | None], ...]
    """For each channel its component, and its column unless it needs none."""


@dataclass(frozen=True)
class Header:
    """What a JP2 header says; a bare codestream says nothing."""

    space: str | None = None
    palette: Palette | None = None
    kinds: tuple[tuple[int, int, int], ...] = ()
    """Channel, kind and which colour it is (from 1)."""

    @classmethod
    def of(cls, data: bytes) -> tuple[Self, int]:
        """The header, and where the codestream begins.

        Raises UnsupportedFormatError for colour spaces that are not decoded.
        """
        found: dict[bytes, bytes] = {}
        for kind, start, end in _boxes(data, 0, len(data)):
            if kind == b"jp2h":
                for inner, first, last in _boxes(data, start, end):
                    found.setdefault(inner, data[first:last])
            if kind == b"jp2c":
                header = cls(_space(found.get(b"colr", b"")), _palette(found), _kinds(found))
                return header, start
        raise CorruptImageError("JPEG2000: the file has no codestream")


def _boxes(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and where the content begins and ends."""
    while position + 8 <= end:
        size, kind = (
            int.from_bytes(data[position : position + 4], "big"),
            data[position + 4 : position + 8],
        )
        start = position + 8
        if size == 1:
            size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        stop = end if size == 0 else position + size
        if stop < start:
            return
        yield kind, start, min(stop, end)
        position = stop


def _space(box: bytes) -> str | None:
    """The colour space; None where the number of components has to tell."""
    method = box[:1]
    if method == b"\1":
        number = int.from_bytes(box[3:7], "big")
        if number not in _SPACES:
            raise UnsupportedFormatError(f"JPEG2000: colour space {number} is not decoded")
        return _SPACES[number]
    profile = box[3 + 16 : 3 + 20]
    if method == b"\2" and len(profile) == 4:
        if profile not in _PROFILES:
            name = profile.decode("ascii", "replace").strip()
            raise UnsupportedFormatError(f"JPEG2000: colours of a {name} profile are not decoded")
        return _PROFILES[profile]
    return None


def _palette(boxes: dict[bytes, bytes]) -> Palette | None:
    box = boxes.get(b"pclr")
    if box is None:
        return None
    entries, channels = int.from_bytes(box[:2], "big"), box[2] if len(box) > 2 else 0
    depths = [(depth & 0x7F) + 1 for depth in box[3 : 3 + channels]]
    widths = [(depth + 7) // 8 for depth in depths]
    rows = box[3 + channels : 3 + channels + entries * sum(widths)]
    if not entries or not channels or len(rows) < entries * sum(widths) or max(widths) > 2:
        raise CorruptImageError("JPEG2000: the palette is cut off")
    table = np.frombuffer(rows, np.uint8).reshape(entries, -1)
    columns = np.empty((entries, channels), np.uint8)
    place = 0
    values: npt.NDArray[np.integer]
    for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        values = table[:, place].astype(np.uint32)
        if width == 2:
            values = values << 8 | table[:, place + 1]
        columns[:, index] = (
            values * 255 // ((1 << depth) - 1) if depth < 8 else values >> (depth - 8)
        )
        place += width
    cmap = boxes.get(b"cmap", b"".join(bytes([0, 0, 1, i]) for i in range(channels)))
    mapped = [cmap[i : i + 4] for i in range(0, len(cmap) - 3, 4)]
    pairs = tuple((m[0] << 8 | m[1], m[3] if m[2] else None) for m in mapped)
    if any(column is not None and column >= channels for _, column in pairs) or not pairs:
        raise CorruptImageError("JPEG2000: channels of the palette are missing")
    return Palette(columns, pairs)


def _kinds(boxes: dict[bytes, bytes]) -> tuple[tuple[int, int, int], ...]:
    box = boxes.get(b"cdef", b"")
    numbers = [int.from_bytes(box[i : i + 2], "big") for i in range(2, len(box) - 1, 2)]
    return tuple(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=False))
