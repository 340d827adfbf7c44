"""TIFF files of any sample width, type and arrangement."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

UNSIGNED, SIGNED, FLOAT = 1, 2, 3
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
RAW, DEFLATE, PACKBITS = 1, 8, 32773

REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

Samples = npt.NDArray[Any]
Fields = Mapping[int, tuple[int, Sequence[int]]]


def directory(fields: Mapping[int, tuple[int, Sequence[int]]], start: int, order: str, *, big: bool,
              following: int = 0) -> bytes:  # fmt: skip
    """A directory to stand at ``start``: {tag: (kind, values)}; kinds 3, 4 and 16 are known."""
    pointer = "Q" if big else "I"
    width = struct.calcsize(pointer)
    entries, beyond = b"", b""
    behind = start + (8 if big else 2) + (20 if big else 12) * len(fields) + width
    for tag, (kind, values) in sorted(fields.items()):
        packed = struct.pack(
            f"{order}{len(values)}{ {1: 'B', 3: 'H', 4: 'I', 16: 'Q'}[kind] }", *values
        )
        if len(packed) > width:
            packed, place = struct.pack(order + pointer, behind + len(beyond)), packed
            beyond += place
        entries += struct.pack(order + "HH" + pointer, tag, kind, len(values)) + packed.ljust(
            width, b"\0"
        )
    count = struct.pack(order + ("Q" if big else "H"), len(fields))
    return count + entries + struct.pack(order + pointer, following) + beyond


@dataclass(kw_only=True)
class Tiff:
    """How to write samples (H, W, n); the defaults are those of the simplest file."""

    bits: int = 8
    format: int = UNSIGNED
    photometric: int = BLACK_IS_ZERO
    order: str = "<"
    planar: bool = False
    extra: Sequence[int] = ()
    compression: int = RAW
    predictor: int = 1
    fill_order: int = 1
    rows: int | None = None
    """Of a strip."""
    tile: tuple[int, int] | None = None
    """Width and height."""
    big: bool = False
    is_directory_first: bool = False
    more: Fields = field(default_factory=dict)
    """Fields besides those that follow from the rest, or in their place."""
    below: Sequence[Fields] = ()
    """Other directories, which the first one names as its own."""
    behind: Sequence[Fields] = ()
    """Another directory, of the next image; at most one."""

    def encode(self, samples: Samples) -> bytes:
        count = samples.shape[2]
        planes = [samples[..., i : i + 1] for i in range(count)] if self.planar else [samples]
        pieces = [self._packed(piece) for plane in planes for piece in self._cut(plane)]
        return self.wrap(pieces, samples.shape)

    def wrap(self, pieces: Sequence[bytes], shape: tuple[int, ...]) -> bytes:
        """A file of strips or tiles that are already packed; shape: (H, W, n)."""
        header = 16 if self.big else 8
        body = b"".join(pieces)
        body += bytes(len(body) % 2)
        sizes = [len(piece) for piece in pieces]
        fields = self._fields(shape, [0] * len(pieces), sizes)
        directories = len(self._directories(fields, 0))
        start = header if self.is_directory_first else header + len(body)
        place = header + (directories if self.is_directory_first else 0)
        offsets = [place + sum(sizes[:i]) for i in range(len(pieces))]
        tables = self._directories(self._fields(shape, offsets, sizes), start)
        mark = b"II" if self.order == "<" else b"MM"
        numbers = (43, 8, 0, start) if self.big else (42, start)
        head = mark + struct.pack(self.order + ("HHHQ" if self.big else "HI"), *numbers)
        return head + (tables + body if self.is_directory_first else body + tables)

    def _fields(self, shape: tuple[int, ...], offsets: list[int], sizes: list[int]) -> Fields:
        height, width, count = shape
        fields: dict[int, tuple[int, Sequence[int]]] = {
            256: (4, [width]), 257: (4, [height]), 258: (3, [self.bits] * count),
            259: (3, [self.compression]), 262: (3, [self.photometric]), 277: (3, [count]),
            266: (3, [self.fill_order]), 284: (3, [2 if self.planar else 1]),
            317: (3, [self.predictor]), 339: (3, [self.format] * count),
        }  # fmt: skip
        kind = 16 if self.big else 4
        if self.tile:
            fields |= {322: (4, [self.tile[0]]), 323: (4, [self.tile[1]])}
            fields |= {324: (kind, offsets), 325: (kind, sizes)}
        else:
            fields |= {278: (4, [self.rows or height]), 273: (kind, offsets), 279: (kind, sizes)}
        if self.extra:
            fields[338] = (3, self.extra)
        return fields | dict(self.more)

    def _directories(self, fields: Fields, start: int) -> bytes:
        """That of the image, then those below and behind it."""
        if self.below:
            fields = {**fields, 330: (4, [0] * len(self.below))}
        end = start + len(directory(fields, start, self.order, big=self.big))
        places, others = [], b""
        for other in (*self.below, *self.behind):
            places.append(end + len(others))
            others += directory(other, places[-1], self.order, big=self.big)
        if self.below:
            fields = {**fields, 330: (4, places[: len(self.below)])}
        following = places[len(self.below)] if self.behind else 0
        first = directory(fields, start, self.order, big=self.big, following=following)
        return first + others

    def _cut(self, plane: Samples) -> list[Samples]:
        """Strips, or tiles filled up with zeros."""
        height, width, count = plane.shape
        if self.tile is None:
            rows = self.rows or height
            return [plane[top : top + rows] for top in range(0, height, rows)]
        across, down = self.tile
        full = np.zeros(
            (-(-height // down) * down, -(-width // across) * across, count), plane.dtype
        )
        full[:height, :width] = plane
        return [
            full[top : top + down, left : left + across]
            for top in range(0, len(full), down)
            for left in range(0, full.shape[1], across)
        ]

    def _packed(self, piece: Samples) -> bytes:
        data = b"".join(self._row(row) for row in piece)
        if self.compression == PACKBITS:
            data = b"".join(bytes([0, byte]) for byte in data)
        elif self.compression == DEFLATE:
            data = zlib.compress(data)
        return data.translate(REVERSED) if self.fill_order == 2 else data

    def _row(self, row: Samples) -> bytes:
        """The samples of a row (W, n), in as many bytes as they need."""
        count = row.shape[1]
        code = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}[self.format]
        if self.predictor == 2:
            whole = np.ascontiguousarray(row.astype(f"{code}{self.bits // 8}")).view(
                f"u{self.bits // 8}"
            )
            row = np.diff(whole, axis=0, prepend=whole.dtype.type(0))
            code = "u"
        if self.predictor == 3:
            parts = row.astype(f">f{self.bits // 8}").reshape(-1, 1).view(np.uint8)
            planes = parts.T.reshape(-1, count)
            return np.diff(planes, axis=0, prepend=np.uint8(0)).tobytes()
        if self.bits in (8, 16, 32, 64):
            return row.astype(f"{self.order}{code}{self.bits // 8}").tobytes()
        if self.bits == 24:
            whole = row.astype(f"{self.order}u4").reshape(-1, 1).view(np.uint8)
            return (whole[:, :3] if self.order == "<" else whole[:, 1:]).tobytes()
        text = "".join(f"{int(value):0{self.bits}b}" for value in row.ravel())
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")
