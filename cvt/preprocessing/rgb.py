"""From any PIL image to an upright RGB image that looks as a person would expect.

- Transparency (LA, PA, RGBA, a transparent palette entry or colour key) is composited on white,
  which is what viewers show and what transformers' ``do_convert_rgb`` does.
- 16-bit grey keeps its high byte, as Pillow does for 16-bit colour.
- 32-bit integers and floats carry no range of their own: ``_grey_to_8_bit`` has the rule.
- CMYK, YCbCr, LAB and HSV are converted by Pillow. Colour profiles (ICC) are ignored, as the
  reference preprocessing ignores them.
- EXIF orientation is applied; EXIF data that cannot be read counts as absent.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

_BITS_PER_SAMPLE = 258
_PHOTOMETRIC = 262
_ORIENTATION = 274
_Levels = npt.NDArray[np.uint8]
_ROWS = 256  # at a time: the arithmetic is 8 bytes wide
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright_rgb(image: Image.Image) -> Image.Image:
    """``image`` as RGB, turned as its EXIF orientation says; may be ``image`` itself."""
    turn = _TRANSPOSE.get(orientation(image))
    rgb = to_rgb(image)
    if turn is not None:
        rgb = rgb.transpose(turn)
    if rgb is not image:
        rgb.info = {}  # the EXIF data in it would turn the image a second time
    return rgb


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8 if the file is valid; 1 (upright) if there is none."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - broken EXIF data fails in countless ways; none matters
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB as the module says, without turning; may be ``image`` itself."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _grey_to_8_bit(image)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
    rgba = image.convert(straight).convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale one of the ranges of ``_tops``, or the whole range of values, as ``fitted`` does."""
    values = np.asarray(image)
    grey = fitted(values, _tops(image))
    if _white_is_zero(image):
        grey = 255 - grey
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey[values == key] = 255
    return Image.fromarray(grey)


def _tops(image: Image.Image) -> tuple[int, ...]:
    """White in the ranges that an image with more than 8 bits may have, the likeliest first."""
    if image.mode == "F":
        return (1, 255)
    if image.mode != "I":
        return (4095, 65535) if _tag(image, _BITS_PER_SAMPLE) == 12 else (65535,)
    return (65535,) if image.format in ("PNG", "PPM") else (255, 65535)


def _white_is_zero(image: Image.Image) -> bool:
    return bool(_tag(image, _PHOTOMETRIC) == 0)


def _tag(image: Image.Image, number: int) -> Any:
    """Value of a TIFF tag, the first one if it has several; None for images of other formats."""
    value = image.tag_v2.get(number) if isinstance(image, TiffImageFile) else None
    return value[0] if isinstance(value, tuple) else value


def of_bits(values: npt.NDArray[Any], bits: int) -> _Levels:
    """The high byte of unsigned samples of ``bits`` bits; below 8 bits, scaled to 0..255."""
    if bits >= 8:
        return (values >> (bits - 8)).astype(np.uint8)
    top = (1 << bits) - 1
    widened: _Levels = (np.arange(top + 1) * 255 // top).astype(np.uint8)
    return np.take(widened, values)


def fitted(values: npt.NDArray[Any], tops: Sequence[int]) -> _Levels:
    """Scale the first of the ranges 0..top that holds all values to 0..255.

    If none does, lowest..highest is scaled. Values that are not finite count as the lowest.
    """
    is_float = values.dtype.kind == "f"
    finite = values[np.isfinite(values)] if is_float else values
    low, high = (finite.min().item(), finite.max().item()) if finite.size else (0, 0)
    top = next((top for top in tops if low >= 0 and high <= top), None)
    levels = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), _ROWS):
        part = values[row : row + _ROWS]
        if top is None:
            levels[row : row + _ROWS] = _stretched(part, low, high)
        elif is_float:
            levels[row : row + _ROWS] = _stretched(part, 0, top)
        elif top < 255:
            levels[row : row + _ROWS] = part.astype(np.int64) * 256 // (top + 1)
        else:
            levels[row : row + _ROWS] = part // ((top + 1) // 256)
    return levels


def _stretched(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[Any]:
    scale = 255 / (high / 2 - low / 2) if high > low else 0.0  # halves, whose span is finite
    if not math.isfinite(scale):
        scale = 0.0
    finite = np.where(np.isfinite(values), values, low).astype(np.float64)
    return np.asarray(np.rint((finite / 2 - low / 2) * scale))
