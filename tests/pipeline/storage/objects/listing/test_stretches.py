"""Parts of a long listing that others list: all of it, and no more at a time than is good."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.contract.errors import CredentialsError
from pipeline.storage.objects.listing import ranges
from pipeline.storage.objects.listing.ranges import listed_in_ranges
from pipeline.storage.objects.listing.stretches import PAGES_TOGETHER, Far, KeyPage
from tests.support.inputs.listing import PAGE, Bucket, Nearby, single, together, wait_for_rest


def test_others_take_nearly_all_of_it() -> None:
    bucket = Bucket([f"p/image-{number:07d}.jpg" for number in range(30_000)])
    helpers = Nearby(bucket, ready_after=0)
    listing = listed_in_ranges(bucket.read, "p/", Far(helpers, together))
    found = list(listing)
    alone = sum(isinstance(one, str) for one in found)
    assert alone < 30_000 / 20
    assert helpers.calls < 30_000 / PAGE / PAGES_TOGETHER * 1.5
    assert len(bucket.requests) < 30_000 / PAGE * 1.5


def test_an_error_of_others_comes_after_what_was_listed_before() -> None:
    bucket = Bucket([f"p/image-{number:07d}.jpg" for number in range(1000)])

    def read(after: str, token: str | None) -> KeyPage[str]:
        page = bucket.read(after, token)
        if page.keys and page.keys[-1] > "p/image-0000950":
            raise PermissionError("no more")
        return page

    found: list[str] = []
    listing = listed_in_ranges(read, "p/", Far(Nearby(bucket, 0), together))
    with pytest.raises(PermissionError, match="no more"):
        found.extend(single(listing))
    assert found == [f"<{key}>" for key in bucket.keys[: len(found)]]
    assert found


@dataclass
class Unlucky(Nearby):
    """Every third call is refused, as by a host of its own."""

    refusal: Exception = field(default_factory=OSError)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def call(self, function: Callable[[], Any]) -> Any:
        if next(self._numbers) % 3 == 2:
            raise self.refusal
        return super().call(function)


@pytest.mark.parametrize(
    "refusal", [OSError("no route"), PermissionError("who?"), CredentialsError("expired")]
)
def test_what_others_fail_to_list_is_listed_here(
    refusal: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = Bucket([f"p/image-{number:07d}.jpg" for number in range(3000)])
    helpers = Unlucky(bucket, 0, refusal=refusal)
    listing = listed_in_ranges(bucket.read, "p/", Far(helpers, together))
    assert list(single(listing)) == [f"<{key}>" for key in bucket.keys]
    assert helpers.calls > 5
    assert [record.args for record in caplog.records] == [(str(refusal),)]


def test_nothing_is_listed_here_for_others_that_are_over() -> None:
    bucket = Bucket([f"p/image-{number:07d}.jpg" for number in range(3000)])
    helpers = Unlucky(bucket, 0, refusal=RuntimeError("over"))
    listing = listed_in_ranges(bucket.read, "p/", Far(helpers, together))
    with pytest.raises(RuntimeError, match="over"):
        list(listing)


@dataclass
class Counting(Nearby):
    """Who know how many of them are asked at a time."""

    most: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, function: Callable[[], Any]) -> Any:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.002)
        found = super().call(function)
        with self._lock:
            self._now -= 1
        return found


def test_no_more_are_asked_at_a_time_than_there_are() -> None:
    bucket = Bucket([f"p/image-{number:07d}.jpg" for number in range(10_000)])
    helpers = Counting(bucket, ready_after=20, at_once=3)
    listing = listed_in_ranges(bucket.read, "p/", Far(helpers, together))
    assert len(list(single(listing))) == 10_000
    assert 2 <= helpers.most <= 3


def test_a_key_that_is_removed_meanwhile_is_not_sought_to_the_end() -> None:
    bucket = Bucket([f"p/image-{number:07d}.jpg" for number in range(10_000)])
    far = Far(Nearby(bucket, 0), together)
    (stretch,) = far.read(bucket.read, "p/", None, None)
    assert stretch.before("p/image-0000500.jpg") is None
    gone = [bucket.keys.pop(42), bucket.keys.pop(20)]
    bucket.requests.clear()
    assert stretch.before(gone[0]) == [f"<{key}>" for key in bucket.keys[:41]]
    assert len(bucket.requests) <= 2 * PAGES_TOGETHER


def test_memory_holds_few_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are being listed among them."""
    monkeypatch.setattr(ranges, "STRETCHES_HELD", 1)
    bucket = Bucket([f"p/image-{number:07d}.jpg" for number in range(10_000)])
    listing = listed_in_ranges(bucket.read, "p/", Far(Nearby(bucket, 0, at_once=2), together))
    names = single(listing)
    for _ in range(PAGE):
        next(names)
    wait_for_rest(bucket)
    assert len(bucket.requests) <= (5 + 2) * PAGES_TOGETHER + 1
    assert len(list(names)) == 10_000 - PAGE
