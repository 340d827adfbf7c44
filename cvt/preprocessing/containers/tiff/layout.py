"""How a TIFF's samples lie in the file, and whether they can be read at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cvt.errors import CorruptImageError, TooManyPixelsError, UnsupportedFormatError
from cvt.preprocessing.containers.tiff.directory import Directory

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
RAW = 1
CCITT = frozenset({2, 3, 4, 32771})
OLD_JPEG, JPEG, THUNDERSCAN = 6, 7, 32809
# What these hold comes out as bytes, which then still have to be understood.
BYTES = frozenset({RAW, 5, 8, 32773, 32946, 34925, 50000})
_PREDICTED = frozenset({5, 8, 32946, 34925, 50000})
_COMPRESSIONS = BYTES | CCITT | {OLD_JPEG, JPEG, THUNDERSCAN}
_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3}
_KINDS = {4: "a mask", 32803: "a camera sensor", 34892: "a camera sensor"}
_IGNORED, _PREMULTIPLIED, _STRAIGHT, _COREL = 0, 1, 2, 999
_VOID = 4
_MAX_IGNORED = 3

_ALWAYS_FINE = 1 << 20
_MANY_PIECES, _PIXELS_OF_PIECE = 1 << 18, 256
_BYTES_PER_PIXEL = 8


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The fields of a TIFF that say how to read its pixels, with their defaults filled in."""

    order: str
    """Of the bytes of a number: < or >."""
    width: int
    height: int
    bits: int
    """Of every sample."""
    format: int
    samples: int
    photometric: int
    compression: int
    predictor: int
    fill_order: int
    is_planar: bool
    is_tiled: bool
    tile: tuple[int, int]
    """Width and height of a tile or strip."""
    spare: tuple[int, ...]
    """What the samples behind the colour are, as in the field ExtraSamples."""

    @classmethod
    def of(cls, directory: Directory) -> Self:
        """Raises UnsupportedFormatError or CorruptImageError for what has no known meaning."""
        compression = directory.first(259, RAW)
        if compression not in _COMPRESSIONS:
            raise UnsupportedFormatError(f"TIFF: compression {compression} is not decoded")
        width, height = directory.first(256, 0), directory.first(257, 0)
        if width < 1 or height < 1:
            raise CorruptImageError("TIFF: the size of the image is missing")
        photometric, samples = _meaning(directory, compression)
        formats = [UNSIGNED if value == _VOID else value for value in directory.values(339)]
        is_tiled = 322 in directory.entries
        rows = min(directory.first(278, height), height)
        tile = (directory.first(322, 0), directory.first(323, 0)) if is_tiled else (width, rows)
        return cls(
            order=directory.order,
            width=width,
            height=height,
            bits=_same(directory.values(258)[:samples] or (1,), "sizes"),
            format=_same(formats[:samples] or (UNSIGNED,), "types"),
            samples=samples,
            photometric=photometric,
            compression=compression,
            predictor=directory.first(317, 1) if compression in _PREDICTED else 1,
            fill_order=directory.first(266, 1),
            is_planar=directory.first(284, 1) == 2 and samples > 1,
            is_tiled=is_tiled,
            tile=tile,
            spare=_spare(photometric, samples, directory.values(338)),
        )

    @property
    def colours(self) -> int:
        """Samples that make the colour; others follow them."""
        return _COLOURS[self.photometric]

    @property
    def alpha(self) -> int | None:
        """Which sample is the opacity."""
        kinds = (i for i, kind in enumerate(self.spare, self.colours) if kind != _IGNORED)
        return next(kinds, None)

    @property
    def is_premultiplied(self) -> bool:
        """Whether the colours are already multiplied with the opacity."""
        return self.alpha is not None and self.spare[self.alpha - self.colours] == _PREMULTIPLIED

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles or strips across and down."""
        return -(-self.width // self.tile[0]), -(-self.height // self.tile[1])

    @property
    def pieces(self) -> int:
        """Tiles or strips of the whole image."""
        return self.grid[0] * self.grid[1] * (self.samples if self.is_planar else 1)

    def check_work(self, max_pixels: int) -> None:
        """Raise TooManyPixelsError for more work than an image of ``max_pixels`` may cause.

        Raises UnsupportedFormatError for very many strips or tiles of a few pixels each.
        """
        if min(self.tile) < 1:
            raise CorruptImageError("TIFF: the size of the tiles is missing")
        if self.pieces > max(_MANY_PIECES, self.width * self.height // _PIXELS_OF_PIECE):
            raise UnsupportedFormatError(f"TIFF: {self.pieces} strips or tiles are not decoded")
        padded = self.grid[0] * self.tile[0] * self.grid[1] * self.tile[1]
        padded = padded if self.is_tiled else self.width * self.height
        if padded > max(2 * max_pixels, _ALWAYS_FINE):
            raise TooManyPixelsError(
                f"TIFF: tiles of {self.tile[0]} x {self.tile[1]} hold {padded} pixels, more than "
                f"twice the limit of {max_pixels}"
            )
        size = padded * self.samples * self.bits // 8
        if size > max(_BYTES_PER_PIXEL * max_pixels, _ALWAYS_FINE) and self.bits > 8:
            raise TooManyPixelsError(
                f"TIFF: {self.samples} samples of {self.bits} bits take {size} bytes, more than "
                f"{_BYTES_PER_PIXEL} for each of {max_pixels} pixels"
            )


def _meaning(directory: Directory, compression: int) -> tuple[int, int]:
    """What the samples are, and how many of them a pixel has."""
    samples = directory.first(277, 3 if compression == OLD_JPEG else 1)
    default = RGB if samples >= 3 else WHITE_IS_ZERO if compression in CCITT else BLACK_IS_ZERO
    photometric = YCBCR if compression == OLD_JPEG else directory.first(262, default)
    if photometric not in _COLOURS:
        what = _KINDS.get(photometric, f"kind {photometric}")
        raise UnsupportedFormatError(f"TIFF: pixels of {what} are not decoded")
    if photometric == CMYK and directory.first(332, 1) != 1:
        raise UnsupportedFormatError("TIFF: inks other than CMYK are not decoded")
    if samples < _COLOURS[photometric]:
        raise CorruptImageError(f"TIFF: {samples} samples are too few for a colour")
    return photometric, samples


def _spare(photometric: int, samples: int, told: tuple[int, ...]) -> tuple[int, ...]:
    """The kinds of the samples beyond the colour: opacity, or to be ignored."""
    colours = _COLOURS[photometric]
    count = samples - colours
    if not told and count:
        told = (_STRAIGHT,) if photometric == RGB and count == 1 else ()
        if not told and colours == 1:
            raise UnsupportedFormatError(f"TIFF: {samples} bands are not decoded")
    kinds = tuple(_STRAIGHT if kind == _COREL else kind for kind in told[:count])
    kinds += (_IGNORED,) * (count - len(kinds))
    unknown = [kind for kind in kinds if kind not in (_IGNORED, _PREMULTIPLIED, _STRAIGHT)]
    if unknown or kinds.count(_IGNORED) > (1 if colours == 1 else _MAX_IGNORED):
        raise UnsupportedFormatError(f"TIFF: {samples} bands are not decoded")
    return kinds


def _same(values: Sequence[int], what: str) -> int:
    if len(set(values)) != 1:
        raise UnsupportedFormatError(f"TIFF: samples of different {what} are not decoded")
    return values[0]
