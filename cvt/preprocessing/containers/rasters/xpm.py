"""XPM and XBM, pictures written as C: colours of any spelling, and black where a bit is set."""

import io
import re
from itertools import islice

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageColor
from PIL.XbmImagePlugin import XbmImageFile

from cvt.errors import CorruptImageError, TruncatedImageError, UnsupportedFormatError
from cvt.preprocessing.containers.image import Repaired, header

_STRING = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_GREY = re.compile(r"gr[ae]y(\d{1,3})")
_FEW_COLOURS = 1 << 12
_CONTEXTS = (b"c", b"g", b"g4", b"m")
"""For which screens a colour is, the best first."""


def open_xbm(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of an XBM file."""
    return Repaired(XbmImageFile(io.BytesIO(data), ""), ImageChops.invert)


def open_xpm(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of an XPM file."""
    first = _STRING.search(data)
    numbers = first[1].split() if first else []
    if len(numbers) < 4 or not all(number.isdigit() for number in numbers[:4]):
        raise CorruptImageError("XPM: the size of the image is missing")
    width, height, colours, length = (int(number) for number in numbers[:4])
    if min(width, height, colours, length) < 1:
        raise CorruptImageError("XPM: the image has no size")
    if colours > max(width * height, _FEW_COLOURS):
        raise UnsupportedFormatError(f"XPM: {colours} colours, more than pixels, are not decoded")
    shown = header("XPM", (width, height))
    return Repaired(shown, lambda _: _decode(data, (width, height), colours, length))


def _decode(data: bytes, size: tuple[int, int], colours: int, length: int) -> Image.Image:
    width, height = size
    wanted = islice(_STRING.finditer(data), 1, 1 + colours + height)
    strings = [match[1] for match in wanted]
    rows = strings[colours : colours + height]
    if len(rows) < height or any(len(row) < width * length for row in rows):
        raise TruncatedImageError("XPM: rows are missing")
    palette = np.array([_colour(text[length:]) for text in strings[:colours]], np.uint8)
    keys = _keys(b"".join(text[:length].ljust(length) for text in strings[:colours]), length)
    pixels = _keys(b"".join(row[: width * length] for row in rows), length)
    order = np.argsort(keys, kind="stable")
    place = np.minimum(np.searchsorted(keys[order], pixels), len(keys) - 1)
    indices = order[place]
    if not np.array_equal(keys[indices], pixels):
        raise CorruptImageError("XPM: a pixel has a colour that is not listed")
    return Image.fromarray(palette[indices].reshape(height, width, 4))


def _keys(text: bytes, length: int) -> npt.NDArray[np.void]:
    """Characters in groups of ``length``."""
    return np.frombuffer(text, f"S{length}")


def _colour(text: bytes) -> tuple[int, int, int, int]:
    """RGBA of an entry such as ``c #ff0000 m white``."""
    words = text.split()
    named = {words[i]: words[i + 1] for i in range(0, len(words) - 1, 2)}
    told = next((named[context] for context in _CONTEXTS if context in named), None)
    if told is None:
        raise UnsupportedFormatError("XPM: an entry without a colour is not decoded")
    name = told.decode("ascii", "replace").lower()
    if name == "none":
        return (0, 0, 0, 0)
    if name.startswith("#") and len(name) in (4, 7, 10, 13):
        step = (len(name) - 1) // 3
        parts = [int(name[1 + step * i : 1 + step * (i + 1)], 16) for i in range(3)]
        red, green, blue = (part * 255 // ((1 << 4 * step) - 1) for part in parts)
        return (red, green, blue, 255)
    grey = _GREY.fullmatch(name)
    if grey and int(grey[1]) <= 100:
        return (*(round(int(grey[1]) * 2.55),) * 3, 255)
    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise UnsupportedFormatError(f"XPM: the colour {name[:40]} is not known") from error
    return (red, green, blue, 255)
