"""Icons and cursors: the largest image of the file, by its own header and not the directory's."""

import io
import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image
from PIL.BmpImagePlugin import DibImageFile
from PIL.IcnsImagePlugin import IcnsImageFile
from PIL.IcoImagePlugin import IcoImageFile

from cvt.errors import TruncatedImageError
from cvt.preprocessing.containers.image import check_size
from cvt.preprocessing.containers.jpeg2000 import boxes, codestream
from cvt.preprocessing.containers.jpeg2000.reader import open_jpeg2000
from cvt.preprocessing.containers.png import SIGNATURE, open_png

_CURSOR = b"\0\0\2\0"
"""Its first bytes. Without the end of its mask all of a cursor is visible; an icon is truncated."""
_MOST = 256
"""Entries of a directory, or blocks of a file, that are looked at."""
_ENTRY = 16
_OPAQUE_BITS = 24
_HEADERS = (12, 40, 52, 56, 64, 108, 124)
"""Lengths of the header of a bitmap, the oldest first."""
# What Pillow knows of older icons; none is larger than 128 x 128.
_LEGACY = (b"it32", b"t8mk", b"ih32", b"h8mk", b"il32", b"l8mk", b"is32", b"s8mk")


class _Entry(NamedTuple):
    pixels: int
    bits: int
    width: int
    height: int
    start: int
    size: int
    is_png: bool


def open_ico(data: bytes, max_pixels: int) -> Image.Image:
    """Read the largest image of an icon or a cursor; of equal ones that with the most colours.

    Raises TooManyPixelsError before anything is decoded.
    """
    entries = [*_entries(data)]
    if not entries:
        return IcoImageFile(io.BytesIO(data), "")  # which says what is wrong
    best = max(entries)
    check_size("ICO", (best.width, best.height), max_pixels)
    image = open_png(data[best.start :], max_pixels) if best.is_png else _bitmap(data, best)
    image.format = "ICO"
    return image


def _entries(data: bytes) -> Iterator[_Entry]:
    """The images that are there."""
    count = int.from_bytes(data[4:6], "little")
    there = min(count, _MOST, max(len(data) - 6, 0) // _ENTRY)
    for place in range(6, 6 + _ENTRY * there, _ENTRY):
        size, start = struct.unpack_from("<II", data, place + 8)
        head = data[start : start + 26]
        if len(head) < 26:
            continue
        if head.startswith(SIGNATURE):
            width, height = struct.unpack_from(">II", head, 16)
            yield _Entry(width * height, 32, width, height, start, size, is_png=True)
            continue
        header = int.from_bytes(head[:4], "little")
        if header not in _HEADERS:
            continue
        is_old = header == _HEADERS[0]
        width, height, bits = struct.unpack_from("<HH2xH" if is_old else "<ii2xH", head, 4)
        height = abs(height) // 2  # with the mask
        yield _Entry(width * height, bits, width, height, start, size, is_png=False)


def _bitmap(data: bytes, entry: _Entry) -> Image.Image:
    """An image that is no PNG, with the transparency of its mask or of its own."""
    body, has_mask = _body(data, entry)
    image = _alone(body, entry, entry.bits)
    if entry.bits == 32 and image.getchannel("A").getextrema()[1] == 0:
        # Left so by a program that knows no opacity: the mask counts, if there is one.
        image = _alone(body, entry, _OPAQUE_BITS) if has_mask else image.convert("RGB")
    return image


def _body(data: bytes, entry: _Entry) -> tuple[bytes, bool]:
    """A bitmap from its header to the end of its mask, and whether the file has all of that mask.

    Its own header counts: many a directory tells a length that leaves out pixels or mask.
    """
    told = data[entry.start : entry.start + entry.size]
    codec, _, offset, layout = DibImageFile(io.BytesIO(data[entry.start :])).tile[0]
    if codec != "raw" or not isinstance(layout, tuple):
        return told, True
    pixels = offset + int(layout[1]) * entry.height
    mask = (entry.width + 31) // 32 * 4 * entry.height
    has_none = entry.size == pixels
    body = data[entry.start :][: pixels if has_none else pixels + mask]
    if len(body) == pixels + mask:
        return body, True
    is_needed = not (has_none or entry.bits == 32 or data.startswith(_CURSOR))
    if len(body) < pixels or is_needed:
        raise TruncatedImageError("ICO: the pixels or their mask end early")
    return body[:pixels] + bytes(mask), False


def _alone(body: bytes, entry: _Entry, bits: int) -> Image.Image:
    """A bitmap as the only image of an icon. bits: 32 have opacity, fewer a mask."""
    sides = (side if side < 256 else 0 for side in (entry.width, entry.height))
    head = struct.pack("<HHHBBBBHHII", 0, 1, 1, *sides, 0, 0, 1, bits, len(body), 22)
    return IcoImageFile(io.BytesIO(head + body), "")


def open_icns(data: bytes, max_pixels: int) -> Image.Image:
    """Read the largest image of a Mac icon."""
    blocks = [*_blocks(data)]
    best, image = (0, 0), b""
    for kind, start, end in blocks:
        size = _size(data[start : start + 200]) if kind[:2] in (b"ic", b"sb") else (0, 0)
        if size[0] * size[1] > best[0] * best[1]:
            best, image = size, data[start:end]
    if image:
        check_size("ICNS", best, max_pixels)
        opener = open_png if image.startswith(SIGNATURE) else open_jpeg2000
        shown = opener(image, max_pixels)
        shown.format = "ICNS"
        return shown
    legacy = b"".join(data[start - 8 : end] for kind, start, end in blocks if kind in _LEGACY)
    head = b"icns" + struct.pack(">I", 8 + len(legacy))
    return IcnsImageFile(io.BytesIO(head + legacy), "")


def _blocks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each block."""
    position = 8
    for _ in range(_MOST):
        if position + 8 > len(data):
            return
        kind, size = struct.unpack_from(">4sI", data, position)
        if size < 8:
            return
        yield kind, position + 8, position + size
        position += size


def _size(head: bytes) -> tuple[int, int]:
    """Width and height of the PNG or JPEG 2000 file that begins so; nothing for other content."""
    if head.startswith(SIGNATURE) and len(head) >= 24:
        width, height = struct.unpack_from(">II", head, 16)
        return width, height
    at = head.find(codestream.SIGNATURE)
    if at == 0 or (at > 0 and head.startswith(boxes.SIGNATURE)):
        x1, y1, x0, y0 = struct.unpack_from(">4I", head, at + 8)
        return max(x1 - x0, 0), max(y1 - y0, 0)
    return 0, 0
