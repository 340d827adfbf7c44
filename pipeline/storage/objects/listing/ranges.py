"""A long listing by several requests at once, in the order of the store and in little memory.

A store lists its keys in order, a thousand by a request, and may be asked for those after any
string. So a listing can be cut wherever one likes, into ranges that are listed side by side. The
first page of a range shows what its keys look like, and where it is worth cutting: after
``2026/01/...`` at ``2026/02``, ``2026/03``, ..., whether these are directories or parts of names.
Ranges next to the one whose turn it is are listed first, and others only as far as there is room.

A range ends at the very key with which the next one begins, and not where a comparison of strings
would end it: some stores have an order of their own, or list from the start whatever they are asked
for. Then the range whose turn it is goes on to the end, and nothing is listed twice, or not at all.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, Generic, TypeVar

from pipeline.contract.errors import JobError, one_line
from pipeline.storage.objects.listing.cuts import cuts
from pipeline.storage.objects.listing.steps import Pace
from pipeline.storage.objects.listing.stretches import PAGES_TOGETHER, Far, KeyPage, Read

PAGES_AT_ONCE = 16
STRETCHES_AT_ONCE = 64
"""At most, when other processes list."""
PAGES_HELD = 128
"""Listed, or being listed, before it is their turn; a page takes some 250 kB."""
STRETCHES_HELD = 64
"""The same of other processes, and two more for each of these. One takes some 3 MB, for it has ten
pages. With fewer all would soon wait for the range whose turn it is."""
PAGES_APART = 2 * PAGES_TOGETHER
"""The length of ranges when other processes list, about. Each takes a request that brings keys of
the next one, too; of longer ones fewer have room."""
CUT_AFTER = (3, 10, 30, 100, 300, 1000)
"""Pages, after which a range turns out to be a long one."""
CUT_FIRST = (1, *CUT_AFTER)
"""The same of the range whose turn it is."""

T = TypeVar("T")
M = TypeVar("M")

log = logging.getLogger(__name__)


def listed_in_ranges(read: Read[T], prefix: str, far: Far[T, M] | None = None) -> Iterator[T | M]:
    """All entries, in the order of the store.

    Args:
        read: may be called by several threads at once.
        prefix: with which all keys begin.
        far: where stretches of it can be listed, as soon as its helpers are ready.

    Raises:
        OSError: the store sends the same page again and again; or what ``read`` raises.
    """
    first = read("", None)
    if first.following is None:
        yield from first.entries
        return
    for entries in _Ranges(read, prefix, first, far):
        yield from entries


@dataclass(eq=False)
class _Range(Generic[T]):
    """What comes after one string, and probably up to another."""

    after: str
    until: str | None
    """None for all."""
    pages: deque[KeyPage[T]] = field(default_factory=deque)
    first_key: str | None = None
    listed: int = 0
    """Pages."""
    newest: tuple[str, str, float] = ("", "", 0.0)
    """Two keys of the last page, or of the last two, and how many are between."""
    token: str | None = None
    is_begun: bool = False
    is_busy: bool = False
    is_paused: bool = False
    """The next range should have begun by now."""
    is_ended: bool = False
    error: BaseException | None = None
    _before: tuple[str, int] | None = None
    """The first key of the last page, and for how many it stands."""

    def take(self, page: KeyPage[T]) -> None:
        """Add a page.

        Raises:
            OSError: it says that it is its own next one.
        """
        if self.token is not None and self.token == page.following:
            raise OSError("the store answers with the same page of the listing again and again")
        self.pages.append(page)
        self.listed += page.pages
        if keys := page.keys:  # half of a first page, for stray files may come before directories
            self.newest = (keys[len(keys) // 2], keys[-1], page.pages / 2)
            if self._before is not None:
                self.newest = (self._before[0], keys[-1], self._before[1] + page.pages)
            self._before = keys[0], page.pages
        if page.keys and self.first_key is None:
            self.first_key = page.keys[0]
        self.token, self.is_ended = page.following, page.following is None
        self.is_begun = self.is_ended or self.first_key is not None
        self.pause()

    def pause(self) -> None:
        """Wait, if the last page goes beyond the range."""
        keys = self.pages[-1].keys if self.pages else []
        self.is_paused = bool(keys) and self.until is not None and keys[-1] > self.until

    @property
    def is_waiting(self) -> bool:
        """Whether its next page can be asked for."""
        return not (self.is_busy or self.is_paused or self.is_ended or self.error)


class _Ranges(Generic[T]):
    """Iterates over the entries of all ranges, a page at a time; threads list them."""

    def __init__(
        self, read: Read[T], prefix: str, first: KeyPage[T], far: Far[T, Any] | None
    ) -> None:
        self._read = read
        self._far = far
        self._prefix = prefix
        self._ranges = [_Range[T]("", None)]
        self._held = 0
        self._busy = 0
        self._is_closed = False
        self._is_told = False
        self._pace = Pace(prefix)
        self._changed = threading.Condition()
        self._take(self._ranges[0], [first])

    def __iter__(self) -> Iterator[list[T]]:
        with ThreadPoolExecutor(STRETCHES_AT_ONCE) as threads:
            begun = 0
            try:
                while True:
                    while begun < self._at_once:
                        threads.submit(self._list)
                        begun += 1
                    if (entries := self._next()) is None:
                        return
                    yield entries
            finally:
                with self._changed:
                    self._is_closed = True
                    self._changed.notify_all()

    @property
    def _is_far(self) -> bool:
        return self._far is not None and self._far.helpers.is_ready

    @property
    def _at_once(self) -> int:
        if self._far is None or not self._is_far:
            return PAGES_AT_ONCE
        return min(self._far.helpers.at_once, STRETCHES_AT_ONCE)

    @property
    def _has_room(self) -> bool:
        most = STRETCHES_HELD + 2 * self._at_once if self._is_far else PAGES_HELD
        return self._held + self._busy < most

    def _next(self) -> list[T] | None:
        """The entries whose turn it is; None after the last."""
        with self._changed:
            self._changed.wait_for(self._is_next_here)
            front = self._ranges[0]
            last = self._ranges[1:2] if front.pages else [front]
            for part in last:  # where the page ends is not known before the next range begins
                if part.error is not None and not (front.pages and part.is_begun):
                    raise part.error
            return self._pop(front) if front.pages else None

    def _is_next_here(self) -> bool:
        """Whether there is a page, and it is known where the range ends; or nothing comes."""
        front = self._ranges[0]
        if not front.pages:
            if front.is_paused:  # it does not end where it should have
                front.until, front.is_paused = None, False
                self._changed.notify_all()
            return front.is_ended or front.error is not None
        return all(part.is_begun or part.error for part in self._ranges[1:2])

    def _pop(self, front: _Range[T]) -> list[T]:
        page = front.pages.popleft()
        self._held -= 1
        self._pace.passes(page.keys, page.pages)
        end = self._ranges[1].first_key if len(self._ranges) > 1 else None
        before = None if end is None else page.before(end)
        if before is not None:
            self._held -= len(front.pages)
            self._ranges.pop(0)
        self._changed.notify_all()
        return page.entries if before is None else before

    def _list(self) -> None:
        """List pages, one after the other, as long as somebody wants them."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._waiting())
                part = self._waiting()
                if self._is_closed or part is None:
                    return
                part.is_busy = True
                self._busy += 1
                is_whole = part.until is not None or part is self._ranges[-1]
            try:
                pages = self._pages(part, is_whole=is_whole)
                with self._changed:
                    self._take(part, pages)
            except BaseException as error:  # noqa: BLE001  # it is the consumer's to handle
                part.error = error
            with self._changed:
                part.is_busy = False
                self._busy -= 1
                self._changed.notify_all()

    def _pages(self, part: _Range[T], *, is_whole: bool) -> list[KeyPage[T]]:
        """The next one of a range, or what stands for several if it is known how far it goes."""
        if self._far is not None and self._is_far and is_whole:
            try:
                return self._far.read(self._read, part.after, part.token, part.until)
            except (OSError, JobError) as error:  # of one host, maybe; if not, it comes again here
                self._tell(error)
        return [self._read(part.after, part.token)]

    def _tell(self, error: Exception) -> None:
        """Once: a host in a bad way fails again and again."""
        with self._changed:
            is_told, self._is_told = self._is_told, True
        if not is_told:
            log.warning("what others fail to list is listed here: %s", one_line(error))

    def _waiting(self) -> _Range[T] | None:
        """The first range of which the next page may be asked for."""
        if self._busy >= self._at_once:
            return None
        has_room = self._has_room
        for number, part in enumerate(self._ranges):
            is_needed = not part.pages if number == 0 else number == 1 and not part.is_begun
            if part.is_waiting and (is_needed or has_room):
                return part
        return None

    def _take(self, part: _Range[T], pages: list[KeyPage[T]]) -> None:
        if part not in self._ranges:
            return
        is_first, keys = not part.is_begun, pages[0].keys
        for page in pages:
            part.take(page)
        self._held += len(pages)
        at = self._ranges.index(part) + 1
        if is_first and self._is_far and part.until is not None:
            self._pace.meets(is_there=bool(keys) and keys[0] <= part.until)
        if is_first and keys and keys[0] < part.after:  # it begins where it likes
            self._held -= sum(len(left_out.pages) for left_out in self._ranges[at - 1 :])
            del self._ranges[at - 1 :]
        elif is_first and keys:
            self._leave_out(at, lambda later: later.until is not None and later.until < keys[0])
        if part.is_ended:
            self._leave_out(at, lambda later: not page.keys or later.after >= page.keys[-1])
        elif page.keys and not part.is_paused:
            self._cut(part, at, page.pages)

    def _leave_out(self, at: int, is_empty: Callable[[_Range[T]], bool]) -> None:
        """Leave out what has not begun of the ranges from ``at`` on, as far as they are empty."""
        later = self._ranges[at:]
        self._ranges[at:] = [one for one in later if one.is_begun or not is_empty(one)]

    def _cut(self, part: _Range[T], at: int, pages: int) -> None:
        """Leave what comes later in a range to others; the last so many pages have just come."""
        until = part.until
        points = [point for point in self._points(part, at, pages) if not until or point < until]
        self._ranges[at:at] = [_Range(p, end) for p, end in pairwise([*points, until]) if p]
        part.until = points[0] if points else until
        part.pause()

    def _points(self, part: _Range[T], at: int, pages: int) -> list[str]:
        """Where: by counting on, or, in a range that is longer than expected, by groups."""
        first, last, between = part.newest
        if pages == PAGES_TOGETHER and self._is_far:
            steps = self._pace.steps(first, last, int(between), PAGES_APART, part.until)
            if found := list(islice(steps, 2 * self._at_once)):
                return found
        is_even = pages > 1 and part.listed <= PAGES_APART
        cut_after = () if is_even else CUT_AFTER if at > 1 else CUT_FIRST
        is_due = any(part.listed - pages < number <= part.listed for number in cut_after)
        return cuts(first, last, between, self._prefix) if is_due and first < last else []
