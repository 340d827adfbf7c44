"""The samples of a TIFF, of any width and type, as a picture.

Pillow and libtiff only unpack the bytes: they are shown an image of one byte per pixel.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from cvt.errors import CorruptImageError, UnsupportedFormatError
from cvt.preprocessing.containers.tiff.directory import Directory
from cvt.preprocessing.containers.tiff.layout import (
    BLACK_IS_ZERO,
    CMYK,
    FLOAT,
    PALETTE,
    RGB,
    SIGNED,
    UNSIGNED,
    WHITE_IS_ZERO,
    Layout,
)
from cvt.preprocessing.containers.tiff.pieces import Pieces
from cvt.preprocessing.rgb import fitted, of_bits

_Samples = npt.NDArray[Any]
_Levels = npt.NDArray[np.uint8]
_WHOLE = {8, 16, 32, 64}
_WIDTHS = {UNSIGNED: frozenset({*range(1, 33), 64}), SIGNED: _WHOLE, FLOAT: {16, 32, 64}}
_TYPES = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}
_DIFFERENCES, _FLOAT_DIFFERENCES = 2, 3
_ROWS = 64
# White in the ranges that samples without a range of their own may have, the likeliest first.
_UNKNOWN_TOPS = (255, 65535)
_SIGNED_TOPS = {8: (127,), 16: (255, 32767), 32: _UNKNOWN_TOPS, 64: _UNKNOWN_TOPS}
_FLOAT_TOPS = (1, 255)
# Compression and the order of bits in a byte.
_KEPT = frozenset({259, 266})


def check_samples(layout: Layout) -> None:
    """Raise UnsupportedFormatError for samples that `decode_samples` does not understand."""
    kind = f"samples of {layout.bits} bits and type {layout.format}"
    if layout.bits not in _WIDTHS.get(layout.format, ()):
        raise UnsupportedFormatError(f"TIFF: {kind} are not decoded")
    if layout.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK):
        raise UnsupportedFormatError(f"TIFF: {kind} are not decoded in this colour space")
    if layout.photometric in (PALETTE, CMYK) and layout.format != UNSIGNED:
        raise UnsupportedFormatError(f"TIFF: {kind} are not decoded in this colour space")
    if layout.photometric == PALETTE and layout.bits > 16:
        raise UnsupportedFormatError(f"TIFF: a palette for {layout.bits} bits is not decoded")
    needed = {_DIFFERENCES: layout.bits in _WHOLE, _FLOAT_DIFFERENCES: layout.format == FLOAT}
    if layout.predictor != 1 and not needed.get(layout.predictor, False):
        raise UnsupportedFormatError(f"TIFF: predictor {layout.predictor} of {kind} is not decoded")
    is_odd = layout.is_premultiplied and layout.photometric in (WHITE_IS_ZERO, CMYK)
    if is_odd or (layout.alpha is not None and layout.format == SIGNED):
        raise UnsupportedFormatError(f"TIFF: opacity of this kind is not decoded for {kind}")


def decode_samples(directory: Directory, layout: Layout, pieces: Pieces) -> Image.Image:
    """The image as it is stored: L, RGB, LA or RGBA."""
    if layout.is_planar:
        wanted = [*range(layout.colours), *([] if layout.alpha is None else [layout.alpha])]
        planes = [_plane(directory, layout, pieces, index)[..., 0] for index in wanted]
        colours = np.stack(planes[: layout.colours], axis=-1)
        alpha = None if layout.alpha is None else planes[-1]
    else:
        samples = _plane(directory, layout, pieces, 0)
        colours = samples[..., : layout.colours]
        alpha = None if layout.alpha is None else samples[..., layout.alpha]
    opacity = None if alpha is None else _opacity(alpha, layout)
    if layout.photometric == PALETTE:
        return _with_opacity(_looked_up(colours[..., 0], directory), opacity)
    levels = _levels(colours, layout)
    if layout.photometric == WHITE_IS_ZERO:
        levels = 255 - levels
    if layout.is_premultiplied and opacity is not None:
        levels = levels + np.minimum(255 - levels, 255 - opacity[..., None])  # on white
        opacity = None
    if layout.photometric == CMYK:
        inks = Image.frombytes("CMYK", (layout.width, layout.height), levels.tobytes())
        levels = np.asarray(inks.convert("RGB"))
    return _with_opacity(levels, opacity)


def _levels(values: _Samples, layout: Layout) -> _Levels:
    if layout.format == FLOAT:
        return fitted(values, _FLOAT_TOPS)
    if layout.format == SIGNED:
        return fitted(values, _SIGNED_TOPS[layout.bits])
    if layout.bits >= 32:
        return fitted(values, (*_UNKNOWN_TOPS, (1 << layout.bits) - 1))
    return of_bits(values, layout.bits)


def _opacity(values: _Samples, layout: Layout) -> _Levels:
    if layout.format == UNSIGNED:
        return of_bits(values, layout.bits)
    return fitted(values, _FLOAT_TOPS)


def _with_opacity(levels: _Levels, opacity: _Levels | None) -> Image.Image:
    if levels.shape[-1] == 1:
        levels = levels[..., 0]
    image = Image.fromarray(np.ascontiguousarray(levels))
    if opacity is not None:
        image.putalpha(Image.fromarray(np.ascontiguousarray(opacity)))
    return image


def _looked_up(indices: _Samples, directory: Directory) -> _Levels:
    """The colours of a palette, whose entries have 16 bits, though some programs write 8."""
    entries = np.array(directory.values(320), np.uint32)
    if not entries.size or entries.size % 3:
        raise CorruptImageError("TIFF: the palette is missing")
    levels = of_bits(entries, 16) if entries.max() > 255 else entries.astype(np.uint8)
    palette = levels.reshape(3, -1).T
    return palette[np.minimum(indices, len(palette) - 1)]


def _plane(directory: Directory, layout: Layout, pieces: Pieces, index: int) -> _Samples:
    """One plane of a planar file, or all of another: (H, W, samples), as numbers."""
    (across, down), (width, _) = layout.grid, layout.tile
    samples = 1 if layout.is_planar else layout.samples
    row_bytes = (width * samples * layout.bits + 7) // 8
    where = pieces.fields(index * across * down, across * down)
    rows = _bytes(directory, layout, where, across * row_bytes)
    values = _numbers(rows.reshape(len(rows), across, row_bytes), layout, width * samples)
    if layout.predictor == _DIFFERENCES:
        values = _summed(values.reshape(len(rows), across, width, samples), layout)
    whole = values.reshape(len(rows), across * width, samples)
    return whole[: layout.height, : layout.width]


def _bytes(
    directory: Directory, layout: Layout, where: Mapping[int, tuple[int, ...]], row_bytes: int
) -> _Levels:
    """The unpacked bytes of some pieces: (rows, row_bytes), tiles beside each other."""
    (across, down), (_, rows) = layout.grid, layout.tile
    height = down * rows if layout.is_tiled else layout.height
    size = {256: (row_bytes,), 257: (height,)}
    tile = {322: (row_bytes // across,), 323: (rows,)} if layout.is_tiled else {278: (rows,)}
    grey = {258: (8,), 262: (BLACK_IS_ZERO,), 277: (1,)}
    file = directory.rebuilt(_KEPT, {**size, **tile, **grey, **where})
    image = _Unlimited(io.BytesIO(file), "")
    image.load()
    return np.asarray(image)


class _Unlimited(TiffImageFile):
    """Without Pillow's limit on pixels, which here are bytes; `Layout.check_work` has another."""

    def load_prepare(self) -> None:
        self.im = Image.new(self.mode, self.size).im
        ImageFile.ImageFile.load_prepare(self)


