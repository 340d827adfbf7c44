"""BLP textures: the size of the JPEG file that some of them hold."""

import io
import struct

from PIL import Image
from PIL.BlpImagePlugin import BlpImageFile

from cvt.errors import CorruptImageError
from cvt.preprocessing.containers.image import check_size
from cvt.preprocessing.containers.jpeg import open_jpeg

_OF_JPEG = b"BLP1\0\0\0\0"
_TABLES = 28
"""Where the places and the lengths of up to 16 pictures of falling size begin."""
_HEADER = _TABLES + 2 * 64


def open_blp(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a BLP file.

    Raises TooManyPixelsError for too large a JPEG file in it, and CorruptImageError if that has
    another size than the header says.
    """
    image = BlpImageFile(io.BytesIO(data), "")
    if data.startswith(_OF_JPEG):
        start, size = struct.unpack_from("<I60xI", data, _TABLES)
        (shared,) = struct.unpack_from("<I", data, _HEADER)
        head = data[_HEADER + 4 : _HEADER + 4 + shared]
        inside = open_jpeg(head + data[start : start + size], max_pixels)
        check_size("BLP", inside.size, max_pixels)
        if inside.size != image.size:
            raise CorruptImageError(
                f"BLP: a picture of {inside.width} x {inside.height} in a file of "
                f"{image.width} x {image.height}"
            )
    return image
