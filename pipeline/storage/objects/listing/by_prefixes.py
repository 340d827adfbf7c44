"""A long listing by several requests at once where a store begins it only at a prefix: directory by
directory, in the order of their names."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from typing import Any

from pipeline.storage.read_ahead import Ahead

MOST_PREFIXES = 100
"""Each costs a request at least, and may be small."""
LISTED_AT_ONCE = 16
PAGES_AHEAD = 4
"""Of each prefix."""

Info = dict[str, Any]
"""Of an object, in the words of fsspec: name (its path), size, type, etag."""


@dataclass(frozen=True)
class Page:
    """A part of a listing."""

    objects: list[Info]
    prefixes: list[str]
    """Paths of what lies one level down, if the listing is of one level."""
    following: str | None
    """The token of the next page."""


Pages = Callable[[str, str], Iterator[Page]]
"""``(path, delimiter)``: the pages of what lies below a path, or one level below it."""


def listed_by_prefixes(pages: Pages, path: str) -> Iterator[Info]:
    """Every object below a path.

    Args:
        pages: may be called by several threads at once.
        path: a container, or a prefix without its slash.
    """
    flat = pages(path, "")
    first = next(flat)
    level = next(pages(path, "/")) if first.following else None
    if level is None or not _is_worth_it(level):
        yield from (info for page in chain([first], flat) for info in page.objects)
    elif len(level.prefixes) == 1 and not level.objects:
        yield from listed_by_prefixes(pages, level.prefixes[0].rstrip("/"))
    else:
        for page in _in_turn(_parts(pages, level)):
            yield from page.objects


def _is_worth_it(level: Page) -> bool:
    """Whether there are directories, not too many, and of plain names: a path without its last
    slash would not say that there are two."""
    is_known = not level.following and 0 < len(level.prefixes) <= MOST_PREFIXES
    return is_known and not any(name.endswith("//") for name in level.prefixes)


def _parts(pages: Pages, level: Page) -> list[Callable[[], Iterator[Page]]]:
    """What lists each directory and each object of a level, in the order of their names."""
    parts = [(name, partial(pages, name.rstrip("/"), "")) for name in level.prefixes]
    parts += [(info["name"], partial(iter, [Page([info], [], None)])) for info in level.objects]
    return [part for _, part in sorted(parts, key=itemgetter(0))]


def _in_turn(sources: Sequence[Callable[[], Iterator[Page]]]) -> Iterator[Page]:
    """The pages of all, one after the other; some are begun before their turn."""
    rest = iter(sources)
    with ExitStack() as threads:
        begun = deque(_begun(source, threads) for source in islice(rest, LISTED_AT_ONCE))
        while begun:
            yield from begun.popleft()
            begun.extend(_begun(source, threads) for source in islice(rest, 1))


def _begun(source: Callable[[], Iterator[Page]], threads: ExitStack) -> Ahead[Page]:
    return threads.enter_context(Ahead(source(), PAGES_AHEAD))
