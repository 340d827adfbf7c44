"""The images of a tar, streamed, with the small files that belong to each of them."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import pyarrow as pa

from pipeline.contract.errors import (
    DecodeError,
    FetchError,
    ItemError,
    JobError,
    ShardError,
    one_line,
)
from pipeline.contract.spec import InputSpec
from pipeline.sources.formats.item import Item, ReadOptions
from pipeline.sources.formats.tar.archive import Archive, Kind, Member
from pipeline.sources.formats.tar.links import Links
from pipeline.sources.formats.tar.samples import (
    SIBLING_BYTES,
    SIBLINGS,
    Samples,
    extension_of,
)
from pipeline.sources.formats.tar.unpacking import Readable, unpacked
from pipeline.storage.files import check_size
from pipeline.storage.uris import printable

_NEVER_IMAGES = (Kind.DIRECTORY, Kind.LABEL)


class Rewindable(Readable, Protocol):
    """Bytes in order, which can be read once more."""

    def rewind(self) -> None: ...


def tar_columns(uri: str, inputs: InputSpec) -> pa.Schema:
    """The columns that any tar may have; which ones it has shows only when it is read."""
    return pa.schema([(name, pa.string()) for name in SIBLINGS])


def tar_members(
    stream: Rewindable, base: Item, done: Set[str], max_bytes: int, options: ReadOptions
) -> Iterator[Item]:
    """Image members, except those in ``done``; a repeated name gets a number. Links come last: what
    they link to is read in a second pass.

    Raises:
        ShardError: the rest of the tar cannot be read, or it holds no image.
        FetchError: the storage failed.
    """
    tar = _Tar(base, max_bytes, options)
    damage: ShardError | None = None
    try:
        for item in tar.images(stream):
            if item.uri not in done and not tar.links.keep(item):
                yield item
    except ShardError as error:
        damage = error
    found, lost = tar.links.resolve()
    yield from lost
    if found:
        stream.rewind()
        yield from _linked(stream, found, max_bytes)
    if damage is not None:
        raise damage
    if not tar.names:
        raise ShardError("shard_empty", "the tar holds no image")


class _Tar:
    """One pass over a tar."""

    def __init__(self, base: Item, max_bytes: int, options: ReadOptions) -> None:
        self.links = Links()
        self.names = _Names()
        """Of the images."""
        self._base = base
        self._max_bytes = max_bytes
        self._suffixes = options.image_suffixes
        self._samples = Samples(frozenset(SIBLINGS).intersection(options.kept.names))

    def images(self, stream: Readable) -> Iterator[Item]:
        """All images, each with its siblings; those that are links fail, as if they meant none."""
        try:
            with _tar_errors():
                archive = Archive(unpacked(stream))
                for member in archive:
                    yield from self._take(archive, member)
        except ItemError:
            yield from self._samples.drain()
            raise
        yield from self._samples.drain()

    def _take(self, archive: Archive, member: Member) -> Iterator[Item]:
        name, item = printable(member.name), None
        if name.lower().endswith(self._suffixes) and member.kind not in _NEVER_IMAGES:
            item = replace(self._base, uri=f"{self._base.uri}#{self.names.unused(name)}")
        self.links.see(member, item.uri if item else None)
        if item is not None:
            yield from self._samples.image(name, _read(archive, member, item, self._max_bytes))
        elif self._is_sibling(name, member):
            text = archive.read(member).decode("utf-8", "backslashreplace")
            yield from self._samples.text(name, text)

    def _is_sibling(self, name: str, member: Member) -> bool:
        is_wanted = extension_of(name) in self._samples.wanted
        return is_wanted and member.kind is Kind.FILE and member.size <= SIBLING_BYTES


class _Names:
    """Numbers the names that come again; keeps a hash of each."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def unused(self, name: str) -> str:
        """The name, or with a number if it was given before."""
        unused, number = name, self._numbers.get(hash(name), 1)
        while hash(unused) in self._numbers:
            number += 1
            unused = f"{name}#{number}"
        self._numbers[hash(unused)] = 1
        self._numbers[hash(name)] = number
        return unused


def _linked(stream: Readable, wanted: dict[int, list[Item]], max_bytes: int) -> Iterator[Item]:
    """The images that are links, by the numbers of the members that they mean."""
    with _tar_errors():
        archive = Archive(unpacked(stream))
        for number, member in enumerate(archive):
            links = wanted.pop(number, [])
            if links:
                read = _read(archive, member, links[0], max_bytes)
                size, data, error = read.size_bytes, read.data, read.error
                for item in links:
                    yield replace(item, size_bytes=size, data=data, error=error)
            if not wanted:
                return


def _read(archive: Archive, member: Member, item: Item, max_bytes: int) -> Item:
    """The image that is this member."""
    if member.kind.is_link:
        text = f"it is {member.kind.value} to {member.target}, which is no file of the tar"
        return replace(item, error=FetchError("not_found", text))
    if member.kind is not Kind.FILE:
        return replace(item, error=DecodeError("not_an_image", f"it is {member.kind.value}"))
    item = replace(item, size_bytes=member.size)
    try:
        check_size(member.size, max_bytes)
    except FetchError as error:
        return replace(item, error=error)
    return replace(item, data=archive.read(member), error=None)


@contextmanager
def _tar_errors() -> Iterator[None]:
    """Whatever the decompressors raise, as errors of the shard."""
    try:
        yield
    except (ItemError, JobError):
        raise
    except Exception as error:
        ends = isinstance(error, EOFError) or "Truncated" in str(error)
        code = "shard_truncated" if ends else "shard_corrupt"
        raise ShardError(code, f"the tar ends early or is damaged: {one_line(error)}") from error
