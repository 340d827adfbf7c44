"""Links to members of the same tar."""

from __future__ import annotations

import posixpath
from array import array
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass

from pipeline.sources.formats.item import Item
from pipeline.sources.formats.tar.archive import Kind, Member

MOST_STEPS = 40
"""From link to link, as in Linux."""


@dataclass(frozen=True)
class _Link:
    target: str
    place: int
    """Its number among the members."""
    is_hard: bool


class Links:
    """Finds the members that links mean. Takes 8 bytes a member, and more for links alone."""

    def __init__(self) -> None:
        self._names = array("q")
        """The hash of the name of every file; 0 for other members."""
        self._links: dict[str, _Link] = {}
        self._images: dict[str, _Link] = {}
        """Those that are to have rows, by their URI."""
        self._waiting: list[Item] = []

    def see(self, member: Member, uri: str | None) -> None:
        """Remember a member; all have to be seen, in order. ``uri``: of an image."""
        name = _plain(member.name)
        if member.kind.is_link:
            is_hard = member.kind is Kind.HARD_LINK
            target = member.target if is_hard else f"{posixpath.dirname(name)}/{member.target}"
            link = _Link(_plain(target), len(self._names), is_hard)
            self._links[name] = link
            if uri is not None:
                self._images[uri] = link
        self._names.append(hash(name) if member.kind is Kind.FILE else 0)

    def keep(self, item: Item) -> bool:
        """Whether an image is a link; it is kept then until all members have been seen."""
        if item.uri not in self._images:
            return False
        self._waiting.append(item)
        return True

    def resolve(self) -> tuple[dict[int, list[Item]], list[Item]]:
        """The images that are links: by the number of the member that they mean, and those that
        mean none."""
        targets = {hash(link.target) for link in self._links.values()}
        places: dict[int, list[int]] = defaultdict(list)
        for place, name in enumerate(self._names if self._waiting else ()):
            if name in targets:
                places[name].append(place)
        found: dict[int, list[Item]] = defaultdict(list)
        lost: list[Item] = []
        for item in self._waiting:
            meant = self._place(self._images[item.uri], places)
            (lost if meant is None else found[meant]).append(item)
        return found, lost

    def _place(self, link: _Link | None, places: dict[int, list[int]]) -> int | None:
        for _ in range(MOST_STEPS):
            if link is None:
                return None
            if same := places.get(hash(link.target)):
                before = bisect_left(same, link.place)
                return same[max(before - 1, 0)] if link.is_hard else same[-1]
            link = self._links.get(link.target)
        return None


def _plain(name: str) -> str:
    """One spelling of a name; tar tools take "./" and "/" in front for nothing."""
    return posixpath.normpath(name.lstrip("/"))
