"""Reading ahead: order, bounds, errors, and a consumer that leaves."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

import pipeline.sources.fetch
import pipeline.storage.retry
from pipeline.contract.errors import UsageError
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item
from pipeline.storage.read_ahead import (
    SLOW_SECONDS,
    THREADS,
    WINDOW_BYTES,
    Ahead,
    Hold,
    iterate_ahead,
    read_ahead_if_slow,
    read_all_ahead,
)
from tests.support.inputs.fetching import MIB, work

LONG = 60.0


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


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
        wait_until(lambda: len(taken) == 4)
        time.sleep(0.2)
        assert taken == [0, 1, 2, 3]  # three wait, and one is held by the thread
        assert list(ahead) == list(range(10))


def test_settling_waits_for_the_end_and_no_longer_than_asked() -> None:
    go_on = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        wait_until(go_on.is_set)
        yield 2

    with Ahead(source(), limit=10) as ahead:
        ahead.wait_for_end(0.05)
        items = iter(ahead)
        assert next(items) == 1
        had_more = ahead.is_ready
        go_on.set()
        ahead.wait_for_end(LONG)
        assert (had_more, ahead.is_ready) == (False, True)
        assert list(items) == [2]
        assert ahead.is_ready  # which is the end


def test_an_error_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with Ahead(source(), limit=10) as ahead:
        with pytest.raises(ValueError, match="broken"):
            ahead.wait_for_end(LONG)
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
        ahead.wait_for_end(LONG)
    ahead._thread.join(LONG)
    assert not ahead._thread.is_alive()
    assert len(taken) <= 4


def test_what_the_source_holds_is_let_go_when_the_consumer_has_left() -> None:
    """Even if somebody keeps both, as a traceback does."""
    let_go = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            let_go.set()

    numbers = source()
    with Ahead(numbers, limit=2) as ahead:
        assert next(iter(ahead)) == 0
    wait_until(let_go.is_set)


class TestWindow:
    """What is read ahead: counted from the moment of reading until the item is handed out."""

    @pytest.fixture
    def storage(self, monkeypatch: pytest.MonkeyPatch) -> Iterator["Storage"]:
        storage = Storage()
        monkeypatch.setattr(pipeline.sources.fetch, "read_bytes", storage.read)
        yield storage
        storage.gate.set()

    def test_images_are_read_in_parallel(self, storage: "Storage") -> None:
        storage.gate.clear()  # no read ends
        items = fetch_items(work(*({"uri": f"s3://{n}/1"} for n in range(10 * THREADS))), MIB)
        consumer = threading.Thread(target=next, args=(items,))
        consumer.start()
        wait_until(lambda: storage.reading == THREADS)
        time.sleep(0.1)
        assert storage.reading == THREADS
        storage.gate.set()
        consumer.join()
        assert 1 + len(list(items)) == 10 * THREADS

    @pytest.mark.parametrize("is_known", [True, False])
    def test_bytes_are_bounded_whether_the_listing_knows_them_or_not(
        self, storage: "Storage", is_known: bool
    ) -> None:
        """Ten of 50 MB, and some small ones between them."""
        sizes = [50_000_000, 10, 1000] * 10
        rows = (
            {"uri": f"s3://{n}/{size}", "size_bytes": size if is_known else None}
            for n, size in enumerate(sizes)
        )
        for number, item in enumerate(fetch_items(work(*rows), 2**30)):
            assert item.size_bytes == sizes[number]
            storage.handed_out_bytes += sizes[number]
            time.sleep(0.001)
        assert storage.begun_bytes == sum(sizes)
        # Beside the window: the one whose turn it is, and the one that is being handed out.
        assert storage.most_bytes <= WINDOW_BYTES + 2 * max(sizes)

    def test_image_larger_than_the_window_goes_alone(self, storage: "Storage") -> None:
        size = WINDOW_BYTES + 1
        rows = ({"uri": f"s3://{n}/{size}", "size_bytes": size} for n in range(3))
        for item in fetch_items(work(*rows), 2 * size):
            storage.handed_out_bytes += item.size_bytes or 0
        assert storage.begun_bytes == 3 * size
        assert storage.most_bytes <= 2 * size

    def test_latency_hides_behind_the_consumer(self, storage: "Storage") -> None:
        """50 ms of it, and a consumer of 4 ms an image: sleeps, of which no busy machine makes
        less. One after the other they would take 13 times as long as without latency; what else
        the machine does may cost some tries."""

        def seconds(latency: float) -> float:
            storage.delay = lambda number: latency
            started = time.monotonic()
            for _ in fetch_items(work(*({"uri": f"s3://{n}/1"} for n in range(256))), MIB):
                time.sleep(0.004)
            return time.monotonic() - started

        assert any(seconds(0.05) < 1.2 * seconds(0) for _ in range(20))

    def test_order_is_kept_when_late_reads_end_first(self, storage: "Storage") -> None:
        storage.delay = lambda number: 0.03 if number % 7 == 0 else 0.0
        uris = [f"s3://{n}/1" for n in range(100)]
        assert [i.uri for i in fetch_items(work(*({"uri": u} for u in uris)), MIB)] == uris

    def test_consumer_that_leaves_ends_the_reading(self, storage: "Storage") -> None:
        size = WINDOW_BYTES // 2
        items = fetch_items(work(*({"uri": f"s3://{n}/{size}"} for n in range(1000))), 2**30)
        next(items)
        items.close()  # type: ignore[attr-defined]
        assert storage.begun <= 3


def test_a_read_that_breaks_tells_its_consumer_in_its_turn() -> None:
    def read(number: int, hold: Hold) -> int:
        if number == 3:
            raise ValueError("broken")
        return number

    numbers = read_all_ahead([partial(read, number) for number in range(10)])
    assert list(itertools.islice(numbers, 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(numbers)


def test_files_are_read_by_their_consumer_until_one_of_them_is_slow() -> None:
    readers: list[int] = []

    def read(number: int, hold: Hold) -> int:
        readers.append(threading.get_ident())
        hold(1)
        time.sleep(2 * SLOW_SECONDS if number == 9 else 0)
        return number

    numbers = read_ahead_if_slow([partial(read, number) for number in range(30)])
    assert next(numbers) == 0
    assert len(readers) == 1
    assert list(numbers) == list(range(1, 30))
    assert threading.get_ident() not in readers[10:]


def test_shard_is_read_ahead_in_bounds() -> None:
    """The members of a shard, read by a thread while the consumer decodes."""
    begun: list[int] = []

    def members() -> Iterator[Item]:
        for number in range(100):
            begun.append(number)
            data = Sized(WINDOW_BYTES // 8)
            yield Item(uri=str(number), source_version=None, size_bytes=len(data), data=data)

    def have_begun(count: int) -> bool:
        return len(begun) >= count

    items = iterate_ahead(members(), Item.held)
    for number in range(10):
        assert next(items).uri == str(number)
        wait_until(partial(have_begun, number + 8))
        time.sleep(0.02)
        assert len(begun) <= number + 10
    items.close()  # type: ignore[attr-defined]
    assert len(begun) <= 20


def test_shard_whose_reading_breaks_tells_its_consumer() -> None:
    def members() -> Iterator[Item]:
        yield Item(uri="a", source_version=None, size_bytes=1, data=b"a")
        raise UsageError("no credentials")

    items = iterate_ahead(members(), Item.held)
    assert next(items).uri == "a"
    with pytest.raises(UsageError, match="no credentials"):
        next(items)


class Storage:
    """Reads of "s3://number/size": how many bytes are held at a time, by its own count."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.delay: Callable[[int], float] = lambda number: 0.0
        self.begun = self.reading = self.begun_bytes = 0
        self.handed_out_bytes = self.most_bytes = 0
        self._lock = threading.Lock()

    def read(self, uri: str, max_bytes: int, hold: Hold) -> "Sized":
        number, size = map(int, uri.split("/")[-2:])
        hold(size)
        with self._lock:
            self.begun += 1
            self.reading += 1
            self.begun_bytes += size
            self.most_bytes = max(self.most_bytes, self.begun_bytes - self.handed_out_bytes)
        self.gate.wait(60)
        time.sleep(self.delay(number))
        with self._lock:
            self.reading -= 1
        return Sized(size)


class Sized(bytes):
    """Bytes that claim a length without taking the memory."""

    def __new__(cls, size: int) -> "Sized":
        made = super().__new__(cls)
        made.size = size
        return made

    size: int

    def __len__(self) -> int:
        return self.size
