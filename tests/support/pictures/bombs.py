"""Small files that would take gigabytes, if what they say of themselves were believed."""

import gzip
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.support.inputs.images import encode, noise
from tests.support.pictures.jpeg import baseline
from tests.support.pictures.png import chunk
from tests.support.pictures.rasters import bmp, fits_compressed
from tests.support.pictures.tiff import directory

MAX_PIXELS = 10**6
"""The limit that they are to be decoded with."""
SIDE = 13_300
REFUSED, UNKNOWN = "too_many_pixels", "unsupported_format"
MIB = 2**20


def huge_png() -> bytes:
    """The rows are there: 700 MB of zeros."""
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 6, 0, 0, 0)
    rows = zlib.compress(bytes(64 * MIB), 1)  # as many as show that they are not inflated
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def icon(picture: bytes) -> bytes:
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(picture), 22)
    return b"\0\0\1\0\1\0" + entry + picture


def mac_icon(picture: bytes) -> bytes:
    return b"icns" + struct.pack(">I4sI", 16 + len(picture), b"ic07", 8 + len(picture)) + picture


def tiff(fields: dict[int, tuple[int, list[int]]], body: bytes = bytes(64)) -> bytes:
    """Of 8 x 8 grey pixels, with some fields replaced or added; the body stands at 4096."""
    usual: dict[int, tuple[int, list[int]]] = {
        256: (4, [8]), 257: (4, [8]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]),
        273: (4, [4096]), 277: (3, [1]), 278: (4, [8]), 279: (4, [64]),
    }  # fmt: skip
    head = b"II*\0" + struct.pack("<I", 8) + directory(usual | fields, 8, "<", big=False)
    return head.ljust(4096, b"\0") + body


def tiff_counting(*tags: int) -> bytes:
    """Fields that say that all of the file is theirs: each byte would become a number."""
    body = bytes(24 * MIB)
    data = bytearray(tiff({tag: (1, [0] * 5) for tag in tags}, body))
    for position in range(10, 10 + 12 * (9 + len(tags)), 12):
        tag, _, count = struct.unpack_from("<HHI", data, position)
        if tag in tags and count == 5:
            struct.pack_into("<II", data, position + 4, len(body), 4096)
    return bytes(data)


def gif_comments() -> bytes:
    data = encode(noise(), "GIF")
    first = data.index(b",", 13 + 768)
    return data[:first] + b"!\xfe\1x\0" * (2 * MIB) + data[first:]


def gif_canvas() -> bytes:
    data = bytearray(encode(noise(), "GIF"))
    data[6:10] = b"\xff\xff\xff\xff"
    return bytes(data)


