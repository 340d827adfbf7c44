"""Samples of any width as the 256 levels of a picture."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_Levels = npt.NDArray[np.uint8]
_ROWS = 256  # at a time: the arithmetic is 8 bytes wide


def of_bits(values: npt.NDArray[Any], bits: int) -> _Levels:
    """Unsigned samples of ``bits`` bits: their high byte, or below 8 bits widened to 0..255."""
    if bits >= 8:
        return (values >> (bits - 8)).astype(np.uint8)
    top = (1 << bits) - 1
    widened: _Levels = (np.arange(top + 1) * 255 // top).astype(np.uint8)
    return np.take(widened, values)


def fitted(values: npt.NDArray[Any], tops: Sequence[int]) -> _Levels:
    """Scale to 0..255 the first of the ranges 0..top that holds all values.

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
