"""Made-up photographs, the same on every machine, so that measurements can be repeated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

WIDTH, HEIGHT = 500, 375
QUALITY = 87
_CONTRAST = 55.0
"""Standard deviation in grey levels."""


def write_images(
    directory: Path,
    number: int,
    *,
    first: int = 0,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    quality: int = QUALITY,
) -> list[Path]:
    """Write JPEG files 000000.jpg, ... of about 110 kB each at the default size.

    ``first`` is the number of the first one, for a series that several processes write.
    """
    directory.mkdir(parents=True, exist_ok=True)
    indices = range(first, first + number)
    paths = [directory / f"{index:06d}.jpg" for index in indices]
    for index, path in zip(indices, paths, strict=True):
        Image.fromarray(photograph(index, *size)).save(path, quality=quality)
    return paths


def photograph(seed: int, width: int = WIDTH, height: int = HEIGHT) -> npt.NDArray[np.uint8]:
    """uint8 (height, width, 3): noise whose amplitude falls with 1/f, like that of natural images
    (Field, 1987), in correlated colours."""
    rng = np.random.default_rng(seed)
    planes = _pink(rng, height, width)
    mixed = planes @ np.array([[1.0, 1.0, 1.0], [0.3, 0.0, -0.3], [-0.15, 0.3, -0.15]])
    brightness = rng.uniform(90, 165, size=3)
    pixels: npt.NDArray[np.uint8] = np.clip(brightness + _CONTRAST * mixed, 0, 255).astype(np.uint8)
    return pixels


def _pink(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float64]:
    """(height, width, 3) of zero mean and unit variance."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(3, height, width))) / frequency
    planes = np.fft.irfft2(spectrum, s=(height, width))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    return np.moveaxis(planes, 0, -1)
