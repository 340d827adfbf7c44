"""PNG files as Pillow gets them: with the chunks that pixels and orientation need, and no others.

Text, colour profiles and animations are left out, so that neither Pillow's limits on them nor
their mistakes cost an image. An ancillary chunk whose checksum is wrong counts as absent, as in
libpng, and the transparent colour is put into the terms in which Pillow compares it.
"""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from cvt.errors import UnsupportedFormatError
from cvt.preprocessing.containers.image import Repaired

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# Text that may hold the EXIF orientation.
_RAW_EXIF = b"Raw profile type exif\0"
_XMP = b"XML:com.adobe.xmp\0"
_MAX_TEXT = 1 << 20
_GREY, _RGB, _PALETTE = 0, 2, 3


def open_png(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a PNG file. Raises UnsupportedFormatError for Apple's own dialect."""
    if data[12:16] == b"CgBI":
        raise UnsupportedFormatError("PNG: files optimised for iOS (CgBI) are not decoded")
    plain = _essential(data)
    image = PngImageFile(io.BytesIO(plain), "")
    key = image.info.get("transparency")
    if data[24:26] == bytes((16, _RGB)) and isinstance(key, tuple):
        return Repaired(image, lambda high: _keyed(high, plain, key))
    return image


def _essential(data: bytes) -> bytes:
    """The file without the chunks that nobody needs; `data` itself where there are none."""
    parts: list[bytes] = []
    kept_from = 0
    for kind, start, end in _chunks(data):
        chunk = None if kind in _CRITICAL else _ancillary(kind, data, start, end)
        if kind in _CRITICAL or chunk == data[start:end]:
            continue
        parts += [part for part in (data[kept_from:start], chunk) if part]
        kept_from = end
    return b"".join([*parts, data[kept_from:]]) if kept_from else data


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of every chunk, its length and checksum included; the last may be cut."""
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if not kind.isalpha():
            return  # damaged: Pillow decides what is left
        end = position + 12 + length
        yield kind, position, end
        position = end


def _ancillary(kind: bytes, data: bytes, start: int, end: int) -> bytes | None:
    """The chunk as Pillow should see it, if at all."""
    if kind[:1].isupper():
        return data[start:end]  # unknown, but called critical
    if kind not in (b"tRNS", b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
        return None
    body = data[start + 8 : end - 4]
    if kind[1:] in (b"EXt", b"TXt") and not body.startswith((_RAW_EXIF, _XMP)):
        return None
    if zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
        return None
    if kind == b"tRNS":
        key = _transparent(body, depth=data[24], colour=data[25])
        return None if key is None else _chunk(kind, key)
    return data[start:end] if kind == b"eXIf" or _is_small(kind, body) else None


def _is_small(kind: bytes, body: bytes) -> bool:
    """Tell whether a text chunk stays within what Pillow inflates."""
    _, _, rest = body.partition(b"\0")
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] == b"\0"):
        return len(body) <= _MAX_TEXT
    if kind == b"zTXt":
        method, packed = rest[:1], rest[1:]
    else:
        method, packed = rest[1:2], rest[2:].split(b"\0", 2)[-1]
    try:
        inflated = zlib.decompressobj().decompress(packed, _MAX_TEXT)
    except zlib.error:
        return False
    return method == b"\0" and len(inflated) < _MAX_TEXT


def _transparent(body: bytes, *, depth: int, colour: int) -> bytes | None:
    """A tRNS chunk's content in Pillow's terms; None if it is not valid.

    Of a key only the bits of the depth count. Pillow compares the key of a grey image with 2 or 4
    bits after it has widened the pixels to 8.
    """
    if colour == _PALETTE:
        return body[:256] or None
    if colour not in (_GREY, _RGB) or len(body) != (2 if colour == _GREY else 6):
        return None
    key = [value & ((1 << depth) - 1) for value in struct.unpack(f">{len(body) // 2}H", body)]
    if depth in (2, 4):
        key = [value * 255 // ((1 << depth) - 1) for value in key]
    return struct.pack(f">{len(key)}H", *key)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def _keyed(high: Image.Image, data: bytes, key: tuple[int, ...]) -> Image.Image:
    """Give a 16-bit colour image, of which Pillow keeps the high bytes, its transparent colour.

    high: the decoded image. The low bytes, in which colours may differ too, are decoded here.
    """
    low = PngImageFile(io.BytesIO(data), "")
    low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
    low.load()
    halves = ((high, [value >> 8 for value in key]), (low, [value & 255 for value in key]))
    is_key = np.logical_and.reduce([np.asarray(image) == value for image, value in halves]).all(-1)
    result = high.convert("RGB")
    result.putalpha(Image.fromarray(np.where(is_key, 0, 255).astype(np.uint8)))
    return result
