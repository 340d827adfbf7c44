"""SGI files: which of them hold a picture that Pillow knows."""

import io

from PIL import Image
from PIL.SgiImagePlugin import SgiImageFile

from cvt.errors import UnsupportedFormatError

_CHANNELS = (1, 3, 4)
_NORMAL = 0


def open_sgi(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of an SGI file.

    Raises UnsupportedFormatError for other numbers of channels, and for palettes.
    """
    packing, width, dimensions = data[2], data[3], int.from_bytes(data[4:6], "big")
    channels, colours = int.from_bytes(data[10:12], "big"), int.from_bytes(data[104:108], "big")
    if packing < 2 and width in (1, 2) and dimensions in (1, 2, 3) and len(data) > 512:
        is_flat = dimensions < 3
        if (not is_flat and channels not in _CHANNELS) or colours != _NORMAL:
            raise UnsupportedFormatError(
                f"SGI: {channels} channels of the kind {colours} are not decoded"
            )
    return SgiImageFile(io.BytesIO(data), "")
