"""The images of a tar, streamed, with the small files that belong to each of them."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace
from typing import IO, Any, Protocol, Self, cast

import pyarrow as pa

from pipeline.contract.errors import FetchError, ItemError, JobError, ShardError, one_line
from pipeline.contract.spec import InputSpec
from pipeline.sources.formats.item import Item, ReadOptions
from pipeline.storage.files import check_size
from pipeline.storage.uris import printable

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
SIBLINGS = ("json", "cls", "txt")
"""Members of a WebDataset sample that can be kept, by their extension; columns of strings."""
SIBLING_BYTES = 2**20
"""A larger one is left out."""
HELD_SAMPLES = 100
HELD_BYTES = 32 * 2**20


class Readable(Protocol):
    """Bytes in order."""

    def read(self, size: int | None = None) -> bytes: ...


class _Header(tarfile.TarInfo):
    """A header of a tar. To tarfile, the first missing or damaged one is the end; here only the end
    mark is, a block of zeros."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) < tarfile.BLOCKSIZE:
            raise ShardError("shard_truncated", "the tar ends without its end mark")
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise ShardError("shard_corrupt", f"not a tar header: {error}") from error
            raise


@dataclass
class _Sample:
    """What is held of the members that share a key, which is their name up to its first dot."""

    names: set[str] = field(default_factory=set)
    images: list[Item] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def release(self) -> Iterator[Item]:
        """The waiting images, with the siblings known so far."""
        images, self.images = self.images, []
        return (replace(item, kept={**(item.kept or {}), **self.texts}) for item in images)

    @property
    def held_bytes(self) -> int:
        images = sum(len(item.data or b"") for item in self.images)
        return images + sum(map(len, self.texts.values()))


class _Samples:
    """Brings images and their siblings together in bounded memory.

    Members of a sample may come in any order and need not be neighbours: an image waits until all
    wanted siblings are there, but only until ``HELD_SAMPLES`` other samples have begun or
    ``HELD_BYTES`` are held. A sibling that comes later is lost: its column is null.
    """

    def __init__(self, wanted: frozenset[str]) -> None:
        self.wanted = wanted
        self._held: dict[str, _Sample] = {}

    def image(self, name: str, item: Item) -> Iterator[Item]:
        """Take an image; yields the images that need not wait any longer."""
        if not self.wanted:
            yield item
            return
        yield from self._begin(name)
        sample = self._held[_key(name)]
        sample.images.append(item)
        yield from self._settle(sample)

    def text(self, name: str, text: str) -> Iterator[Item]:
        """Take a sibling."""
        yield from self._begin(name)
        sample = self._held[_key(name)]
        sample.texts[_extension(name)] = text
        yield from self._settle(sample)

    def drain(self) -> Iterator[Item]:
        """All images that still wait."""
        for sample in self._held.values():
            yield from sample.release()

    def _begin(self, name: str) -> Iterator[Item]:
        """A repeated name begins another sample with the same key."""
        known = self._held.get(_key(name))
        if known is not None and name in known.names:
            yield from self._held.pop(_key(name)).release()
        self._held.setdefault(_key(name), _Sample()).names.add(name)

    def _settle(self, sample: _Sample) -> Iterator[Item]:
        if self.wanted <= sample.texts.keys():
            yield from sample.release()
        while len(self._held) > HELD_SAMPLES or self._bytes() > HELD_BYTES:
            yield from self._held.pop(next(iter(self._held))).release()

    def _bytes(self) -> int:
        return sum(sample.held_bytes for sample in self._held.values())


def tar_columns(uri: str, inputs: InputSpec) -> pa.Schema:
    """The columns that any tar may have; which ones it has shows only when it is read."""
    return pa.schema([(name, pa.string()) for name in SIBLINGS])


def tar_members(
    stream: Readable, base: Item, done: Set[str], max_bytes: int, options: ReadOptions
) -> Iterator[Item]:
    """Image members, except those in ``done``; a repeated name gets a number.

    Raises:
        ShardError: the rest of the tar cannot be read, or it holds no image.
        FetchError: the storage failed.
    """
    items = _with_siblings(stream, base, max_bytes, options)
    return (item for item in items if item.uri not in done)


def _with_siblings(
    stream: Readable, base: Item, max_bytes: int, options: ReadOptions
) -> Iterator[Item]:
    samples = _Samples(frozenset(SIBLINGS).intersection(options.kept.names))
    try:
        yield from _members(stream, base, max_bytes, options, samples)
    except ItemError:
        yield from samples.drain()
        raise
    yield from samples.drain()


def _members(
    stream: Readable, base: Item, max_bytes: int, options: ReadOptions, samples: _Samples
) -> Iterator[Item]:
    seen: set[str] = set()
    try:
        file = cast(IO[bytes], stream)  # stream mode only calls read
        with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Header) as tar:
            for member in tar:
                if not member.isfile():
                    continue
                name = printable(member.name)
                if name.lower().endswith(options.image_suffixes):
                    item = replace(base, uri=_unused(f"{base.uri}#{name}", seen))
                    yield from samples.image(name, _read_image(tar, member, item, max_bytes))
                elif _extension(name) in samples.wanted and member.size <= SIBLING_BYTES:
                    data = _read(tar, member)
                    yield from samples.text(name, data.decode("utf-8", "backslashreplace"))
    except (ItemError, JobError):
        raise
    except Exception as error:  # on damaged headers, tarfile raises whatever it trips over
        ends = isinstance(error, EOFError) or "unexpected end" in str(error)
        code = "shard_truncated" if ends else "shard_corrupt"
        raise ShardError(code, f"the tar ends early or is damaged: {one_line(error)}") from error
    if not seen:
        raise ShardError("shard_empty", "the tar holds no image")


def _key(name: str) -> str:
    directory, slash, base = name.rpartition("/")
    return f"{directory}{slash}{base.partition('.')[0]}"


def _extension(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2].lower()


def _unused(uri: str, seen: set[str]) -> str:
    unused, number = uri, 1
    while unused in seen:
        number += 1
        unused = f"{uri}#{number}"
    seen.add(unused)
    return unused


def _read_image(tar: tarfile.TarFile, member: tarfile.TarInfo, item: Item, max_bytes: int) -> Item:
    item = replace(item, size_bytes=member.size)
    try:
        check_size(member.size, max_bytes)
    except FetchError as error:
        return replace(item, error=error)
    return replace(item, data=_read(tar, member))


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file: Any = tar.extractfile(member)
    data: bytes = file.read()
    if len(data) < member.size:
        raise ShardError("shard_truncated", f"the tar ends inside {member.name}")
    return data
