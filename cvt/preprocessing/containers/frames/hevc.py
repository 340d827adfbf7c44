"""How large the frames of an HEVC stream are (ITU-T H.265, 7.3.1 to 7.3.3): decoders decode a frame
whatever size the file around it says."""

from collections.abc import Iterator

_PARAMETERS = 33
_HEAD_BYTES = 256
"""In which the size stands, behind at most seven descriptions of layers."""
_Size = tuple[int, int]


def configuration(box: bytes) -> tuple[int, list[_Size]]:
    """Of an ``hvcC`` box: the bytes of a unit's length, and the sizes of frames that it tells."""
    sizes: list[_Size] = []
    position = 23
    for _ in range(box[22]):
        count = int.from_bytes(box[position + 1 : position + 3], "big")
        position += 3
        for _ in range(count):
            if position + 2 > len(box):
                raise IndexError
            size = int.from_bytes(box[position : position + 2], "big")
            sizes += frame_size(box[position + 2 : position + 2 + size])
            position += 2 + size
    return (box[21] & 3) + 1, sizes


def units(data: bytes, length_size: int) -> Iterator[bytes]:
    """The beginning of each unit of a stream."""
    position = 0
    while position + length_size <= len(data):
        size = int.from_bytes(data[position : position + length_size], "big")
        position += length_size
        yield data[position : position + min(size, _HEAD_BYTES)]
        position += size


def frame_size(unit: bytes) -> Iterator[_Size]:
    """The size that a unit tells, if it is one that does."""
    if len(unit) < 3 or unit[0] >> 1 & 63 != _PARAMETERS:
        return
    bits = _Bits(unit[2:_HEAD_BYTES].replace(b"\0\0\3", b"\0\0"))
    bits.read(4)
    layers = bits.read(3)
    bits.read(1 + 88 + 8)
    told = [(bits.read(1), bits.read(1)) for _ in range(layers)]
    bits.read(2 * (8 - layers) if layers else 0)
    for has_profile, has_level in told:
        bits.read(88 * has_profile + 8 * has_level)
    bits.exponential()
    if bits.exponential() == 3:
        bits.read(1)
    yield bits.exponential(), bits.exponential()


class _Bits:
    """Bits of a header, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._bits >> self._left & (1 << count) - 1

    def exponential(self) -> int:
        """A number in Exp-Golomb code."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)
