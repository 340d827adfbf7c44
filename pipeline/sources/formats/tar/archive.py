"""The members of a tar, as GNU tar and bsdtar show them: v7, ustar, GNU and pax headers, sparse
files of all kinds, and archives that follow one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from io import BufferedReader

from pipeline.contract.errors import ShardError
from pipeline.sources.formats.tar.headers import (
    BLOCK,
    MOST_PIECES,
    Header,
    Pieces,
    block_numbers,
    checked_pieces,
    damaged,
    is_sparse,
    parse_records,
    read_decimal,
    read_text,
    sparse_numbers,
)

EXTENSION_BYTES = 8 * 2**20
"""The most that a header may have beside its block: names, and attributes of files."""
SKIPPED_BYTES = 2**20
_LONG_NAMES = {b"L": "path", b"K": "linkpath"}
_PAX = (b"x", b"X")
_GLOBAL_PAX = b"g"
_OLD_FILES = (b"\0", b"0")
_SPARSE = b"S"
_DUMPED_DIRECTORY = b"D"


class Kind(Enum):
    """What a member is."""

    FILE = "a file"
    HARD_LINK = "a hard link"
    SYMBOLIC_LINK = "a symbolic link"
    DIRECTORY = "a directory"
    CHARACTER_DEVICE = "a character device"
    BLOCK_DEVICE = "a block device"
    FIFO = "a FIFO"
    LABEL = "a label"

    @property
    def is_link(self) -> bool:
        """Whether its content is that of another member."""
        return self in (Kind.HARD_LINK, Kind.SYMBOLIC_LINK)


_KINDS = {
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMBOLIC_LINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
    _DUMPED_DIRECTORY: Kind.DIRECTORY,
    b"V": Kind.LABEL,
}
"""By the type in a header; all others are files."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member."""

    name: str
    """Bytes that are not UTF-8 are surrogates."""
    kind: Kind
    size: int
    """In bytes, when it is unpacked."""
    target: str
    """What a link links to."""
    pieces: Pieces | None = None
    """What is stored of a sparse file; None for others."""


class Archive:
    """The members of a tar in order. The content of each can be read until the next is asked for.

    Raises:
        ShardError: where the tar breaks off or is damaged.
    """

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._left = 0
        """Bytes in front of the next header."""
        self._global: dict[str, str] = {}

    def __iter__(self) -> Iterator[Member]:
        while (member := self._next()) is not None:
            yield member
            self._skip()

    def read(self, member: Member) -> bytes:
        """The content of the member that was given last."""
        if member.pieces is None:
            return self._take(member.size)
        content = bytearray(member.size)
        for offset, size in member.pieces:
            content[offset : offset + size] = self._take(size)
        return bytes(content)

    def _next(self) -> Member | None:
        said: dict[str, str] = {}
        while (header := self._header()) is not None:
            if header.type in _LONG_NAMES:
                said[_LONG_NAMES[header.type]] = read_text(self._extension(header))
            elif header.type in _PAX:
                said |= parse_records(self._extension(header))
            elif header.type == _GLOBAL_PAX:
                self._global |= parse_records(self._extension(header))
            else:
                return self._member(header, self._global | said)
        if said:
            raise ShardError("shard_truncated", "the tar ends between the headers of a member")
        return None

    def _header(self) -> Header | None:
        """The next one, if need be behind an end mark: another archive may follow. None at the
        end."""
        is_ended = False
        while not (block := self._file.read(BLOCK)).strip(b"\0"):
            if len(block) < BLOCK and not is_ended:
                raise ShardError("shard_truncated", "the tar ends without its end mark")
            if len(block) < BLOCK:
                return None
            is_ended = True
            self._pass_zeros()
        if len(block) < BLOCK:
            raise ShardError("shard_truncated", "the tar ends inside a header")
        return Header(block)

    def _pass_zeros(self) -> None:
        """Go on by whole blocks of zeros, many at a time: a file may end in gigabytes of them."""
        while ahead := self._file.peek():
            blocks = (len(ahead) - len(ahead.lstrip(b"\0"))) // BLOCK
            if not blocks:
                return
            self._file.read(blocks * BLOCK)

    def _extension(self, header: Header) -> bytes:
        """The content of a header that describes the next one."""
        if header.size > EXTENSION_BYTES:
            raise damaged(f"a header of {header.size} bytes")
        self._left = _padded(header.size)
        content = self._take(header.size)
        self._skip()
        return content

    def _member(self, header: Header, said: dict[str, str]) -> Member:
        name = said.get("path") or header.name
        kind = _KINDS.get(header.type, Kind.FILE)
        if header.type in _OLD_FILES and name.endswith("/"):  # directories, before there was a type
            kind = Kind.DIRECTORY
        size = read_decimal(said["size"]) if said.get("size") else header.size
        has_content = kind is Kind.FILE or header.type == _DUMPED_DIRECTORY
        self._left = _padded(size) if has_content else 0
        pieces = None
        if header.type == _SPARSE:
            pieces, size = self._first_sparse(header, size), header.real_size
        elif kind is Kind.FILE and is_sparse(said):
            name = said.get("GNU.sparse.name") or name
            real = said.get("GNU.sparse.realsize") or said.get("GNU.sparse.size") or ""
            pieces, size = self._pax_sparse(said, read_decimal(real), size), read_decimal(real)
        target = said.get("linkpath") or header.target
        return Member(name=name, kind=kind, size=size, target=target, pieces=pieces)

    def _first_sparse(self, header: Header, stored: int) -> Pieces:
        """As GNU wrote it first: pieces stand in the header, and in blocks between it and the
        content."""
        numbers = block_numbers(header.block, 386, pieces=4)
        is_continued = header.block[482] != 0
        while is_continued and len(numbers) <= 2 * MOST_PIECES:
            block = self._exactly(BLOCK)
            numbers += block_numbers(block, 0, pieces=21)
            is_continued = block[504] != 0
        if is_continued:
            raise damaged("a sparse file of too many pieces")
        return checked_pieces(numbers, header.real_size, stored)

    def _pax_sparse(self, said: dict[str, str], size: int, stored: int) -> Pieces:
        """As pax records list the pieces or, since version 1.0, blocks in front of the content."""
        if said.get("GNU.sparse.major") != "1":
            return checked_pieces(sparse_numbers(said), size, stored)
        before = self._left
        numbers = self._map()
        return checked_pieces(numbers, size, stored - (before - self._left))

    def _map(self) -> list[int]:
        """Lines of digits: how many pieces there are, and their offsets and sizes in turns."""
        blocks = [self._take(BLOCK)]
        pieces = read_decimal(blocks[0].partition(b"\n")[0].decode("ascii", "replace"))
        if pieces > MOST_PIECES:
            raise damaged("a sparse file of too many pieces")
        missing = 1 + 2 * pieces - blocks[0].count(b"\n")
        while missing > 0:
            blocks.append(self._take(BLOCK))
            missing -= blocks[-1].count(b"\n")
        lines = b"".join(blocks).decode("ascii", "replace").split("\n")
        return [read_decimal(line) for line in lines[1 : 1 + 2 * pieces]]

    def _take(self, size: int) -> bytes:
        """Content of the current member."""
        if size > self._left:
            raise damaged("a member has less content than it says")
        data = self._exactly(size)
        self._left -= size
        return data

    def _skip(self) -> None:
        """Go to the next header."""
        while self._left:
            self._take(min(self._left, SKIPPED_BYTES))

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise ShardError("shard_truncated", "the tar ends inside a member")
        return data


def _padded(size: int) -> int:
    """What so many bytes take in whole blocks."""
    return -(-size // BLOCK) * BLOCK
