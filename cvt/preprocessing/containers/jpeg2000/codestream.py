"""The codestream of a JPEG 2000 file: its components, and the work of decoding it."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

from cvt.errors import CorruptImageError, UnsupportedFormatError

SIGNATURE = b"\xff\x4f\xff\x51"
_SIZ, _COD, _COC, _QCD, _QCC, _SOT, _SOD = 0x51, 0x52, 0x53, 0x5C, 0x5D, 0x90, 0x93
_MOST = 1 << 22, 1 << 25
"""Blocks, which take memory, and packets, which take some time, of all components."""


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
    tiles: int

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
        tile = struct.unpack_from(">4I", data, 24)
        if not tile[0] or not tile[1]:
            raise CorruptImageError("JPEG2000: the tiles have no size")
        tiles = -(-(x1 - tile[2]) // tile[0]) * -(-(y1 - tile[3]) // tile[1])
        return cls(data, (x1 - x0, y1 - y0), components, tiles)

    def check_work(self) -> None:
        """Raise UnsupportedFormatError for an image cut into very many blocks or layers."""
        for marker, start, end, _ in self._segments():
            if marker not in (_COD, _COC):
                continue
            for parts, most in zip(self._parts(marker, self.data[start:end]), _MOST, strict=True):
                if parts * len(self.components) > most:
                    raise UnsupportedFormatError(
                        f"JPEG2000: {parts * len(self.components)} parts are not decoded"
                    )

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

    def _parts(self, marker: int, content: bytes) -> tuple[int, int]:
        """How many blocks a component has, and how many packets they come in."""
        place = 2 if marker == _COD else 3 + (len(self.components) > 256)
        fields = content[place + (5 if marker == _COD else 1) :]
        if len(fields) < 5:
            return 0, 0
        has_precincts, levels = content[place] & 1, min(fields[0], 32)
        layers = int.from_bytes(content[4:6], "big") if marker == _COD else 1
        sides = fields[5 : 6 + levels] if has_precincts else b""
        blocks = packets = 0
        for level in range(levels + 1):
            width, height = (-(-side >> (levels - level)) for side in self.size)
            side = sides[level] if level < len(sides) else 0xFF
            precinct = side & 15, side >> 4
            block = [
                min((code & 15) + 2, max(side - (level > 0), 0))
                for code, side in zip(fields[1:3], precinct, strict=True)
            ]
            precincts = -(-width >> precinct[0]) * -(-height >> precinct[1])
            blocks += precincts + -(-width >> block[0]) * -(-height >> block[1])
            packets += max(precincts, self.tiles) * layers
        return blocks, packets
