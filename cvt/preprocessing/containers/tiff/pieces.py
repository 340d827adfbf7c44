"""Where the strips or tiles of a TIFF lie, held against the file's length and the work they are."""

from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple, Self

from cvt.errors import CorruptImageError, TruncatedImageError, UnsupportedFormatError
from cvt.preprocessing.containers.jpeg import looks_like_scans, most_scans
from cvt.preprocessing.containers.tiff.directory import Directory
from cvt.preprocessing.containers.tiff.layout import JPEG, RAW, YCBCR, Layout

_BYTES_PER_PIXEL = 16


class Pieces(NamedTuple):
    """The strips or tiles in their order, of one plane after the other."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    """In bytes; none reaches beyond the end of the file."""
    is_tiled: bool

    @classmethod
    def of(cls, directory: Directory, layout: Layout, max_pixels: int) -> Self:
        """Raise TruncatedImageError or CorruptImageError where pieces are missing.

        Raises UnsupportedFormatError for JPEG pieces of more scans than ``max_pixels`` allow.
        """
        tags = _tags(layout.is_tiled)
        offsets, told = (directory.values(tag, layout.pieces) for tag in tags)
        if len(offsets) < layout.pieces:
            found = f"{len(offsets)} of {layout.pieces} strips or tiles"
            raise CorruptImageError(f"TIFF: the file tells where {found} are")
        end = len(directory.data)
        if max(offsets) > end:
            raise TruncatedImageError("TIFF: strips or tiles lie beyond the end of the file")
        if len(told) < len(offsets):
            ends = [*sorted(offsets), end]
            told = tuple(
                ends[bisect_right(ends, start, hi=len(ends) - 1)] - start for start in offsets
            )
        sizes = tuple(min(size, end - start) for start, size in zip(offsets, told, strict=False))
        if sum(sizes) > 2 * end + _BYTES_PER_PIXEL * max_pixels:
            raise CorruptImageError("TIFF: strips or tiles lie on top of each other")
        pieces = cls(offsets, sizes, layout.is_tiled)
        if layout.compression == RAW and layout.photometric != YCBCR:
            pieces._check_raw(layout, end)
        if layout.compression == JPEG:
            pieces._check_scans(directory.data, layout, max_pixels)
        return pieces

    def _check_raw(self, layout: Layout, end: int) -> None:
        """Pillow reads what the picture needs, whatever the sizes say."""
        (width, rows), down = layout.tile, layout.grid[1]
        samples = 1 if layout.is_planar else layout.samples
        row_bytes = (width * samples * layout.bits + 7) // 8
        last = rows if self.is_tiled else layout.height - (down - 1) * rows
        for index, start in enumerate(self.offsets[: layout.pieces]):
            is_last = index // layout.grid[0] % down == down - 1
            if start + (last if is_last else rows) * row_bytes > end:
                raise TruncatedImageError("TIFF: the file ends within a strip or tile")

    def _check_scans(self, data: bytes, layout: Layout, max_pixels: int) -> None:
        most = most_scans(layout.width * layout.height, max_pixels)
        if looks_like_scans(data, 0, len(data), most) <= most:
            return
        most *= layout.pieces
        spans = zip(self.offsets, self.sizes, strict=True)
        scans = sum(looks_like_scans(data, start, start + size, most) for start, size in spans)
        if scans > most:
            raise UnsupportedFormatError(f"TIFF: {scans} scans of JPEG are not decoded")

    def fields(self, first: int, count: int) -> Mapping[int, tuple[int, ...]]:
        """The fields of a directory that tell of ``count`` pieces from ``first`` on."""
        where = slice(first, first + count)
        offsets, sizes = _tags(self.is_tiled)
        return {offsets: self.offsets[where], sizes: self.sizes[where]}


def _tags(is_tiled: bool) -> tuple[int, int]:
    return (324, 325) if is_tiled else (273, 279)
