"""JPEG XL files: what their header says (ISO/IEC 18181-1, annexes A to C), and their pixels.

libjxl decodes, through the package pillow-jxl-plugin, and turns as the codestream says. It gets the
codestream alone: what lies in boxes beside it, packed or not, is not needed for the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image

from cvt.errors import CorruptImageError, UnsupportedFormatError
from cvt.preprocessing.containers.frames.items import boxes
from cvt.preprocessing.containers.image import Repaired, check_size, header

_STREAM = b"\xff\x0a"
_BOXED = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_HEAD_BYTES = 1 << 12
"""In which the header stands, unless it names its channels at length."""
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_ALPHA, _SPOT, _BLACK, _FILTER = 0, 2, 4, 5
_SIDES = ((9, 1), (13, 1), (18, 1), (30, 1))
_PREVIEW_SIDES = ((6, 1), (8, 65), (10, 321), (12, 1345))
_PREVIEW_EIGHTHS = ((0, 16), (0, 32), (5, 1), (9, 33))
_CHANNELS = {"LA": 2, "RGB": 3, "RGBA": 4}
_MODES = {channels: mode for mode, channels in _CHANNELS.items()} | {1: "L"}
_SAMPLES = {1: np.uint8, 2: np.uint16, 4: np.float32}


def is_jxl(data: bytes) -> bool:
    """Whether the file begins as JPEG XL."""
    return data.startswith((_STREAM, _BOXED))


def open_jxl(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a JPEG XL file.

    Raises UnsupportedFormatError without pillow-jxl-plugin, for animations, and for inks.
    """
    try:
        from pillow_jxl import Decoder
    except ImportError as error:
        raise UnsupportedFormatError(
            "JPEG XL files are decoded with the extra jxl: pip install pillow-jxl-plugin"
        ) from error
    try:
        stream = _codestream(data)
        head = _Head.of(_Bits(stream[:_HEAD_BYTES]))
    except IndexError as error:
        raise CorruptImageError("JXL: the header is cut off") from error
    check_size("JXL", head.size, max_pixels)
    if head.is_animated or head.has_black:
        what = "animations" if head.is_animated else "inks (CMYK)"
        raise UnsupportedFormatError(f"JXL: {what} are not decoded")

    def decoded(source: Image.Image) -> Image.Image:
        try:
            _, info, pixels, *_ = Decoder(1)(stream)
        except RuntimeError as error:  # whose text is the same whatever is wrong
            raise CorruptImageError("JXL: libjxl does not decode it, or it ends early") from error
        return _picture(info.mode, (info.width, info.height), pixels, head.is_premultiplied)

    return Repaired(header("JXL", head.size), decoded)


def _picture(
    mode: str, size: tuple[int, int], pixels: bytes, is_premultiplied: bool
) -> Image.Image:
    """The pixels as the decoder gives them; those of grey have the width of the file's samples."""
    width, height = size
    channels = _CHANNELS.get(mode, 1)
    sample = _SAMPLES[len(pixels) // (width * height * channels)]
    values = np.frombuffer(pixels, sample).reshape(height, width, channels)
    if sample is np.uint16:
        values = values >> 8
    if sample is np.float32:
        values = np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255)
    levels = values.astype(np.uint8, copy=False)
    plain = _MODES[channels]
    if is_premultiplied:
        plain = plain.replace("A", "a")
    return Image.frombytes(plain, size, levels.tobytes())


@dataclass(frozen=True)
class _Head:
    """What the beginning of a codestream says of the picture."""

    size: tuple[int, int]
    """Upright."""
    is_animated: bool = False
    has_black: bool = False
    is_premultiplied: bool = False

    @classmethod
    def of(cls, bits: _Bits) -> Self:
        """Read it. Raises IndexError where it is cut off."""
        bits.read(16)
        width, height = size = _size(bits)
        if bits.read(1):  # nothing else is said
            return cls(size)
        is_animated = False
        if bits.read(1):
            if bits.read(3) >= 4:
                size = height, width
            if bits.read(1):
                _size(bits)
            if bits.read(1):
                _preview(bits)
            is_animated = bool(bits.read(1))
        if is_animated:
            return cls(size, is_animated)
        _depth(bits)
        bits.read(1)
        channels = [_channel(bits) for _ in range(bits.number((0, 0), (0, 1), (4, 2), (12, 1)))]
        alpha = next((is_associated for kind, is_associated in channels if kind == _ALPHA), False)
        return cls(size, False, any(kind == _BLACK for kind, _ in channels), alpha)


def _size(bits: _Bits) -> tuple[int, int]:
    in_eighths = bits.read(1)

    def side() -> int:
        return 8 * (bits.read(5) + 1) if in_eighths else bits.number(*_SIDES)

    height = side()
    ratio = bits.read(3)
    if not ratio:
        return side(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height


def _preview(bits: _Bits) -> None:
    sides = _PREVIEW_EIGHTHS if bits.read(1) else _PREVIEW_SIDES
    bits.number(*sides)
    if not bits.read(3):
        bits.number(*sides)


def _depth(bits: _Bits) -> None:
    if bits.read(1):
        bits.number((0, 32), (0, 16), (0, 24), (6, 1))
        bits.read(4)
    else:
        bits.number((0, 8), (0, 10), (0, 12), (6, 1))


def _channel(bits: _Bits) -> tuple[int, bool]:
    """The kind of a channel beside the colours, and whether these are multiplied with it."""
    if bits.read(1):
        return _ALPHA, False
    kind = bits.number((0, 0), (0, 1), (4, 2), (6, 18))
    _depth(bits)
    bits.number((0, 0), (0, 3), (0, 4), (3, 1))
    bits.read(8 * bits.number((0, 0), (4, 0), (5, 16), (10, 48)))
    if kind == _SPOT:
        bits.read(4 * 16)
    if kind == _FILTER:
        bits.number((0, 1), (2, 0), (4, 3), (8, 19))
    return kind, bool(kind == _ALPHA and bits.read(1))


class _Bits:
    """Bits of a header, the lowest first."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError
        value = self._bits & (1 << count) - 1
        self._bits >>= count
        return value

    def number(self, *forms: tuple[int, int]) -> int:
        """A number in one of four forms, each of so many bits above an offset."""
        count, offset = forms[self.read(2)]
        return self.read(count) + offset


def _codestream(data: bytes) -> bytes:
    """The codestream, out of its boxes."""
    if data.startswith(_STREAM):
        return data
    found = bytearray()
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"jxlc":
            return data[start:end]
        if kind == b"jxlp":  # a part, behind its number
            found += data[start + 4 : end]
    return bytes(found)
