"""Which part of the resized image is kept, and where that is in an image that is stored rotated."""

from dataclasses import dataclass
from typing import Self

_SQUASH_FROM = 384
# From this many times the size of the part on, the resized image is not built, only the part.
_MAX_WASTE = 16

# How to turn a stored image upright, by EXIF orientation: flip its columns, flip its rows, then
# swap the axes.
TURNS = {
    1: (False, False, False),
    2: (True, False, False),
    3: (True, True, False),
    4: (False, True, False),
    5: (False, False, True),
    6: (False, True, True),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(frozen=True)
class Window:
    """The size (width, height) of a resized image, and the box (left, top, right, bottom) kept."""

    size: tuple[int, int]
    box: tuple[int, int, int, int]

    @classmethod
    def centre(cls, width: int, height: int, size: int, crop_pct: float) -> Self:
        """The window that transformers' ConvNextImageProcessor cuts out of an image.

        Below 384 the short side becomes int(size / crop_pct), the long side is truncated, and the
        offset of the centre is floored; from 384 on the image is squeezed into the square.
        """
        if size >= _SQUASH_FROM:
            return cls((size, size), (0, 0, size, size))
        short, long = sorted((width, height))
        new_short = int(size / crop_pct)
        new_long = int(new_short * long / short)
        resized = (new_short, new_long) if width <= height else (new_long, new_short)
        left, top = ((side - size) // 2 for side in resized)
        return cls(resized, (left, top, left + size, top + size))

    @property
    def is_small_part(self) -> bool:
        """Whether the resized image is so much larger that it should not be built."""
        left, top, right, bottom = self.box
        return self.size[0] * self.size[1] > _MAX_WASTE * (right - left) * (bottom - top)

    def as_stored(self, orientation: int) -> Self:
        """The same window before the image is turned upright."""
        flip_columns, flip_rows, swap = TURNS.get(orientation, TURNS[1])
        (width, height), (left, top, right, bottom) = self.size, self.box
        if swap:
            width, height = height, width
            left, top, right, bottom = top, left, bottom, right
        if flip_columns:
            left, right = width - right, width - left
        if flip_rows:
            top, bottom = height - bottom, height - top
        return type(self)((width, height), (left, top, right, bottom))
