"""Ranges of the same length, by counting with keys: they follow the last one, and are even."""

import itertools
import random
import uuid
from collections import Counter
from collections.abc import Callable

import pytest

from pipeline.storage.objects.listing.ranges import PAGES_APART, listed_in_ranges
from pipeline.storage.objects.listing.steps import LEAST_TRUST, Pace
from pipeline.storage.objects.listing.stretches import Far
from tests.support.inputs.listing import PAGE, Bucket, Nearby, single, together

PAGES = 3000


def numbered(number: int) -> str:
    return f"p/image-{number:07d}.jpg"


def of_uuids(number: int) -> str:
    return f"p/{uuid.UUID(int=random.Random(number).getrandbits(128))}"


def of_days(number: int) -> str:
    day = number // (11 * PAGE)
    return f"p/2026/{day // 30 + 1:02d}/{day % 30 + 1:02d}/IMG_{number * 7919 % 30011:06d}.jpg"


@pytest.mark.parametrize(
    ("first", "last", "until", "points"),
    [
        ("p/image-0000.jpg", "p/image-0999.jpg", None, ["p/image-2997", "p/image-4995"]),
        ("p/image-0000.jpg", "p/image-0999.jpg", "p/image-3", ["p/image-2997"]),
        ("p/image-8000.jpg", "p/image-8999.jpg", None, []),
        ("p/2026/07/18/a.jpg", "p/2026/07/19/a.jpg", None, ["p/2026/07/21", "p/2026/07/23"]),
        ("p/2026/07/98.jpg", "p/2026/07/99.jpg", None, ["p/2026/08/01", "p/2026/08/03"]),
        ("p/0fffff0a", "p/1fffff0a", None, ["p/3ffff", "p/5ffff"]),
        ("p/word.jpg", "p/work.jpg", None, ["p/wory"]),
        ("p/.a", "p/.b", None, ["p/.d", "p/.f"]),
        ("p/a-", "p/a.", None, []),
        ("p/same", "p/same", None, []),
    ],
)
def test_it_is_counted_on(first: str, last: str, until: str | None, points: list[str]) -> None:
    found = list(Pace("p/").steps(first, last, 10, 20, until))
    assert [point.removesuffix(".jpg") for point in found[:2]] == points
    assert found == sorted(set(found))
    assert all(last < point for point in found)
    assert len(found) <= LEAST_TRUST


@pytest.mark.parametrize("seed", range(50))
def test_whatever_keys_are_like_steps_follow_each_other(seed: int) -> None:
    draw = random.Random(seed)
    words = ("".join(draw.choices("0a9fF-/z.Zü😀", k=draw.randrange(12))) for _ in range(30))
    keys = sorted({f"p/{word}" for word in words})
    pace = Pace("p/")
    for one, other in itertools.pairwise(keys):
        pace.passes([one], 10)
        found = list(pace.steps(one, other, 10, 20, None))
        assert found == sorted(set(found))
        assert all(point.startswith("p/") and other < point for point in found)


def test_what_is_not_there_is_counted_on_less() -> None:
    pace = Pace("p/")
    for _ in range(20):
        pace.meets(is_there=True)
    most = pace.trust
    assert most > LEAST_TRUST
    pace.meets(is_there=False)
    assert LEAST_TRUST <= pace.trust < most


@pytest.mark.parametrize("name", [numbered, of_uuids, of_days])
def test_no_range_is_much_longer_than_others_and_requests_are_few(
    name: Callable[[int], str],
) -> None:
    bucket = Bucket([name(number) for number in range(PAGES * PAGE)])
    listing = listed_in_ranges(bucket.read, "p/", Far(Nearby(bucket, 0), together))
    assert len(list(single(listing))) == PAGES * PAGE
    ((_, longest),) = Counter(bucket.requests).most_common(1)
    assert longest < 4 * PAGES_APART
    assert len(bucket.requests) < 1.3 * PAGES
