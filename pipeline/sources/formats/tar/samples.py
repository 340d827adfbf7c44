"""The images of a WebDataset and the small files beside them, together in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pipeline.sources.formats.item import ITEM_BYTES, Item

SIBLINGS = ("json", "cls", "txt")
"""Members of a WebDataset sample that can be kept, by their extension; columns of strings."""
SIBLING_BYTES = 2**20
"""A larger one is left out."""
HELD_SAMPLES = 100
HELD_BYTES = 32 * 2**20


@dataclass
class _Sample:
    """What is held of the members that share a key, which is their name up to its first dot."""

    names: set[str] = field(default_factory=set)
    images: list[Item] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    """What it takes, about."""

    def release(self) -> Iterator[Item]:
        """The waiting images, with the siblings known so far."""
        images, self.images = self.images, []
        self.bytes -= sum(map(_bytes_of, images))
        size = sum(map(len, self.texts.values()))
        return (
            replace(item, kept={**(item.kept or {}), **self.texts}, kept_bytes=size)
            for item in images
        )


class Samples:
    """Brings images and their siblings together in bounded memory.

    Members of a sample may come in any order and need not be neighbours: an image waits until all
    wanted siblings are there, but only until ``HELD_SAMPLES`` other samples have begun or
    ``HELD_BYTES`` are held. A sibling that comes later is lost: its column is null.
    """

    def __init__(self, wanted: frozenset[str]) -> None:
        self.wanted = wanted
        self._held: dict[str, _Sample] = {}
        self._bytes = 0

    def image(self, name: str, item: Item) -> Iterator[Item]:
        """Take an image; yields the images that need not wait any longer."""
        if not self.wanted:
            yield item
            return
        yield from self._begin(name)
        sample = self._held[_key(name)]
        sample.images.append(item)
        yield from self._settle(sample, _bytes_of(item))

    def text(self, name: str, text: str) -> Iterator[Item]:
        """Take a sibling."""
        yield from self._begin(name)
        sample = self._held[_key(name)]
        sample.texts[extension_of(name)] = text
        yield from self._settle(sample, len(text))

    def drain(self) -> Iterator[Item]:
        """All images that still wait."""
        while self._held:
            yield from self._pop(next(iter(self._held)))

    def _begin(self, name: str) -> Iterator[Item]:
        """A repeated name begins another sample with the same key."""
        key = _key(name)
        if key in self._held and name in self._held[key].names:
            yield from self._pop(key)
        sample = self._held.setdefault(key, _Sample())
        sample.names.add(name)
        self._count(sample, ITEM_BYTES + len(name))

    def _settle(self, sample: _Sample, more: int) -> Iterator[Item]:
        self._count(sample, more)
        if self.wanted <= sample.texts.keys():
            before = sample.bytes
            yield from sample.release()
            self._bytes -= before - sample.bytes
        while len(self._held) > HELD_SAMPLES or self._bytes > HELD_BYTES:
            yield from self._pop(next(iter(self._held)))

    def _pop(self, key: str) -> Iterator[Item]:
        sample = self._held.pop(key)
        self._bytes -= sample.bytes
        return sample.release()

    def _count(self, sample: _Sample, more: int) -> None:
        sample.bytes += more
        self._bytes += more


def _bytes_of(item: Item) -> int:
    return len(item.data or b"")


def _key(name: str) -> str:
    directory, slash, base = name.rpartition("/")
    return f"{directory}{slash}{base.partition('.')[0]}"


def extension_of(name: str) -> str:
    """What follows the first dot of the last part of a name, in lower case."""
    return name.rpartition("/")[2].partition(".")[2].lower()
