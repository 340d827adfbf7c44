"""What the blocks of a tar say that are not content: headers, pax records, maps of sparse files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pipeline.contract.errors import ShardError

BLOCK = 512
NAME_BYTES = 2**16
"""The most that a name may have."""
MOST_PIECES = 100_000
"""The most pieces of a sparse file."""

Pieces = tuple[tuple[int, int], ...]
"""Offset and size of what is stored of a sparse file, in order."""

_GNU_MAGIC = b"ustar  \0"
_CHECKSUM = slice(148, 156)
_NAME = slice(0, 100)
_SIZE = slice(124, 136)
_TARGET = slice(157, 257)
_MAGIC = slice(257, 265)
_PREFIX = slice(345, 500)
_REAL_SIZE = slice(483, 495)

_RECORD = re.compile(rb"(\d{1,19}) ")
_WANTED = (b"path", b"linkpath", b"size")
_SPARSE = b"GNU.sparse."
_MAP = "GNU.sparse.map"
_PIECE = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")


def damaged(what: str) -> ShardError:
    """The error of a tar whose rest cannot be read."""
    return ShardError("shard_corrupt", f"the tar is damaged: {what}")


class Header:
    """The block in front of a member.

    Raises:
        ShardError: it is not a header.
    """

    def __init__(self, block: bytes) -> None:
        if not _is_checked(block):
            raise damaged("a header has a wrong checksum, or is none")
        self.type = block[156:157]
        self.size = read_number(block[_SIZE])
        """Of the content that follows."""
        self.target = read_text(block[_TARGET])
        self.name = read_text(block[_NAME])
        prefix = read_text(block[_PREFIX])
        if prefix and block[_MAGIC] != _GNU_MAGIC:  # GNU has times there
            self.name = f"{prefix}/{self.name}"
        self.block = block

    @property
    def real_size(self) -> int:
        """Of a sparse file, as GNU wrote them first."""
        return read_number(self.block[_REAL_SIZE])


def _is_checked(block: bytes) -> bool:
    """Whether the checksum is right, of unsigned bytes or, as some wrote it, of signed ones."""
    said = read_number(block[_CHECKSUM])
    plain = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    unsigned = sum(plain)
    return said == unsigned or said == unsigned - 256 * sum(byte > 127 for byte in plain)


def read_number(field: bytes) -> int:
    """A number that is not negative: octal digits, or GNU's binary form.

    Raises:
        ShardError: it is neither.
    """
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if digits.strip(b"01234567"):
        raise damaged("a header has a number that is none")
    return int(digits or b"0", 8)


def read_decimal(text: str) -> int:
    """A number of a pax record.

    Raises:
        ShardError: it is none.
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > 19:
        raise damaged("a pax header has a number that is none")
    return int(text)


def read_text(field: bytes) -> str:
    """A name that ends at its first zero; bytes that are not UTF-8 become surrogates.

    Raises:
        ShardError: it is too long.
    """
    name = field.partition(b"\0")[0]
    if len(name) > NAME_BYTES:
        raise damaged(f"a name of {len(name)} bytes")
    return name.decode("utf-8", "surrogateescape")


def parse_records(data: bytes) -> dict[str, str]:
    """What pax records say about name, target, size and holes; anything else is passed over.

    Raises:
        ShardError: they are damaged.
    """
    said: dict[str, str] = {}
    pieces: list[bytes] = []
    start = 0
    while start < len(data) and data[start]:
        length = _RECORD.match(data, start)
        end = start + int(length[1]) if length else start
        if length is None or not length.end() < end <= len(data) or data[end - 1] != ord("\n"):
            raise damaged("a pax header")
        key, _, value = data[length.end() : end - 1].partition(b"=")
        if key in _PIECE or key == _MAP.encode():
            pieces.append(value)
        elif key in _WANTED or key.startswith(_SPARSE):
            said[key.decode("utf-8", "replace")] = read_text(value)
        start = end
    return said | ({_MAP: b",".join(pieces).decode("ascii", "replace")} if pieces else {})


def is_sparse(said: Mapping[str, str]) -> bool:
    """Whether pax records describe a sparse file."""
    return any(key.startswith(_SPARSE.decode()) for key in said)


def sparse_numbers(said: Mapping[str, str]) -> list[int]:
    """Offsets and sizes, in turns, as pax records list them.

    Raises:
        ShardError: there are too many, or they are damaged.
    """
    listed = said.get(_MAP, "")
    if listed.count(",") > 2 * MOST_PIECES:
        raise damaged("a sparse file of too many pieces")
    return [read_decimal(number) for number in listed.split(",")] if listed else []


def block_numbers(block: bytes, start: int, pieces: int) -> list[int]:
    """Offsets and sizes, in turns, as a block lists them; the first empty field ends them."""
    fields = [block[at : at + 12] for at in range(start, start + 24 * pieces, 12)]
    if b"\0" * 12 in fields:
        fields = fields[: fields.index(b"\0" * 12)]
    return [read_number(field) for field in fields]


def checked_pieces(numbers: Sequence[int], size: int, stored: int) -> Pieces:
    """Offsets and sizes, in turns, as pieces of a file of ``size`` bytes, of which ``stored`` are.

    Raises:
        ShardError: they overlap, or lie outside.
    """
    pieces = tuple(zip(numbers[::2], numbers[1::2], strict=False))
    ends = [0, *(offset + length for offset, length in pieces)]
    are_in_order = all(end <= offset for end, (offset, _) in zip(ends, pieces, strict=False))
    if len(numbers) % 2 or not are_in_order or ends[-1] > size or sum(numbers[1::2]) > stored:
        raise damaged("the map of a sparse file")
    return pieces
