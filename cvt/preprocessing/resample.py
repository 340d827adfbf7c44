"""Pillow's 8-bit resize, one window of the result at a time.

``image.resize(size).crop(box)`` builds the whole resized image first. For a 4000 x 3 strip whose
short side becomes 256 that is 341,333 x 256 pixels, of which 224 x 224 are kept. The functions
here compute the kept window alone, bit for bit as Pillow does (its ``libImaging/Resample.c``:
coefficients in double, rounded to 22 fractional bits, one rounding to 8 bits after each pass).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

_PRECISION_BITS = 32 - 8 - 2
_PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:2])

# Number of outputs up to which Pillow's running sum for the nearest filter is followed: Pillow
# itself cannot build a larger image.
_MAX_ACCUMULATED = 1 << 23

_Float = npt.NDArray[np.float64]
_Pixels = npt.NDArray[np.uint8]


def _sin(x: _Float) -> _Float:
    # libm's sine, as in C: numpy's own differs from it in the last bit.
    return np.array([math.sin(v) for v in x.flat]).reshape(x.shape)


def _cos(x: _Float) -> _Float:
    return np.array([math.cos(v) for v in x.flat]).reshape(x.shape)


def _box(x: _Float) -> _Float:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _bilinear(x: _Float) -> _Float:
    x = np.abs(x)
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _hamming(x: _Float) -> _Float:
    x = np.abs(x)
    t = np.where(x == 0.0, 1.0, x * math.pi)
    value = _sin(t) / t * (float(np.float32(0.54)) + float(np.float32(0.46)) * _cos(t))
    return np.where(x == 0.0, 1.0, np.where(x >= 1.0, 0.0, value))


def _bicubic(x: _Float) -> _Float:
    x = np.abs(x)
    a = -0.5
    inner = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, inner, np.where(x < 2.0, outer, 0.0))


def _sinc(x: _Float) -> _Float:
    t = np.where(x == 0.0, 1.0, x * math.pi)
    return np.where(x == 0.0, 1.0, _sin(t) / t)


def _lanczos(x: _Float) -> _Float:
    return np.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3), 0.0)


_FILTERS: dict[int, tuple[Callable[[_Float], _Float], float]] = {
    Image.Resampling.BOX: (_box, 0.5),
    Image.Resampling.BILINEAR: (_bilinear, 1.0),
    Image.Resampling.HAMMING: (_hamming, 1.0),
    Image.Resampling.BICUBIC: (_bicubic, 2.0),
    Image.Resampling.LANCZOS: (_lanczos, 3.0),
}


@dataclass(frozen=True)
class _Axis:
    """The taps of one axis for a range of outputs: starts (n,) and integer weights (n, taps)."""

    starts: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int32]

    @property
    def first(self) -> int:
        return int(self.starts.min())

    @property
    def stop(self) -> int:
        used = np.where(self.weights != 0, np.arange(1, self.weights.shape[1] + 1), 1).max(axis=1)
        return int((self.starts + used).max())


def _axis(in_size: int, out_size: int, window: tuple[int, int], resample: int) -> _Axis:
    """Taps of the outputs ``window[0] <= o < window[1]`` (Resample.c: precompute_coeffs)."""
    function, support = _FILTERS[resample]
    scale = in_size / out_size
    filter_scale = max(scale, 1.0)
    support *= filter_scale
    inverse_scale = 1.0 / filter_scale
    center = 0.0 + (np.arange(*window) + 0.5) * scale
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    stop = np.minimum((center + support + 0.5).astype(np.int64), in_size)
    position = first[:, None] + np.arange(int((stop - first).max()))
    weight = function((position - center[:, None] + 0.5) * inverse_scale)
    weight[position >= stop[:, None]] = 0.0
    total = np.add.accumulate(weight, axis=1)[:, -1:]  # one after the other, as the C loop does
    weight = np.divide(weight, total, out=weight, where=total != 0.0)
    fixed = weight * (1 << _PRECISION_BITS)
    return _Axis(first, np.trunc(fixed + np.where(weight < 0, -0.5, 0.5)).astype(np.int32))


def weights(
    in_size: int, out_size: int, window: tuple[int, int], resample: int
) -> tuple[slice, npt.NDArray[np.float32]]:
    """What the outputs ``window[0] <= o < window[1]`` of one axis are made of.

    Returns the inputs that have a part in them, and the weight (outputs, inputs) of each, rounded
    as Pillow rounds them.

    Raises:
        ValueError: the filter is not implemented here.
    """
    if resample not in _FILTERS:
        raise ValueError(f"weights has no filter {resample}; it has {[*_FILTERS]}")
    axis = _axis(in_size, out_size, window, resample)
    first, stop = axis.first, axis.stop
    rows, taps = np.indices(axis.weights.shape)
    columns = np.minimum(axis.starts[:, None] - first + taps, stop - first - 1)
    dense = np.zeros((len(axis.starts), stop - first), np.float32)
    np.add.at(dense, (rows, columns), axis.weights / np.float32(1 << _PRECISION_BITS))
    return slice(first, stop), dense


def _pass(pixels: _Pixels, axis: _Axis) -> _Pixels:
    """Resample the first axis of ``pixels`` (rows, ...), whose row 0 is row ``axis.first``."""
    starts = axis.starts - axis.first
    out = np.full((len(starts), *pixels.shape[1:]), 1 << (_PRECISION_BITS - 1), np.int32)
    shape = (-1,) + (1,) * (pixels.ndim - 1)
    for tap in range(axis.weights.shape[1]):
        rows = np.minimum(starts + tap, len(pixels) - 1)  # beyond the last row the weight is 0
        out += pixels[rows] * axis.weights[:, tap].reshape(shape)
    out >>= _PRECISION_BITS
    return out.clip(0, 255).astype(np.uint8)


def _across(pixels: _Pixels, axis: _Axis) -> _Pixels:
    return np.ascontiguousarray(_pass(pixels.swapaxes(0, 1), axis).swapaxes(0, 1))


def vertical_first(in_size: tuple[int, int], out_size: tuple[int, int]) -> bool:
    """Whether this Pillow resizes the height before the width, which matters for the rounding."""
    if _PILLOW < (12, 2):
        return False
    if _PILLOW < (13, 0):
        return in_size[1] > in_size[0] * 100 and out_size[1] < in_size[1]
    width, height = (i - o for i, o in zip(in_size, out_size, strict=True))
    return height > 0 and height > width * 2


def _nearest(in_size: int, out_size: int, window: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Source indices of a range of outputs (Geometry.c: ImagingScaleAffine)."""
    scale = in_size / out_size
    start, stop = window
    if stop > _MAX_ACCUMULATED:
        return ((np.arange(start, stop) + 0.5) * scale).astype(np.int64)
    steps = np.full(stop, scale)
    steps[0] = 0.5 * scale
    # A running sum, as in C, whose rounding errors decide some of the indices.
    return np.add.accumulate(steps)[start:].astype(np.int64)


