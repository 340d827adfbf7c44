"""Reading ahead: order, bounds, errors, and a consumer that leaves."""

import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.storage.read_ahead import Ahead

LONG = 60.0


def wait_for(condition: threading.Event) -> None:
    assert condition.wait(LONG)


def test_items_come_in_order_and_all() -> None:
    with Ahead(range(1000), limit=3) as ahead:
        assert list(ahead) == list(range(1000))
        assert list(ahead) == []


def test_it_reads_ahead_up_to_the_limit() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    with Ahead(source(), limit=3) as ahead:
        ahead.settle(LONG)
        time.sleep(0.2)
        assert taken == [0, 1, 2, 3]  # three wait, and one is held by the thread
        assert list(ahead) == list(range(10))


def test_settling_waits_for_the_end_and_no_longer_than_asked() -> None:
    go_on = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        wait_for(go_on)
        yield 2

    with Ahead(source(), limit=10) as ahead:
        ahead.settle(0.05)
        items = iter(ahead)
        assert next(items) == 1
        had_more = ahead.has_more
        go_on.set()
        ahead.settle(LONG)
        assert (had_more, ahead.has_more) == (False, True)
        assert list(items) == [2]
        assert ahead.has_more  # which is the end


def test_an_error_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with Ahead(source(), limit=10) as ahead:
        with pytest.raises(ValueError, match="broken"):
            ahead.settle(LONG)
        items = iter(ahead)
        assert next(items) == 1
        with pytest.raises(ValueError, match="broken"):
            next(items)


def test_nothing_is_taken_after_the_consumer_has_left() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    with Ahead(source(), limit=2) as ahead:
        ahead.settle(LONG)
    ahead._thread.join(LONG)
    assert not ahead._thread.is_alive()
    assert len(taken) <= 4
