"""What a listing is made of: pages, one for each request, and stretches of several pages, which
other processes list and work on, so that this one only puts them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from typing import Any, Generic, Protocol, TypeVar, overload

import pyarrow as pa
import pyarrow.compute as pc

PAGES_TOGETHER = 10
"""Of a stretch, at most: names for one table of the inventory."""

T = TypeVar("T")
M = TypeVar("M")
R = TypeVar("R")


@dataclass(frozen=True)
class KeyPage(Generic[T]):
    """What one request brings."""

    keys: Sequence[str]
    entries: list[T]
    """One for each key."""
    following: str | None
    """The token of the next page; None on the last."""

    @property
    def pages(self) -> int:
        """For how many it stands."""
        return 1

    def before(self, key: str) -> list[T] | None:
        """The entries that come before a key; None if it is not among these."""
        return self.entries[: self.keys.index(key)] if key in self.keys else None


Read = Callable[[str, str | None], KeyPage[T]]
"""``(after, token)``: the first page of what comes after a key, or the page with this token."""


class Helpers(Protocol):
    """Other processes, which see the storage as this one does."""

    @property
    def is_ready(self) -> bool:
        """Whether they can be asked."""
        ...

    @property
    def at_once(self) -> int:
        """How many calls at a time they have use for, once they are ready."""
        ...

    def call(self, function: Callable[[], R]) -> R:
        """What a function returns there, or raises. It may be called again if a process is lost."""
        ...


@dataclass(frozen=True)
class Far(Generic[T, M]):
    """How parts of a long listing become something else where they are listed."""

    helpers: Helpers
    made: Callable[[Iterable[T]], M]
    """Called there with the entries of a stretch; what it returns stands in their place."""

    def of(self, adapt: Callable[[Iterable[R]], Iterable[T]]) -> Far[R, M]:
        """The same for entries of another kind."""
        return Far(self.helpers, partial(_composed, self.made, adapt))

    def read(
        self, one: Read[T], after: str, token: str | None, until: str | None
    ) -> list[KeyPage[Any]]:
        """A stretch, and the next page alone, if it does not go on as keys should, or either.

        Args:
            one: reads a page; it travels.
            after: as for ``one``.
            token: as for ``one``.
            until: probably the next range begins behind this key; None if there is none.
        """
        found = self.helpers.call(partial(_stretch, one, after, token, until, self.made))
        if isinstance(found, KeyPage):
            return [found]
        keys, made = _Keys(found.keys), [found.made]
        stretch: KeyPage[Any] = _StretchPage(
            keys, made, found.following, one, after, token, found.pages
        )
        return [stretch, *found.odd]


@dataclass(frozen=True)
class _Stretch(Generic[T, M]):
    """As it travels."""

    keys: pa.Array
    made: M
    following: str | None
    pages: int
    odd: list[KeyPage[T]]
    """The page that follows, if it is none of these."""


@dataclass(frozen=True)
class _StretchPage(KeyPage[T | M]):
    """In the place of several pages; its only entry stands for all of them."""

    one: Read[T]
    after: str
    token: str | None
    number: int

    @property
    def pages(self) -> int:
        return self.number

    def before(self, key: str) -> list[T | M] | None:
        """Only a store with an order of its own has the key here; then these pages are read again,
        one by one. What has been removed since is not waited for: some pages on, it is gone."""
        if key not in self.keys:
            return None
        wanted = {other for other in self.keys if other < key}  # in a stretch they are in order
        found: dict[str, T | M] = {}
        pages = _pages(self.one, self.after, self.token)
        for page in islice(pages, 2 * PAGES_TOGETHER if wanted else 0):
            pairs = zip(page.keys, page.entries, strict=True)
            found.update((other, entry) for other, entry in pairs if other in wanted)
            if len(found) == len(wanted):
                break
        return list(found.values())


class _Keys(Sequence[str]):
    """Strings that stay in Arrow's memory."""

    def __init__(self, keys: pa.Array) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        return _Keys(self._keys[at]) if isinstance(at, slice) else str(self._keys[at].as_py())

    def __contains__(self, key: object) -> bool:
        return bool(pc.index(self._keys, key).as_py() >= 0)


def _composed(
    made: Callable[[Iterable[T]], M],
    adapt: Callable[[Iterable[R]], Iterable[T]],
    entries: Iterable[R],
) -> M:
    return made(adapt(entries))


def _stretch(
    one: Read[T], after: str, token: str | None, until: str | None, made: Callable[[Iterable[T]], M]
) -> KeyPage[T] | _Stretch[T, M]:
    pages: list[KeyPage[T]] = []
    odd: list[KeyPage[T]] = []
    last = after
    try:
        for page in _pages(one, after, token):
            if not _goes_on(page.keys, last, until):
                odd = [page]
                break
            pages.append(page)
            last = page.keys[-1]
            if len(pages) == PAGES_TOGETHER:
                break
    except Exception:  # it comes again, after what there is
        if not pages:
            raise
    if not pages:
        return odd[0]
    keys = [key for page in pages for key in page.keys]
    entries = [entry for page in pages for entry in page.entries]
    return _Stretch(
        pa.array(keys, pa.string()), made(entries), pages[-1].following, len(pages), odd
    )


def _pages(one: Read[T], after: str, token: str | None) -> Iterator[KeyPage[T]]:
    """One after the other; the last repeats itself, if the store does."""
    while True:
        page = one(after, token)
        yield page
        if page.following is None or page.following == token:
            return
        token = page.following


def _goes_on(keys: Sequence[str], last: str, until: str | None) -> bool:
    """Whether a page is ordinary: it brings keys, in order, and none of the next range."""
    if not keys or keys[0] <= last or (until is not None and keys[-1] > until):
        return False
    return all(one < other for one, other in pairwise(keys))
