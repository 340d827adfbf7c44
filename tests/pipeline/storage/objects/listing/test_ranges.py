"""A listing in ranges is the listing, whatever the store's keys look like and however it sorts."""

import itertools
import random
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.storage.objects.listing import ranges
from pipeline.storage.objects.listing.cuts import cuts
from pipeline.storage.objects.listing.ranges import listed_in_ranges
from pipeline.storage.objects.listing.stretches import Far, KeyPage
from tests.support.inputs.listing import PAGE, Bucket, Nearby, single, together, wait_for_rest

LIMIT_SECONDS = 60


def by_directory(key: str) -> list[str]:
    """As a filesystem sorts, below which ``a/b`` comes before ``a-b``."""
    return key.split("/")


def numbered(draw: random.Random) -> list[str]:
    return [f"p/image-{number:07d}.jpg" for number in range(draw.randrange(3000))]


def in_directories(draw: random.Random) -> list[str]:
    names = [f"p/2026/{n % 37:02d}/a-{n:04d}.jpg" for n in range(draw.randrange(1500))]
    return names + [f"p/2026/{n % 37:02d}-x/a.jpg" for n in range(40)] + ["p/2026.jpg"]


def of_uuids(draw: random.Random) -> list[str]:
    return [f"p/{uuid.UUID(int=draw.getrandbits(128))}" for _ in range(draw.randrange(1500))]


def mixed(draw: random.Random) -> list[str]:
    letters = "aA0/-.z~\u00fc\U0001f600 9"
    words = ("".join(draw.choices(letters, k=draw.randrange(1, 6))) for _ in range(1500))
    return sorted({f"p/{word}" for word in words})


KINDS = [numbered, in_directories, of_uuids, mixed]
STORES: dict[str, dict[str, Any]] = {
    "plain": {},
    "by directory": {"order": by_directory},
    "backwards": {"order": lambda key: [-ord(letter) for letter in key]},
    "from the start": {"ignores_start": True},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
@pytest.mark.parametrize("seed", range(3))
def test_every_key_once_and_in_the_order_of_the_store(
    kind: Callable[[random.Random], list[str]], store: dict[str, Any], seed: int
) -> None:
    bucket = Bucket(kind(random.Random(seed)), **store)
    assert list(listed_in_ranges(bucket.read, "p/")) == [f"<{key}>" for key in bucket.keys]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
@pytest.mark.parametrize("seed", range(3))
def test_the_same_with_the_help_of_others(
    kind: Callable[[random.Random], list[str]], store: dict[str, Any], seed: int
) -> None:
    bucket = Bucket(kind(random.Random(seed)), **store)
    helpers = Nearby(bucket, ready_after=10 * seed)
    listing = listed_in_ranges(bucket.read, "p/", Far(helpers, together))
    assert list(single(listing)) == [f"<{key}>" for key in bucket.keys]


@pytest.mark.parametrize("kind", KINDS[:3])
def test_the_price_is_a_few_requests(kind: Callable[[random.Random], list[str]]) -> None:
    bucket = Bucket(kind(random.Random(0)))
    list(listed_in_ranges(bucket.read, "p/"))
    assert len(set(bucket.requests)) > 5
    assert len(bucket.requests) < 1.6 * len(bucket.keys) / PAGE + 20


def test_requests_are_under_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second page on, none is answered before there are four."""
    monkeypatch.setattr(ranges, "PAGES_AT_ONCE", 4)
    bucket = Bucket([f"p/image-{number:07d}.jpg" for number in range(3000)])
    together = threading.Barrier(4, timeout=LIMIT_SECONDS)
    numbers = itertools.count()

    def read(after: str, token: str | None) -> KeyPage[str]:
        if 1 <= next(numbers) <= 4:
            together.wait()
        return bucket.read(after, token)

    assert len(list(listed_in_ranges(read, "p/"))) == len(bucket.keys)


def test_memory_holds_few_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "PAGES_HELD", 8)
    bucket = Bucket([f"p/image-{number:07d}.jpg" for number in range(3000)])
    listing = listed_in_ranges(bucket.read, "p/")
    for _ in range(PAGE):
        next(listing)
    wait_for_rest(bucket)
    assert len(bucket.requests) <= 8 + ranges.PAGES_AT_ONCE + 2
    assert len(list(listing)) == 3000 - PAGE


def test_a_key_that_is_removed_meanwhile_costs_no_other_one() -> None:
    bucket = Bucket([f"p/image-{number:07d}.jpg" for number in range(1000)])
    gone = "p/image-0000101.jpg"

    def read(after: str, token: str | None) -> KeyPage[str]:
        page = bucket.read(after, token)
        if page.keys[:1] == [gone]:  # a range begins with it
            return page
        kept = [key for key in page.keys if key != gone]
        return KeyPage(kept, [f"<{key}>" for key in kept], page.following)

    found = list(listed_in_ranges(read, "p/"))
    assert len(found) == len(set(found))
    assert {*found, f"<{gone}>"} == {f"<{key}>" for key in bucket.keys}


def test_an_error_comes_after_what_was_listed_before() -> None:
    bucket = Bucket([f"p/image-{number:07d}.jpg" for number in range(1000)])

    def read(after: str, token: str | None) -> KeyPage[str]:
        page = bucket.read(after, token)
        if page.keys and page.keys[-1] > "p/image-0000300":
            raise PermissionError("no more")
        return page

    found: list[str] = []
    with pytest.raises(PermissionError, match="no more"):
        found.extend(listed_in_ranges(read, "p/"))
    assert not found or found == [f"<{key}>" for key in bucket.keys[: len(found)]]


def test_whoever_stops_early_is_not_kept_waiting() -> None:
    bucket = Bucket(numbered(random.Random(2)))
    listing = listed_in_ranges(bucket.read, "p/")
    assert next(listing) == f"<{bucket.keys[0]}>"
    del listing


@pytest.mark.parametrize(
    ("first", "last", "pages", "points"),
    [
        ("p/image-0010.jpg", "p/image-0019.jpg", 1, ["p/image-01", "p/image-02"]),
        ("p/image-0010.jpg", "p/image-0012.jpg", 9, ["p/image-0013", "p/image-0014"]),
        ("p/2026/07/a.jpg", "p/2026/07/z.jpg", 1, ["p/2026/08", "p/2026/09"]),
        ("p/3f0a12-.jpg", "p/3f2b34-.jpg", 1, ["p/4", "p/5"]),
        ("p/word.jpg", "p/work.jpg", 1, []),
        ("p/.a", "p/.b", 1, []),
    ],
)
def test_where_it_is_worth_cutting(first: str, last: str, pages: int, points: list[str]) -> None:
    found = cuts(first, last, pages, "p/")
    assert found[:2] == points
    assert found == sorted(found)