def webp_canvas() -> bytes:
    data = bytearray(encode(noise().convert("RGBA"), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"))
    assert data[12:16] == b"VP8X"
    data[24:30] = b"\xff\x3f\0\xff\x3f\0"
    return bytes(data)


def avif() -> bytes:
    """Of 64 x 64, says the file; its frame is larger."""
    data = bytearray(encode(Image.new("RGB", (3000, 3000), "red"), "AVIF", speed=10))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", 64, 64)
    return bytes(data)


def jpeg_segments() -> bytes:
    data = baseline(noise())
    return data[:2] + b"\xff\xe3\0\2" * (4 * MIB) + data[2:]


def jpeg_size() -> bytes:
    data = bytearray(baseline(noise()))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(data)


def blp() -> bytes:
    """A texture of 16 x 16 with a JPEG file of 6000 x 6000 in it."""
    inside = baseline(Image.new("RGB", (6000, 6000), "red"))
    head = b"BLP1" + struct.pack("<iIIIiI", 0, 0, 16, 16, 5, 0)
    offsets = struct.pack("<16I", 160, *[0] * 15) + struct.pack("<16I", len(inside), *[0] * 15)
    return head + offsets + struct.pack("<I", 0) + inside


def xpm_strings() -> bytes:
    more = b',""' * (6 * MIB)
    return b'/* XPM */\nstatic char *x[] = {"2 1 1 1", "a c #ffffff", "aa"' + more + b"};"


def xpm_colours() -> bytes:
    return b'/* XPM */\nstatic char *x[] = {"2 1 3000000 1"' + b',"a c red"' * (3 * 10**6) + b"};"


def fits() -> bytes:
    """100 x 100 numbers, and 600 MB of zeros behind them."""
    small = fits_compressed(np.zeros((100, 100), np.int32), 32)
    zeros = io.BytesIO()
    with gzip.open(zeros, "wb", 1) as file:
        for _ in range(600):
            file.write(bytes(MIB))
    return small[: small.index(b"\x1f\x8b\x08")] + zeros.getvalue()


def jpeg2000(offset: int) -> bytes:
    """Sides of the image (offset 8) or of the tiles (offset 24) of four billion."""
    data = bytearray(encode(noise(), "JPEG2000", no_jp2=True))
    data[offset : offset + 8] = b"\xff\xff\xff\xf0" * 2
    return bytes(data)


def dib(width: int, height: int) -> bytes:
    """The bitmap of an icon, with a mask."""
    body = bytes(4 * 16 * 16 + 4 * 16)
    return struct.pack("<IiiHHIIiiII", 40, width, height, 1, 32, 0, 0, 0, 0, 0, 0) + body


def patched(format: str, place: int, value: bytes, mode: str = "RGB") -> bytes:
    data = bytearray(encode(noise().convert(mode), format))
    data[place : place + len(value)] = value
    return bytes(data)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "png": (huge_png, REFUSED),
    "ico": (lambda: icon(huge_png()), REFUSED),
    "ico, bitmap": (lambda: icon(dib(SIDE, 2 * SIDE)), REFUSED),
    "ico, negative": (lambda: icon(dib(-SIDE, -2 * SIDE)), "truncated"),
    "icns": (lambda: mac_icon(huge_png()), REFUSED),
    "tiff, tile": (
        lambda: tiff({322: (4, [65520]), 323: (4, [32760]), 324: (4, [4096]), 325: (4, [64])}),
        REFUSED,
    ),
    "tiff, strip": (lambda: tiff({256: (4, [SIDE]), 257: (4, [SIDE])}), REFUSED),
    "tiff, samples": (lambda: tiff({277: (3, [65535])}), UNKNOWN),
    "tiff, offsets": (lambda: tiff_counting(273, 279), "ok"),
    "tiff, fields": (lambda: tiff_counting(320, 330, 338, 347, 532, 700), "ok"),
    "tiff, types": (lambda: tiff_counting(339), UNKNOWN),
    "tiff, bits": (lambda: tiff_counting(258), UNKNOWN),
    "gif, comments": (gif_comments, "ok"),
    "gif, canvas": (gif_canvas, REFUSED),
    "webp, canvas": (webp_canvas, REFUSED),
    "avif": (avif, REFUSED),
    "jpeg, segments": (jpeg_segments, UNKNOWN),
    "jpeg, size": (jpeg_size, REFUSED),
    "jpeg 2000, size": (lambda: jpeg2000(8), UNKNOWN),
    "jpeg 2000, tile": (lambda: jpeg2000(24), "ok"),
    "blp": (blp, REFUSED),
    "xpm, strings": (xpm_strings, "ok"),
    "xpm, colours": (xpm_colours, UNKNOWN),
    "fits": (fits, "ok"),
    "bmp, runs": (
        lambda: bmp(b"\0\2\xff\xff" * 1000, (65000, 65000), 8, 1, palette=bytes(1024)),
        REFUSED,
    ),
    "bmp": (lambda: bmp(bytes(99), (SIDE, SIDE), 24), REFUSED),
    "pcx": (lambda: patched("PCX", 8, b"\xff\x7f\xff\x7f"), REFUSED),
    "tga": (lambda: patched("TGA", 12, b"\xff\xff\xff\xff"), REFUSED),
    "sgi": (lambda: patched("SGI", 6, b"\xff\xff\xff\xff"), REFUSED),
    "dds": (lambda: patched("DDS", 12, b"\0\0\1\0\0\0\1\0"), REFUSED),
    "qoi": (lambda: b"qoif" + struct.pack(">IIBB", SIDE, SIDE, 3, 0) + bytes(99), REFUSED),
    "ppm": (lambda: b"P6 60000 60000 255\n" + bytes(99), REFUSED),
    "psd": (
        lambda: b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, SIDE, SIDE, 8, 3) + bytes(99),
        REFUSED,
    ),
}
"""By name how to make it, and the code that it is to end with (or "ok")."""
