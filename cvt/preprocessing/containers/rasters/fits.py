"""FITS files: signed numbers, to which the header gives a zero point and a scale."""

import gzip
import io
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.FitsImagePlugin import FitsImageFile

from cvt.errors import TruncatedImageError
from cvt.preprocessing.containers.image import Repaired, header
from cvt.preprocessing.rgb import fitted, of_bits

_Values = npt.NDArray[Any]
_CARD = 80
_INT_TOPS = {np.int16: (255, 32767), np.int32: (255, 65535)}
_FLOAT_TOPS = (1, 255)


def open_fits(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a FITS file."""
    image = FitsImageFile(io.BytesIO(data), "")
    codec, _, start, args = image.tile[0]
    zero, scale = _calibration(data[:start])
    if codec == "raw" or not isinstance(args, tuple):
        return Repaired(image, lambda decoded: _calibrated(np.asarray(decoded), zero, scale))
    shown, bits = header("FITS", image.size), int(args[0])
    return Repaired(
        shown, lambda _: _calibrated(_inflated(data[start:], image.size, bits), zero, scale)
    )


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


def _inflated(body: bytes, size: tuple[int, int], bits: int) -> _Values:
    """The numbers of a compressed image, which take four bytes each, whatever bits they have."""
    width, height = size
    try:
        with gzip.open(io.BytesIO(body)) as file:
            content = file.read(4 * width * height)
    except (EOFError, zlib.error) as error:
        raise TruncatedImageError(f"FITS: {error}") from error
    if len(content) < 4 * width * height:
        raise TruncatedImageError("FITS: rows are missing")
    values = np.frombuffer(content, ">f4" if bits < 0 else ">i4").reshape(height, width)[::-1]
    return values.astype({8: np.uint8, 16: np.int16}.get(bits, values.dtype.newbyteorder("=")))


def _calibrated(values: _Values, zero: float, scale: float) -> Image.Image:
    if values.dtype == np.uint16:  # which Pillow takes for unsigned
        values = values.view(np.int16)
    bits, is_float = 8 * values.itemsize, values.dtype.kind == "f"
    if values.dtype == np.uint8 and (zero, scale) == (0, 1):
        return Image.fromarray(values)
    if not is_float and (zero, scale) == (
        1 << bits - 1,
        1,
    ):  # unsigned numbers, stored as signed
        unsigned = values.astype(np.int64) + (1 << bits - 1)
        return Image.fromarray(
            of_bits(unsigned, 16) if bits == 16 else fitted(unsigned, (255, 65535, (1 << 32) - 1))
        )
    if (zero, scale) == (0, 1) and not is_float:
        return Image.fromarray(fitted(values, _INT_TOPS[values.dtype.type]))
    return Image.fromarray(fitted(values * scale + zero, _FLOAT_TOPS))