def _numbers(rows: _Levels, layout: Layout, count: int) -> _Samples:
    """The samples in rows of bytes (rows, across, bytes): (rows, across, count)."""
    size = layout.bits // 8
    if layout.predictor == _FLOAT_DIFFERENCES:
        return _float_summed(rows, layout, count)
    if layout.bits in _WHOLE:
        kind = "u" if layout.predictor == _DIFFERENCES else _TYPES[layout.format]
        return rows.view(f"{layout.order}{kind}{size}")
    if layout.bits == 24:
        parts = rows.reshape(*rows.shape[:2], count, 3).astype(np.uint32)
        parts = parts if layout.order == ">" else parts[..., ::-1]
        return parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2]
    values = np.empty((*rows.shape[:2], count), np.uint8 if layout.bits <= 8 else np.uint32)
    weights = 1 << np.arange(layout.bits - 1, -1, -1, dtype=np.uint32)
    for row in range(0, len(rows), _ROWS):
        bits = np.unpackbits(rows[row : row + _ROWS], axis=-1, count=count * layout.bits)
        values[row : row + _ROWS] = bits.reshape(*bits.shape[:2], count, layout.bits) @ weights
    return values


def _summed(differences: _Samples, layout: Layout) -> _Samples:
    """Undo the predictor that stores differences of neighbours (rows, across, width, samples)."""
    native = differences.dtype.newbyteorder("=")
    sums = np.add.accumulate(differences.astype(native, copy=False), axis=2, dtype=native)
    return sums.view(f"{_TYPES[layout.format]}{native.itemsize}")


def _float_summed(rows: _Levels, layout: Layout, count: int) -> _Samples:
    """Undo the predictor of floats: differences of bytes, all first bytes of a row first."""
    samples = 1 if layout.is_planar else layout.samples
    steps = rows.reshape(*rows.shape[:2], -1, samples)
    sums = np.add.accumulate(steps, axis=2, dtype=np.uint8)
    parts = sums.reshape(*rows.shape[:2], layout.bits // 8, count)
    numbers = np.ascontiguousarray(parts.swapaxes(-1, -2)).view(f">f{layout.bits // 8}")
    return numbers[..., 0]
