"""BMP files: run lengths that skip pixels, and colours in any bits of a number."""

import io
import struct
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile

from cvt.errors import CorruptImageError, TruncatedImageError
from cvt.preprocessing.containers.image import Repaired, header
from cvt.preprocessing.rgb import of_bits

_RLE_8, _RLE_4, _FIELDS, _ALPHA_FIELDS = 1, 2, 3, 6
_BITS = {_RLE_8: (8,), _RLE_4: (4,), _FIELDS: (16, 32), _ALPHA_FIELDS: (16, 32)}


class _Header(NamedTuple):
    pixels_at: int
    size: int
    """Of the header behind the first 14 bytes."""
    width: int
    height: int
    """Negative if the first row is the top one."""
    bits: int
    compression: int
    colours: int

    @classmethod
    def of(cls, data: bytes) -> Self:
        pixels_at, size, width, height, bits, compression = struct.unpack_from(
            "<IIii2xHI", data, 10
        )
        (colours,) = struct.unpack_from("<I", data, 46)
        return cls(pixels_at, size, width, height, bits, compression, colours)


def open_bmp(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a BMP file."""
    is_old = int.from_bytes(data[14:18], "little") < 40
    head = None if is_old else _Header.of(data)
    if head is None or head.bits not in _BITS.get(head.compression, ()):
        return BmpImageFile(io.BytesIO(data), "")
    if head.width < 1 or head.height == 0:
        raise CorruptImageError(f"BMP: an image of {head.width} x {head.height} pixels")
    decode = _runs if head.compression in (_RLE_8, _RLE_4) else _fields
    shown = header("BMP", (head.width, abs(head.height)))
    return Repaired(shown, lambda _: decode(data, head))


def _fields(data: bytes, head: _Header) -> Image.Image:
    """Colours, and perhaps opacity, in the bits that the header's masks name."""
    stride = (head.width * head.bits + 31) // 32 * 4
    height = abs(head.height)
    if len(data) < head.pixels_at + stride * height:
        raise TruncatedImageError("BMP: rows are missing")
    rows = np.frombuffer(data, np.uint8, stride * height, head.pixels_at).reshape(height, stride)
    values = rows.view(f"<u{head.bits // 8}")[:, : head.width]
    values = values[::-1] if head.height > 0 else values
    has_alpha = head.size >= 56 or head.compression == _ALPHA_FIELDS
    masks = struct.unpack_from("<4I" if has_alpha else "<3I", data, 54)
    planes = [_levels(values, mask) for mask in masks]
    image = Image.fromarray(np.dstack(planes[:3]))
    if has_alpha and planes[3].any():  # programs that know no opacity leave it 0 everywhere
        image.putalpha(Image.fromarray(planes[3]))
    return image


def _levels(values: npt.NDArray[np.unsignedinteger], mask: int) -> npt.NDArray[np.uint8]:
    if not mask:
        return np.zeros(values.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    bits = (mask >> shift).bit_length()
    if mask >> shift != (1 << bits) - 1:
        raise CorruptImageError(f"BMP: a colour in the bits {mask:x}")
    return of_bits(values.astype(np.uint32) >> shift & (1 << bits) - 1, bits)


def _runs(data: bytes, head: _Header) -> Image.Image:
    start = 14 + head.size
    colours = min(head.colours or 1 << head.bits, 256)
    entries = np.frombuffer(data[start : start + 4 * colours], np.uint8)
    if entries.size < 4 * colours:
        raise TruncatedImageError("BMP: the palette is cut off")
    palette = np.zeros((256, 3), np.uint8)
    palette[:colours] = entries.reshape(-1, 4)[:, 2::-1]
    height = abs(head.height)
    canvas = _unpacked(data[head.pixels_at :], head.width, height, head.bits)
    rows = np.frombuffer(canvas, np.uint8).reshape(height, head.width)
    return Image.fromarray(palette[rows[::-1] if head.height > 0 else rows])


def _unpacked(body: bytes, width: int, height: int, bits: int) -> bytearray:
    """The palette indices of run lengths, row by row; 0 where a file skips pixels."""
    canvas = bytearray(width * height)
    x = y = position = 0
    while position + 1 < len(body) and y < height:
        count, value = body[position], body[position + 1]
        position += 2
        if count:
            run = bytes([value]) if bits == 8 else bytes([value >> 4, value & 15])
            pixels = (run * count)[:count]
        elif value == 0:
            x, y = 0, y + 1
            continue
        elif value == 1:
            return canvas
        elif value == 2:
            dx, dy = body[position : position + 2] if position + 1 < len(body) else (0, 0)
            x, y, position = x + dx, y + dy, position + 2
            continue
        else:
            size = value if bits == 8 else (value + 1) // 2
            pixels = body[position : position + size]
            if bits == 4:
                pixels = bytes(part for byte in pixels for part in (byte >> 4, byte & 15))[:value]
            position += size + size % 2
        fitting = pixels[: max(width - x, 0)]
        canvas[y * width + x : y * width + x + len(fitting)] = fitting
        x += len(pixels)
    if y < height - 1 or (y == height - 1 and x < width):
        raise TruncatedImageError("BMP: rows are missing")
    return canvas
