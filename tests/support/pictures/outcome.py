"""What a decode mode makes of a file: its pixels, or the code of its refusal."""

from typing import get_args

import numpy as np
import numpy.typing as npt

from cvt.errors import ImageDecodeError
from cvt.preprocessing.decode import DEFAULT_MAX_PIXELS, decode_image
from cvt.preprocessing.processor import CvtImageProcessor, DecodeMode

MODES: tuple[DecodeMode, ...] = get_args(DecodeMode)


def pixels(data: bytes) -> npt.NDArray[np.int16]:
    """The upright image, (H, W, 3); wide enough to be subtracted."""
    image = decode_image(data)
    assert image.mode == "RGB"
    return np.asarray(image, np.int16)


def mean_colour(data: bytes, mode: DecodeMode) -> list[float]:
    """What is left of an image of one colour in a decode mode, after resizing."""
    decoded = CvtImageProcessor(size=32).pixels_from_bytes(data, mode=mode)
    values: list[float] = decoded.pixels.mean((0, 1)).tolist()
    return values


def code_of(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> str:
    """The error's code, the same in every mode, or "ok"."""
    codes = {_code(data, mode, max_pixels) for mode in MODES}
    assert len(codes) == 1, codes
    return codes.pop()


def _code(data: bytes, mode: DecodeMode, max_pixels: int) -> str:
    try:
        CvtImageProcessor(size=32).pixels_from_bytes(data, mode=mode, max_pixels=max_pixels)
    except ImageDecodeError as error:
        return error.code
    return "ok"
