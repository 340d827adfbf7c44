"""JPEG files: bounded in their scans, and opened whatever their application segments hold."""

import io
import re
from typing import NamedTuple

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, jpeg_factory

from cvt.errors import UnsupportedFormatError

_SOS, _EOI, _COM, _EXIF = 0xDA, 0xD9, 0xFE, 0xE1
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)
_USUAL_NAMES = (b"\x01\x02\x03", b"\x00\x01\x02")
_USUAL_SAMPLING = (b"\x11\x11\x11", b"\x21\x11\x11", b"\x12\x11\x11", b"\x22\x11\x11")
_YCC = 1
_MARKER = re.compile(rb"\xff+([^\x00\xff])")

# Encoders write about ten scans. All of them pass over all pixels, whatever little they hold.
_SCANS = 24
_MAX_SCANS = 1000
# Pillow adds up segments of the same kind, which takes ever longer.
_MAX_SEGMENTS = 1000
# Each takes four bytes of a file and more than a hundred of memory.
_MOST_SEGMENTS = 500_000


class _Header(NamedTuple):
    """The segments before the first scan: (marker, start, end), and what they say."""

    segments: list[tuple[int, int, int]]
    scans_from: int
    """Where the first scan begins; the length of the file if it has none."""
    is_layered: bool
    """Whether one scan alone is not the whole image."""
    height: int | None = None


def open_jpeg(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a JPEG or MPO file.

    Raises UnsupportedFormatError for more scans than an image of ``max_pixels`` may have.
    """
    header = _header(data)
    if header.height == 0 and b"\xff\xdc" in data:
        raise UnsupportedFormatError("JPEG: a height that follows the pixels (DNL) is not decoded")
    image = _open(data, header)
    if header.is_layered:
        _check_scans(data, header.scans_from, image.width * image.height, max_pixels)
    return image


def _open(data: bytes, header: _Header) -> Image.Image:
    if len(header.segments) <= _MAX_SEGMENTS:
        try:
            return jpeg_factory(io.BytesIO(data), "")
        except Exception:
            if not any(_is_optional(marker) for marker, _, _ in header.segments):
                raise
    return _open_plain(data, header)


def _open_plain(data: bytes, header: _Header) -> Image.Image:
    """Open the file without the segments that its pixels do not need."""
    parts, exif, kept_from = [], b"", 0
    for marker, start, end in header.segments:
        body = data[start + 4 : end]
        if marker == _EXIF and body.startswith(b"Exif\0\0"):
            exif = exif or body
        if _is_optional(marker) and not _tells_colours(marker, body):
            parts.append(data[kept_from:start])
            kept_from = end
    image = JpegImageFile(io.BytesIO(b"".join([*parts, data[kept_from:]])), "")
    if exif:
        image.info["exif"] = exif
    return image


def _is_optional(marker: int) -> bool:
    return 0xE0 <= marker <= 0xEF or marker == _COM


def _tells_colours(marker: int, body: bytes) -> bool:
    """Tell whether libjpeg derives the colour space from a segment."""
    is_jfif = marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14
    return is_jfif or (marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12)


def _header(data: bytes) -> _Header:
    segments: list[tuple[int, int, int]] = []
    is_progressive, components, height, position = False, 0, None, 2
    while position + 4 <= len(data):
        if data[position] != 0xFF or data[position + 1] in (0x00, 0xFF):
            position += 1
            continue
        marker = data[position + 1]
        if marker in _BARE:
            position += 2
            continue
        end = position + 2 + (data[position + 2] << 8 | data[position + 3])
        if marker == _SOS:
            of_scan = data[position + 4] if position + 4 < len(data) else components
            return _Header(segments, position, is_progressive or of_scan < components, height)
        if marker in _FRAMES and position + 9 < len(data):
            is_progressive, components = marker in _PROGRESSIVE, data[position + 9]
            height = data[position + 5] << 8 | data[position + 6]
        segments.append((marker, position, end))
        if len(segments) > _MOST_SEGMENTS:
            raise UnsupportedFormatError(f"JPEG: more than {_MOST_SEGMENTS} segments")
        position = end
    return _Header(segments, len(data), is_layered=False)


def _check_scans(data: bytes, start: int, pixels: int, max_pixels: int) -> None:
    most = most_scans(pixels, max_pixels)
    if looks_like_scans(data, start, len(data), most) > most and _scans(data, start, most) > most:
        raise UnsupportedFormatError(
            f"JPEG: more than {most} scans of {pixels} pixels each are not decoded"
        )


def most_scans(pixels: int, max_pixels: int) -> int:
    """How many scans an image may have where ``max_pixels`` pixels are the limit."""
    return min(max(_SCANS, _SCANS * max_pixels // max(pixels, 1)), _MAX_SCANS)


def looks_like_scans(data: bytes, start: int, end: int, most: int) -> int:
    """Count, a little beyond ``most``, what may begin a scan of this or of a later image: fast."""
    found = 0
    while found <= most and (start := data.find(b"\xff\xda", start, end) + 1):
        found += 1
    return found


def _scans(data: bytes, start: int, most: int) -> int:
    """Count, a little beyond ``most``, the scans of the image whose first begins at ``start``."""
    scans, position = 0, start
    while scans <= most and (match := _MARKER.search(data, position)):
        marker, position = match[1][0], match.end()
        if marker == _EOI:
            break
        scans += marker == _SOS
        if marker not in _BARE:
            position += int.from_bytes(data[position : position + 2], "big")
    return scans


def is_plain(data: bytes) -> bool:
    """Whether decoders of every make read the file alike.

    That is, with 8 bits, Huffman-coded, in one scan or progressive, and grey or YCbCr with the
    colours in full or at half the resolution.
    """
    header = _header(data)
    frames = [(marker, start) for marker, start, _ in header.segments if marker in _FRAMES]
    if len(frames) != 1 or not header.height:
        return False
    marker, start = frames[0]
    if marker not in _PLAIN_FRAMES or (header.is_layered and marker not in _PROGRESSIVE):
        return False
    bits, count = data[start + 4], data[start + 9]
    parts = data[start + 10 : start + 10 + 3 * count]
    if bits != 8 or len(parts) != 3 * count:
        return False
    if count == 1:
        return parts[1] == 0x11
    told = [data[start + 4 : end] for marker, start, end in header.segments if marker == 0xEE]
    is_told_otherwise = any(_tells_colours(0xEE, body) and body[11] != _YCC for body in told)
    is_usual = parts[::3] in _USUAL_NAMES and parts[1::3] in _USUAL_SAMPLING
    return is_usual and not is_told_otherwise
