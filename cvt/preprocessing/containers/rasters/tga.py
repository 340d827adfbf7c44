"""TGA files: whether the bits beside the colour are opacity."""

import io

from PIL import Image
from PIL.TgaImagePlugin import TgaImageFile

from cvt.preprocessing.containers.image import Repaired

_COLOUR = (2, 10)


def open_tga(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a TGA file."""
    image = TgaImageFile(io.BytesIO(data), "")
    depth, opacity_bits = data[16], data[17] & 15
    if data[2] not in _COLOUR or image.mode != "RGBA":
        return image
    if depth == 16 and opacity_bits == 0:
        return Repaired(image, lambda decoded: decoded.convert("RGB"))
    return Repaired(image, _without_false_opacity) if opacity_bits < 8 else image


def _without_false_opacity(image: Image.Image) -> Image.Image:
    """Show an image that would be all invisible: programs leave bits 0 that they do not know."""
    lowest, highest = image.getchannel("A").getextrema()
    return image.convert("RGB") if lowest == highest == 0 else image
