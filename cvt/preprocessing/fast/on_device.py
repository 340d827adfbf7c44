"""JPEG files whose pixels a GPU decodes, and how they are resized there.

The header is read on the CPU, with all checks of the exact way. What a GPU's decoder might read
otherwise than Pillow (inks, RGB without a transform, unusual sampling, missing ends) is left to the
CPU. The resizing has Pillow's own weights as matrices, so that only the decoders differ: on an H100
by 1.1 grey levels on average, as they interpolate the colours of neighbouring pixels differently.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from cvt.preprocessing.containers.jpeg import is_plain
from cvt.preprocessing.crop import TURNS, Window
from cvt.preprocessing.decode import opened
from cvt.preprocessing.resample import vertical_first, weights
from cvt.preprocessing.rgb import orientation
from cvt.preprocessing.signatures import ends_early

_FORMATS = ("JPEG", "MPO")
_SIZES_KEPT = 64
"""Weights of so many sizes of images stay on the device; those of 12 megapixels take 4 MB."""


class JpegHeader(NamedTuple):
    """What must be known of a JPEG file to turn its pixels into those of a model."""

    width: int
    """Of the upright image."""
    height: int
    orientation: int
    """How the pixels are stored, as in EXIF: 1 to 8."""


def read_header(
    data: bytes, window_of: Callable[[int, int], Window], *, max_pixels: int
) -> JpegHeader | None:
    """Read what a GPU needs beside the file itself; None for a file that the CPU has to decode.

    Args:
        data: The file's bytes.
        window_of: The window to cut out of an upright image of a size (width, height).
        max_pixels: The largest size to decode.

    Raises:
        ImageDecodeError: it cannot be decoded.
    """
    with opened(data, max_pixels) as image:
        if image.format not in _FORMATS or ends_early(data) or not is_plain(data):
            return None
        turn = orientation(image)
        width, height = image.size[::-1] if TURNS.get(turn, TURNS[1])[2] else image.size
        if window_of(width, height).is_small_part:
            return None
        return JpegHeader(width, height, turn)


def resize(
    image: Tensor, window_of: Callable[[int, int], Window], resample: int, orientation: int
) -> Tensor:
    """Resize, cut out the window and turn upright, on whatever device the image is.

    Args:
        image: uint8 (3, H, W), as stored in the file.
        window_of: The window to cut out of an upright image of a size (width, height).
        resample: Filter in Pillow's numbering, one that ``has_filter`` of on_cpu.py names: others
            are not symmetric, so that turning before or after makes a difference.
        orientation: As in EXIF.

    Returns:
        uint8 (S, S, 3), as Pillow resizes it but for numbers that lie between two grey levels.
    """
    flip_columns, flip_rows, swap = TURNS.get(orientation, TURNS[1])
    width, height = stored_size = image.shape[2], image.shape[1]
    upright_size = (height, width) if swap else stored_size
    upright = window_of(*upright_size)
    window = upright.as_stored(orientation)
    left, top, right, bottom = window.box
    columns, across = _weights(
        stored_size[0], window.size[0], (left, right), resample, image.device
    )
    rows, down = _weights(height, window.size[1], (top, bottom), resample, image.device)
    pixels = image[:, rows, columns].float()
    if vertical_first(upright_size, upright.size) != swap:
        pixels = _rounded(_rounded(down @ pixels) @ across.T)
    else:
        pixels = _rounded(down @ _rounded(pixels @ across.T))
    flipped = [axis for axis, flips in ((1, flip_rows), (2, flip_columns)) if flips]
    pixels = pixels.to(torch.uint8).flip(flipped)
    return pixels.permute(2, 1, 0) if swap else pixels.permute(1, 2, 0)


@lru_cache(_SIZES_KEPT)
def _weights(
    in_size: int, out_size: int, window: tuple[int, int], resample: int, device: torch.device
) -> tuple[slice, Tensor]:
    inputs, dense = weights(in_size, out_size, window, resample)
    return inputs, torch.from_numpy(dense).to(device)


def _rounded(pixels: Tensor) -> Tensor:
    """To whole grey levels, as Pillow does after each pass."""
    return pixels.add_(0.5).floor_().clamp_(0, 255)
