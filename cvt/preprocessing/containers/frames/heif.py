"""HEIF files, as HEIC photographs are: what decoding one takes, by its boxes, and its pixels.

libheif decodes, through the package pillow-heif. It turns, mirrors and crops as the file says
(``irot``, ``imir``, ``clap``); an orientation in its EXIF data says what was done already. Samples
of more than 8 bits keep their high bits.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from PIL import Image

from cvt.errors import CorruptImageError, NotAnImageError, UnsupportedFormatError
from cvt.preprocessing.containers.frames import hevc
from cvt.preprocessing.containers.frames.items import (
    MOST_ITEMS,
    boxes,
    content,
    kinds,
    locations,
)
from cvt.preprocessing.containers.image import Repaired, check_size, header

_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2"}
)
_OTHER_BRANDS = frozenset({b"avif", b"avis", b"crx "})
_CODED, _AVIF = b"hvc1", b"av01"
_OTHER_CODES = frozenset({b"avc1", b"j2k1", b"jpeg", b"lhv1", b"tmap", b"unci", b"vvc1"})
_DERIVED = (b"grid", b"iden", b"iovl")
_MOST_NESTED = 8
_MOST_BYTES_OF_STREAMS = 1 << 20
"""Of the boxes that describe streams, which have a hundred each."""
_MORE_THAN_SEEN = 4
"""How many times the limit its tiles may have, which reach beyond the edges of a picture, and how
many times the file its items, which may share bytes."""

_Size = tuple[int, int]


def is_heif(data: bytes) -> bool:
    """Whether the file says to be HEIF, which files with AV1 pictures may say, too."""
    if data[4:8] != b"ftyp" or data[8:12] in _OTHER_BRANDS:
        return False
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = (data[8:12], *(data[at : at + 4] for at in range(16, end, 4)))
    return not _BRANDS.isdisjoint(brands)


def open_heif(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of a HEIF file.

    Raises UnsupportedFormatError without pillow-heif, or without a still picture; NotAnImageError
    for pictures in AV1; TooManyPixelsError for too large a picture, or pieces of one.
    """
    try:
        pictures = _Pictures.of(data)
        coded = pictures.task(pictures.primary).coded
        if _AVIF in coded:
            raise NotAnImageError("HEIF: the picture is coded as in AVIF")
        if not coded:
            raise CorruptImageError("HEIF: the primary picture is missing")
        if coded != {_CODED}:
            names = sorted(kind.decode() for kind in coded & _OTHER_CODES) or ["something else"]
            raise UnsupportedFormatError(f"HEIF: pictures in {', '.join(names)} are not decoded")
        decoder = _decoder()
        for size in pictures.every_size(data):
            check_size("HEIF", size, max_pixels)
        most = max(pictures.task(item).pixels for item in pictures.kinds)
        check_size("HEIF", (most, 1), _MORE_THAN_SEEN * max_pixels)
    except (struct.error, IndexError) as error:
        raise CorruptImageError("HEIF: the boxes that describe the picture are damaged") from error
    file = decoder(io.BytesIO(data))
    found = file[file.primary_index]
    return Repaired(header("HEIF", found.size), lambda _: _pixels(found))


def _decoder() -> Any:
    try:
        from pillow_heif import HeifFile
    except ImportError as error:
        raise UnsupportedFormatError(
            "HEIC/HEIF files are decoded with the extra heif: pip install pillow-heif"
        ) from error
    return HeifFile


def _pixels(found: Any) -> Image.Image:
    data = found.data
    return Image.frombytes(found.mode, found.size, data, "raw", found.mode, found.stride)


@dataclass(frozen=True)
class _Task:
    """What is decoded for a picture."""

    pixels: int
    coded: frozenset[bytes]
    """How it, or what it is made of, is coded."""


