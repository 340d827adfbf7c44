"""Colours, and the pixels that decoded bytes have."""

import numpy as np
import numpy.typing as npt

from cvt.preprocessing.decode import decode_image

Pixels = npt.NDArray[np.uint8]
RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
)


def decoded(data: bytes) -> Pixels:
    image = decode_image(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(data: bytes) -> Pixels:
    """The one channel of an image whose three channels agree."""
    pixels = decoded(data)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
