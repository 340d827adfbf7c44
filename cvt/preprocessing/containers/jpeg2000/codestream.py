"""The codestream of a JPEG 2000 file: its components, and the work of decoding it."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

from cvt.errors import CorruptImageError, UnsupportedFormatError

SIGNATURE = b"\xff\x4f\xff\x51"
_SIZ, _COD, _COC, _QCD, _QCC, _SOT, _SOD = 0x51, 0x52, 0x53, 0x5C, 0x5D, 0x90, 0x93
_MAX_BLOCKS = 1 << 22


class Component(NamedTuple):
    """The samples of one component."""

    bits: int
    is_signed: bool
    is_whole: bool
    """Whether it has a sample for every pixel."""


@dataclass(frozen=True)
class Codestream:
    """What the main header says."""

    data: bytes
    size: tuple[int, int]
    components: tuple[Component, ...]

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Raises struct.error where the header is cut off."""
        x1, y1, x0, y0 = struct.unpack_from(">4I", data, 8)
        (count,) = struct.unpack_from(">H", data, 40)
        parts = struct.unpack_from(f"{3 * count}B", data, 42)
        components = tuple(
            Component((depth & 0x7F) + 1, depth > 0x7F, across == down == 1)
            for depth, across, down in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
        )
        if not components or x1 <= x0 or y1 <= y0:
            raise CorruptImageError("JPEG2000: the image has no size")
        return cls(data, (x1 - x0, y1 - y0), components)

    def check_work(self) -> None:
        """Raise UnsupportedFormatError for an image cut into very many blocks."""
        for marker, start, end, _ in self._segments():
            if marker in (_COD, _COC):
                blocks = self._blocks(marker, self.data[start:end]) * len(self.components)
                if blocks > _MAX_BLOCKS:
                    raise UnsupportedFormatError(f"JPEG2000: {blocks} blocks are not decoded")

    def widened(self) -> bytes:
        """The same pixels, declared to have one bit more: half of white is added to all of them.

        Raises UnsupportedFormatError where the steps of the quantisation cannot follow.
        """
        wide = bytearray(self.data)
        for place in range(42, 42 + 3 * len(self.components), 3):
            wide[place] += 1
        for marker, start, _, is_of_tile in self._segments():
            if marker not in (_QCD, _QCC):
                continue
            first = start + 2 + (0 if marker == _QCD else 1 + (len(self.components) > 256))
            if not self.data[first] & 31:
                continue  # not quantised
            end = start + int.from_bytes(self.data[start : start + 2], "big")
            if is_of_tile or self.data[first] < 32:
                raise UnsupportedFormatError("JPEG2000: this quantisation is not decoded")
            wide[first] -= 32  # one guard bit less, for exponents that are larger by one
            for step in range(first + 1, end - 1, 2):
                if wide[step] >= 31 << 3:
                    raise UnsupportedFormatError("JPEG2000: this quantisation is not decoded")
                wide[step] += 1 << 3
        return bytes(wide)

    def _segments(self) -> Iterator[tuple[int, int, int, bool]]:
        """Marker, where its content begins and ends, and whether it is one tile's."""
        data, position, tile_end = self.data, 2, 0
        while position + 4 <= len(data):
            marker, size = (
                data[position + 1],
                int.from_bytes(data[position + 2 : position + 4], "big"),
            )
            if data[position] != 0xFF:
                return
            if marker == _SOT:
                length = int.from_bytes(data[position + 6 : position + 10], "big")
                tile_end = position + length if length > 12 else len(data)
            if marker == _SOD:
                position = tile_end
                continue
            yield marker, position + 2, position + 2 + size, tile_end > 0
            position += 2 + size

    def _blocks(self, marker: int, content: bytes) -> int:
        """Code blocks and precincts of a component."""
        place = 2 if marker == _COD else 3 + (len(self.components) > 256)
        fields = content[place + (5 if marker == _COD else 1) :]
        if len(fields) < 5:
            return 0
        has_precincts, levels = content[place] & 1, min(fields[0], 32)
        precincts = fields[5 : 6 + levels] if has_precincts else b""
        blocks = 0
        for level in range(levels + 1):
            width, height = (-(-side >> (levels - level)) for side in self.size)
            sides = precincts[level] if level < len(precincts) else 0xFF
            across, down = sides & 15, sides >> 4
            of_block = [
                min((code & 15) + 2, max(side - (level > 0), 0))
                for code, side in ((fields[1], across), (fields[2], down))
            ]
            blocks += (-(-width >> across)) * (-(-height >> down))
            blocks += (-(-width >> of_block[0])) * (-(-height >> of_block[1]))
        return blocks
