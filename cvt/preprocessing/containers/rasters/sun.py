"""Sun raster files: where the fourth byte of a pixel stands."""

import io

from PIL import Image
from PIL.SunImagePlugin import SunImageFile

from cvt.errors import UnsupportedFormatError

_RGB_ORDER = 3


def open_sun(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a Sun raster file.

    Raises UnsupportedFormatError for single bits with a palette.
    """
    depth, kind, palette = (int.from_bytes(data[at : at + 4], "big") for at in (12, 20, 28))
    if depth == 1 and palette:
        raise UnsupportedFormatError("SUN: a palette for two colours is not decoded")
    image = SunImageFile(io.BytesIO(data), "")
    if depth == 32:  # the unused byte comes first, not last as Pillow has it
        rawmode = "XRGB" if kind == _RGB_ORDER else "XBGR"
        image.tile = [
            tile._replace(
                args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode
            )
            for tile in image.tile
        ]
    return image
