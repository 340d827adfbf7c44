"""Formats of animations: a first frame is not always as large as the picture around it.

What a smaller one leaves free is transparent, as viewers show it, whatever background colour the
file names. A larger one, which a decoder would scale down, is held against the limit.
"""

import io

from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.WebPImagePlugin import WebPImageFile

from cvt.preprocessing.containers.frames.av1 import frame_sizes
from cvt.preprocessing.containers.image import Repaired, check_size

_Box = tuple[int, int, int, int]
_CONTROL = b"\xf9"


def open_gif(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a GIF file."""
    image = GifImageFile(io.BytesIO(_without_extensions(data)), "")
    box = image.tile[0].extents
    if box is None or box == (0, 0, *image.size):
        return image
    return Repaired(image, lambda frame: _on_canvas(frame, box))


def _without_extensions(data: bytes) -> bytes:
    """The file without comments and other blocks in front of its first frame, of which Pillow
    keeps every piece; of those that tell its transparency the last counts."""
    start = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    position, control = start, b""
    while data[position : position + 1] == b"!":
        begin, position = position, position + 2
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
        if data[begin + 1 : begin + 2] == _CONTROL:
            control = data[begin:position]
    return data if position == start else b"".join([data[:start], control, data[position:]])


def _on_canvas(frame: Image.Image, box: _Box) -> Image.Image:
    canvas = Image.new("RGBA", frame.size, (0, 0, 0, 0))
    canvas.paste(frame.convert("RGBA").crop(box), box[:2])
    return canvas


def open_webp(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a WebP file. Raises TooManyPixelsError for too large a canvas."""
    if data[12:16] != b"VP8X":
        return WebPImageFile(io.BytesIO(data), "")
    size = _number(data[24:27]) + 1, _number(data[27:30]) + 1
    check_size("WEBP", size, max_pixels)
    image = WebPImageFile(io.BytesIO(data), "")
    start = data.find(b"ANMF", 30)
    if start > 0 and image.mode == "RGB":
        frame = data[start + 8 : start + 24]
        if (_number(frame[6:9]) + 1, _number(frame[9:12]) + 1) != size:
            image._mode = image.rawmode = "RGBA"
    return image


def _number(three: bytes) -> int:
    return int.from_bytes(three, "little")


def open_avif(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of an AVIF file. Raises TooManyPixelsError for too large a frame in it."""
    for size in frame_sizes(data):
        check_size("AVIF", size, max_pixels)
    return AvifImageFile(io.BytesIO(data), "")