def _nearest_window(
    image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]
) -> _Pixels:
    columns = _nearest(image.width, size[0], (box[0], box[2]))
    rows = _nearest(image.height, size[1], (box[1], box[3]))
    source = image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    return np.asarray(source)[np.ix_(rows - rows[0], columns - columns[0])]


def resize_window(
    image: Image.Image,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    resample: int = Image.Resampling.BICUBIC,
) -> npt.NDArray[np.uint8]:
    """Equal ``np.asarray(image.resize(size, resample).crop(box))`` for an RGB image.

    Time and memory grow with the window ``box`` (left, top, right, bottom; within ``size``) and the
    part of the source beneath it, whatever ``size`` (width, height) is. Returns uint8
    (bottom - top, right - left, 3).

    Raises:
        ValueError: the filter is not implemented here.
    """
    left, top, right, bottom = box
    if resample == Image.Resampling.NEAREST:
        return _nearest_window(image, size, box)
    if resample not in _FILTERS:
        raise ValueError(f"resize_window has no filter {resample}; it has 0 and {[*_FILTERS]}")
    horizontal = _axis(image.width, size[0], (left, right), resample)
    vertical = _axis(image.height, size[1], (top, bottom), resample)
    source = image.crop((horizontal.first, vertical.first, horizontal.stop, vertical.stop))
    pixels = np.asarray(source)
    if vertical_first(image.size, size):
        return _across(_pass(pixels, vertical), horizontal)
    return _pass(_across(pixels, horizontal), vertical)