@dataclass
class _Pictures:
    """The items of a file, by their numbers."""

    primary: int
    kinds: dict[int, bytes]
    sizes: dict[int, list[_Size]] = field(default_factory=dict)
    """As the properties say, first those of the picture, then those of its frames."""
    length_sizes: dict[int, int] = field(default_factory=dict)
    """Bytes of the length in front of each unit of a coded item."""
    parts: dict[int, list[int]] = field(default_factory=dict)
    """What pictures are made of."""
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    _tasks: dict[int, _Task] = field(default_factory=dict)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Read the boxes. Raises UnsupportedFormatError if there is no still picture."""
        meta = next((place for kind, *place in boxes(data, 0, len(data)) if kind == b"meta"), None)
        found = {} if meta is None else {k: (a, b) for k, a, b in boxes(data, meta[0] + 4, meta[1])}
        if not {b"pitm", b"iinf", b"iloc", b"iprp"} <= found.keys():
            raise UnsupportedFormatError("HEIF: files without a still picture are not decoded")
        start, end = found[b"pitm"]
        pictures = cls(
            int.from_bytes(data[start + 4 : end], "big"),
            dict(_few(kinds(data, *found[b"iinf"]))),
        )
        inside, _ = found.get(b"idat", (0, 0))
        pictures.extents = dict(locations(data, found[b"iloc"][0], inside))
        pictures._take_properties(data, *found[b"iprp"])
        if b"iref" in found:
            pictures._take_parts(data, *found[b"iref"])
        return pictures

    def _take_properties(self, data: bytes, start: int, end: int) -> None:
        found = {kind: (first, last) for kind, first, last in boxes(data, start, end)}
        shared = list(_few(boxes(data, *found.get(b"ipco", (end, end)))))
        streams = _streams(data, shared)
        for item, number in _few(_associations(data, *found.get(b"ipma", (end, end)))):
            if not 0 < number <= len(shared):
                continue
            kind, first, _ = shared[number - 1]
            if kind == b"ispe":
                size = struct.unpack_from(">II", data, first + 4)
                self.sizes.setdefault(item, []).insert(0, size)
            if kind == b"hvcC":
                length_size, frames = streams[first]
                self.length_sizes[item] = length_size
                self.sizes.setdefault(item, []).extend(frames)

    def _take_parts(self, data: bytes, start: int, end: int) -> None:
        layout, wide = (">H", 2) if data[start] == 0 else (">I", 4)
        left = MOST_ITEMS
        for kind, first, _ in boxes(data, start + 4, end):
            if kind == b"dimg":
                (item,) = struct.unpack_from(layout, data, first)
                (count,) = struct.unpack_from(">H", data, first + wide)
                left -= count
                if left < 0:
                    raise CorruptImageError("HEIF: too many pieces")
                parts = struct.unpack_from(f">{count}{layout[1]}", data, first + wide + 2)
                self.parts.setdefault(item, []).extend(parts)

    def task(self, item: int, depth: int = 0) -> _Task:
        """Of a picture, and of the ones that it is made of."""
        if item not in self._tasks:
            kind = self.kinds.get(item, b"")
            own = max((width * height for width, height in self.sizes.get(item, ())), default=0)
            if kind in _DERIVED:
                if depth == _MOST_NESTED:
                    raise CorruptImageError("HEIF: pictures inside pictures without end")
                parts = [self.task(part, depth + 1) for part in self.parts.get(item, ())]
                pixels = own + sum(part.pixels for part in parts)
                coded = frozenset[bytes]().union(*{part.coded for part in parts})
            else:
                pixels, coded = own, frozenset({kind} - {b""})
            self._tasks[item] = _Task(pixels, coded)
        return self._tasks[item]

    def every_size(self, data: bytes) -> Iterator[_Size]:
        """Of all pictures, and of all frames that they are coded in."""
        left, bytes_left = MOST_ITEMS, _MORE_THAN_SEEN * len(data)
        for item, kind in self.kinds.items():
            yield from self.sizes.get(item, ())
            if kind == _CODED:
                if bytes_left <= 0:
                    raise CorruptImageError("HEIF: too many pieces")
                frames = content(data, self.extents.get(item, []), bytes_left)
                bytes_left -= len(frames)
                for unit in hevc.units(frames, self.length_sizes.get(item, 4)):
                    left -= 1
                    if left < 0:
                        raise CorruptImageError("HEIF: too many pieces")
                    yield from hevc.frame_size(unit)


def _streams(
    data: bytes, properties: list[tuple[bytes, int, int]]
) -> dict[int, tuple[int, list[_Size]]]:
    """What each ``hvcC`` box says, by its place."""
    boxes_of_streams = [(first, last) for kind, first, last in properties if kind == b"hvcC"]
    if sum(last - first for first, last in boxes_of_streams) > _MOST_BYTES_OF_STREAMS:
        raise CorruptImageError("HEIF: too many pieces")
    return {first: hevc.configuration(data[first:last]) for first, last in boxes_of_streams}


def _few(found: Iterator[Any]) -> Iterator[Any]:
    for number, one in enumerate(found):
        if number == MOST_ITEMS:
            raise CorruptImageError("HEIF: too many pieces")
        yield one


def _associations(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Items and the numbers of their properties, from 1."""
    if start == end:
        return
    layout, wide = (">H", 2) if data[start] == 0 else (">I", 4)
    is_long = data[start + 3] & 1
    (entries,) = struct.unpack_from(">I", data, start + 4)
    if entries > MOST_ITEMS:
        raise CorruptImageError("HEIF: too many pieces")
    position = start + 8
    for _ in range(entries):
        (item,) = struct.unpack_from(layout, data, position)
        count = data[position + wide]
        position += wide + 1
        for _ in range(count):
            if is_long:
                number = (data[position] & 127) << 8 | data[position + 1]
            else:
                number = data[position] & 127
            position += 1 + is_long
            yield item, number
