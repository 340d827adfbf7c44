"""PGM and PPM files whose white is not 255: as Pillow reads them, but not number by number."""

import io

import numpy as np
from PIL import Image
from PIL.PpmImagePlugin import PpmImageFile

from cvt.errors import TruncatedImageError
from cvt.preprocessing.containers.image import Repaired, header


def open_ppm(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a PBM, PGM, PPM or PFM file."""
    image = PpmImageFile(io.BytesIO(data), "")
    codec, _, start, args = image.tile[0]
    if codec != "ppm" or not isinstance(args, tuple):
        return image
    shown, white = header("PPM", image.size), int(args[1])
    bands = len(image.getbands())
    return Repaired(shown, lambda _: _decode(data[start:], image.size, bands, white))


def _decode(body: bytes, size: tuple[int, int], bands: int, white: int) -> Image.Image:
    width, height = size
    kind, count = np.dtype("u1" if white < 256 else ">u2"), width * height * bands
    if len(body) < count * kind.itemsize:
        raise TruncatedImageError("PPM: rows are missing")
    values = np.frombuffer(body, kind, count).reshape(height, width, bands)
    levels = np.rint(np.arange(white + 1) / white * 255)
    if bands == 1 and white > 255:  # keeps the high byte of 16 bits, as for every grey of 16 bits
        levels = np.rint(np.arange(white + 1) / white * 65535) // 256
    pixels = np.take(levels.astype(np.uint8), values, mode="clip")
    return Image.fromarray(pixels[..., 0] if bands == 1 else pixels)
