"""FITS files: signed numbers, to which the header gives a zero point and a scale."""

import io

import numpy as np
from PIL import Image
from PIL.FitsImagePlugin import FitsImageFile

from cvt.preprocessing.containers.image import Repaired
from cvt.preprocessing.rgb import fitted, of_bits

_CARD = 80
_INT_TOPS = {np.int16: (255, 32767), np.int32: (255, 65535)}
_FLOAT_TOPS = (1, 255)


def open_fits(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a FITS file."""
    image = FitsImageFile(io.BytesIO(data), "")
    zero, scale = _calibration(data[: image.tile[0].offset])
    return Repaired(image, lambda decoded: _calibrated(decoded, zero, scale))


def _calibration(headers: bytes) -> tuple[float, float]:
    """The zero point and the scale in the last of the headers."""
    told = {b"BZERO": 0.0, b"BSCALE": 1.0}
    for start in range(0, len(headers), _CARD):
        keyword, value = headers[start : start + 8].strip(), headers[start + 8 : start + _CARD]
        if keyword in (b"SIMPLE", b"XTENSION"):
            told = {b"BZERO": 0.0, b"BSCALE": 1.0}
        if keyword in told:
            told[keyword] = float(value.lstrip(b"= ").split(b"/")[0].replace(b"D", b"E"))
    return told[b"BZERO"], told[b"BSCALE"]


def _calibrated(image: Image.Image, zero: float, scale: float) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "I;16":  # which Pillow takes for unsigned
        values = values.view(np.int16)
    bits = 8 * values.itemsize
    if image.mode == "L" and (zero, scale) == (0, 1):
        return image
    if image.mode != "F" and (zero, scale) == (
        1 << bits - 1,
        1,
    ):  # unsigned numbers, stored as signed
        unsigned = values.astype(np.int64) + (1 << bits - 1)
        return Image.fromarray(
            of_bits(unsigned, 16) if bits == 16 else fitted(unsigned, (255, 65535, (1 << 32) - 1))
        )
    if (zero, scale) == (0, 1) and image.mode != "F":
        return Image.fromarray(fitted(values, _INT_TOPS[values.dtype.type]))
    return Image.fromarray(fitted(values * scale + zero, _FLOAT_TOPS))
