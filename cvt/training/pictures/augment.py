"""Another view of an image in every epoch: a random crop, and half of them mirrored.

What an image looks like in an epoch depends on the seed, the epoch and the number of the image and
on nothing else: neither on the order, nor on how many workers there are, nor on interruptions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from cvt.preprocessing.crop import Window
from cvt.preprocessing.decode import DEFAULT_MAX_PIXELS, decode_image
from cvt.preprocessing.fast.on_cpu import decode_fast, has_filter
from cvt.preprocessing.processor import CvtImageProcessor
from cvt.preprocessing.resample import resize_window
from cvt.preprocessing.rgb import upright_rgb

Augment = Literal["none", "light", "strong"]
SMALLEST: Final[dict[Augment, float]] = {"light": 0.6, "strong": 0.08}
"""The smallest share of an image's area that a crop shows; "strong" is how ImageNet is trained."""
_RATIO: Final = math.log(4 / 3)
_TRIES: Final = 10


@dataclass(frozen=True)
class View:
    """What an epoch shows of an image."""

    window: Callable[[int, int], Window]
    """By the upright size of the image (width, height)."""
    is_mirrored: bool


def view(
    processor: CvtImageProcessor, augment: Augment, seed: int, epoch: int, number: int
) -> View:
    """The view of image ``number`` in an epoch; with "none" always the one of inference."""
    if augment == "none":
        return View(processor.window, is_mirrored=False)
    rng = np.random.default_rng((seed, epoch, number))
    is_mirrored = bool(rng.random() < 0.5)
    draws = rng.random((_TRIES, 4))

    def window(width: int, height: int) -> Window:
        return random_window(width, height, processor.size, SMALLEST[augment], draws)

    return View(window, is_mirrored)


def random_window(
    width: int, height: int, size: int, smallest: float, draws: npt.NDArray[np.float64]
) -> Window:
    """A crop of random area, shape (3:4 to 4:3) and place, resized to a square of ``size``.

    Args:
        width: of the upright image, as ``height``.
        smallest: share of the area.
        draws: (T, 4) uniform in 0 to 1: of T crops, the first that lies within the image is taken,
            or else the largest square in the middle.
    """
    for area, shape, x, y in draws.tolist():
        pixels = width * height * (smallest + (1 - smallest) * area)
        ratio = math.exp(_RATIO * (2 * shape - 1))
        across, down = math.sqrt(pixels * ratio), math.sqrt(pixels / ratio)
        if across <= width and down <= height:
            return _scaled(width, height, size, (across, down), (x, y))
    side = min(width, height)
    return _scaled(width, height, size, (side, side), (0.5, 0.5))


def _scaled(
    width: int, height: int, size: int, crop: tuple[float, float], place: tuple[float, float]
) -> Window:
    """The window whose box is this crop; ``place`` is where it lies, from 0 to 1."""
    resized, corner = [], []
    for side, part, at in zip((width, height), crop, place, strict=True):
        whole = max(round(side * size / part), size)
        resized.append(whole)
        corner.append(round((whole - size) * at))
    left, top = corner
    return Window((resized[0], resized[1]), (left, top, left + size, top + size))


def pixels_of(
    data: bytes, seen: View, processor: CvtImageProcessor, max_pixels: int = DEFAULT_MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """A view of an image file: uint8 (S, S, 3), decoded as for inference.

    Raises:
        ImageDecodeError: it cannot be decoded.
    """
    if has_filter(processor.resample):
        found = decode_fast(
            data, seen.window, processor.resample, max_pixels=max_pixels, draft=False
        ).pixels
    else:
        image = upright_rgb(decode_image(data, max_pixels=max_pixels))
        window = seen.window(*image.size)
        found = resize_window(image, window.size, window.box, processor.resample)
    return np.ascontiguousarray(found[:, ::-1]) if seen.is_mirrored else found
