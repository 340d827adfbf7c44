"""A smaller file of an image, for networks that see it again and again."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from cvt.preprocessing.decode import DEFAULT_MAX_PIXELS, opened
from cvt.preprocessing.rgb import upright_rgb

_AS_THEY_ARE: Final = ("JPEG", "PNG")
_LOSSY: Final = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF")
_QUALITY: Final = 95


def smaller_picture(data: bytes, short_side: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """The file itself if it is a JPEG or PNG whose short side is not longer, else one of them that
    holds the image upright, at most so large. What was without losses becomes a PNG.

    Raises:
        ImageDecodeError: it cannot be decoded.
    """
    with opened(data, max_pixels) as image:
        format = image.format
        if format in _AS_THEY_ARE and min(image.size) <= short_side:
            return data
        image.load()
        upright = upright_rgb(image)
    buffer = io.BytesIO()
    options = {"quality": _QUALITY, "subsampling": 0} if format in _LOSSY else {"compress_level": 1}
    name = "JPEG" if format in _LOSSY else "PNG"
    _shrunk(upright, short_side).save(buffer, name, **options)
    return buffer.getvalue()


def _shrunk(image: Image.Image, short_side: int) -> Image.Image:
    scale = short_side / min(image.size)
    if scale >= 1:
        return image
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.resize(size, Image.Resampling.LANCZOS)
