"""Fetching single images: one item each, in order, within the window, whatever the storage says."""

import io
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import aiohttp
import pyarrow as pa
import pytest

import pipeline.sources.fetch
import pipeline.storage.retry
from pipeline.contract.errors import ERROR_CODES, UsageError
from pipeline.contract.schema import WORK
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item
from pipeline.storage.read_ahead import THREADS, WINDOW_BYTES, Hold, iterate_ahead
from pipeline.storage.retry import DENIED_TRIES, HOPELESS_DENIALS, TRIES, PassingError, Patience

MIB = 2**20


def work(*rows: dict[str, Any]) -> pa.Table:
    defaults = {"kind": "image", "source_version": "v", "size_bytes": 1, "_done": None}
    return pa.Table.from_pylist([defaults | row for row in rows], schema=WORK)


def fetch(*uris: str | Path, max_bytes: int = MIB, **row: Any) -> list[Item]:
    table = work(*({"uri": str(uri), **row} for uri in uris))
    return list(fetch_items(table, max_bytes))


def code(item: Item) -> str | None:
    """The item's error code; a code comes with a printable line and without bytes."""
    if item.error is None:
        assert item.data is not None
        return None
    assert item.data is None
    assert item.error.code in ERROR_CODES
    assert str(item.error).isprintable()
    return item.error.code


def test_items_hold_bytes_and_what_the_listing_said(tmp_path: Path) -> None:
    (tmp_path / "ü #1.jpg").write_bytes(b"bytes")
    (tmp_path / "empty.jpg").write_bytes(b"")
    first, second = fetch(tmp_path / "ü #1.jpg", tmp_path / "empty.jpg", source_version="7")
    assert first == Item(
        uri=f"{tmp_path}/ü #1.jpg", source_version="7", size_bytes=5, data=b"bytes"
    )
    assert (second.data, second.size_bytes) == (b"", 0)


def test_no_rows_no_items() -> None:
    assert list(fetch_items(WORK.empty_table(), MIB)) == []


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "not_found"),
        (lambda path: path.mkdir(), "not_found"),
        (lambda path: path.symlink_to("gone.jpg"), "not_found"),
        (lambda path: path.write_bytes(b"12345678"), None),
        (lambda path: path.write_bytes(b"123456789"), "too_large"),
    ],
    ids=["gone", "directory", "dangling", "as large as allowed", "grown too large"],
)
def test_what_became_of_a_file_since_the_listing(
    tmp_path: Path, make: Callable[[Path], object], expected: str | None
) -> None:
    make(tmp_path / "x.jpg")
    (item,) = fetch(tmp_path / "x.jpg", max_bytes=8)
    assert code(item) == expected


def test_file_in_the_place_of_a_directory_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"")
    (item,) = fetch(tmp_path / "d/x.jpg")
    assert code(item) == "not_found"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file_is_access_denied(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"")
    (tmp_path / "x.jpg").chmod(0)
    (item,) = fetch(tmp_path / "x.jpg")
    assert code(item) == "access_denied"


def test_file_listed_as_too_large_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.sources.fetch, "_open", None)
    (item,) = fetch(tmp_path / "x.jpg", size_bytes=MIB + 1)
    assert code(item) == "too_large"
    assert item.size_bytes == MIB + 1
    assert "--max-bytes" in str(item.error)


class TestRetries:
    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """A storage that fails with `errors`, one after the other, and then works."""
        state: dict[str, Any] = {"errors": [], "times": 0}

        class File(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if state["errors"]:
                    raise state["errors"].pop(0)
                return super().read(size)

        def open_file(protocol: str, path: str, **_: Any) -> File:
            state["times"] += 1
            return File(b"bytes")

        monkeypatch.setattr(pipeline.sources.fetch, "_open", open_file)
        monkeypatch.setattr(pipeline.storage.retry, "BACKOFF_SECONDS", 0)
        Patience.succeed()
        return state

    def test_passing_failures_are_forgiven(self, opened: dict[str, Any]) -> None:
        errors = [OSError("reset"), TimeoutError("timed out"), PermissionError(), OSError()]
        opened["errors"] = errors.copy()
        (item,) = fetch("x")
        assert item.data == b"bytes"
        assert opened["times"] == 1 + len(errors)

    @pytest.mark.parametrize(
        ("error", "expected", "times"),
        [
            (OSError(5, "Input/output error"), "storage_error", TRIES),
            (ConnectionResetError("reset by peer"), "storage_error", TRIES),
            (aiohttp.ClientPayloadError("not completed"), "storage_error", TRIES),
            (ZeroDivisionError("some filesystem's bug"), "storage_error", TRIES),
            (TimeoutError("timed out"), "timeout", TRIES),
            (PermissionError("no"), "access_denied", DENIED_TRIES),
            (FileNotFoundError("no"), "not_found", 1),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
    )  # fmt: skip
    def test_stubborn_failures_become_the_row(
        self, opened: dict[str, Any], error: Exception, expected: str, times: int
    ) -> None:
        opened["errors"] = [error] * 99
        (item,) = fetch("x")
        assert code(item) == expected
        assert opened["times"] == times

    @pytest.mark.parametrize(
        "error",
        [
            OSError("Couldn't resolve host name"),
            ConnectionError('Could not connect to the endpoint URL: "http://127.0.0.1:9/"'),
            ConnectionRefusedError(111, "Connect call failed"),
            OSError(16, "Please reduce your request rate."),
        ],
        ids=["resolve", "botocore", "refused", "busy"],
    )
    def test_a_server_that_is_away_or_busy_is_waited_for(
        self, opened: dict[str, Any], error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened["errors"] = [error] * 50
        (item,) = fetch("x")
        assert item.data == b"bytes"
        monkeypatch.setattr(pipeline.storage.retry, "AWAY_SECONDS", 0)
        opened["errors"] = [error] * 50
        (item,) = fetch("x")
        assert code(item) == "storage_error"

    def test_where_all_is_denied_nothing_is_tried_again(self, opened: dict[str, Any]) -> None:
        for number in range(HOPELESS_DENIALS + 10):
            opened["errors"], opened["times"] = [PermissionError("no")] * 9, 0
            assert code(fetch("x")[0]) == "access_denied"
            assert opened["times"] == (DENIED_TRIES if number < HOPELESS_DENIALS else 1)
        opened["errors"] = []
        assert fetch("x")[0].data == b"bytes"
        opened["errors"] = [PermissionError("busy, in disguise")]
        assert fetch("x")[0].data == b"bytes"

    def test_pauses_grow_and_are_spread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[float] = []
        monkeypatch.setattr("pipeline.storage.retry.time.sleep", made.append)
        for _ in range(20):
            patience = Patience()
            for _ in range(12):
                patience.pause(PassingError("storage_error", "busy", is_busy=True))
        base, longest = (
            pipeline.storage.retry.BACKOFF_SECONDS,
            pipeline.storage.retry.LONGEST_PAUSE_SECONDS,
        )
        for number, pause in enumerate(made):
            most = min(base * 2 ** (number % 12), longest)
            assert most / 2 <= pause <= most
        assert len(set(made)) == len(made)


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
        items = fetch_items(work(*({"uri": f"{n}/1"} for n in range(10 * THREADS))), MIB)
        consumer = threading.Thread(target=next, args=(items,))
        consumer.start()
        storage.wait_until(lambda: storage.reading == THREADS)
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
            {"uri": f"{n}/{size}", "size_bytes": size if is_known else None}
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
        rows = ({"uri": f"{n}/{size}", "size_bytes": size} for n in range(3))
        for item in fetch_items(work(*rows), 2 * size):
            storage.handed_out_bytes += item.size_bytes or 0
        assert storage.begun_bytes == 3 * size
        assert storage.most_bytes <= 2 * size

    def test_latency_hides_behind_the_consumer(self, storage: "Storage") -> None:
        """50 ms of it, and a consumer of 4 ms an image: sleeps, of which no busy machine makes
        less. One after the other they would take 13 times as long as without latency."""

        def seconds(latency: float) -> float:
            storage.delay = lambda number: latency
            started = time.monotonic()
            for _ in fetch_items(work(*({"uri": f"{n}/1"} for n in range(256))), MIB):
                time.sleep(0.004)
            return time.monotonic() - started

        assert seconds(0.05) < 1.2 * seconds(0)

    def test_order_is_kept_when_late_reads_end_first(self, storage: "Storage") -> None:
        storage.delay = lambda number: 0.03 if number % 7 == 0 else 0.0
        uris = [f"{n}/1" for n in range(100)]
        assert [i.uri for i in fetch_items(work(*({"uri": u} for u in uris)), MIB)] == uris

    def test_consumer_that_leaves_ends_the_reading(self, storage: "Storage") -> None:
        size = WINDOW_BYTES // 2
        items = fetch_items(work(*({"uri": f"{n}/{size}"} for n in range(1000))), 2**30)
        next(items)
        items.close()  # type: ignore[attr-defined]
        assert storage.begun <= 3


def test_shard_is_read_ahead_in_bounds() -> None:
    """The members of a shard, read by a thread while the consumer decodes."""
    read = itertools.count()

    def members() -> Iterator[Item]:
        for number in range(100):
            next(read)
            data = Sized(WINDOW_BYTES // 8)
            yield Item(uri=str(number), source_version=None, size_bytes=len(data), data=data)

    items = iterate_ahead(members(), Item.held)
    for number in range(10):
        assert next(items).uri == str(number)
        time.sleep(0.02)
        begun = int(repr(read)[6:-1])
        assert number + 8 <= begun <= number + 10
    items.close()  # type: ignore[attr-defined]
    assert int(repr(read)[6:-1]) <= 20


def test_shard_whose_reading_breaks_tells_its_consumer() -> None:
    def members() -> Iterator[Item]:
        yield Item(uri="a", source_version=None, size_bytes=1, data=b"a")
        raise UsageError("no credentials")

    items = iterate_ahead(members(), Item.held)
    assert next(items).uri == "a"
    with pytest.raises(UsageError, match="no credentials"):
        next(items)


class Storage:
    """Reads of "number/size": how many bytes are held at a time, by its own count."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.delay: Callable[[int], float] = lambda number: 0.0
        self.begun = self.reading = self.begun_bytes = 0
        self.handed_out_bytes = self.most_bytes = 0
        self._lock = threading.Lock()

    def read(self, uri: str, max_bytes: int, hold: Hold) -> "Sized":
        number, size = map(int, uri.split("/"))
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

    def wait_until(self, condition: Callable[[], bool]) -> None:
        give_up = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < give_up
            time.sleep(0.01)


class Sized(bytes):
    """Bytes that claim a length without taking the memory."""

    def __new__(cls, size: int) -> "Sized":
        made = super().__new__(cls)
        made.size = size
        return made

    size: int

    def __len__(self) -> int:
        return self.size


def test_files_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ResourceWarnings are errors here; this one counts what is open, too."""
    (tmp_path / "x.jpg").write_bytes(b"x")
    files: list[IO[bytes]] = []
    open_file = pipeline.storage.files._open

    def keep(*arguments: Any, **options: Any) -> IO[bytes]:
        files.append(open_file(*arguments, **options))
        return files[-1]

    monkeypatch.setattr(pipeline.sources.fetch, "_open", keep)
    fetch(*[tmp_path / "x.jpg"] * 20)
    assert len(files) == 20
    assert all(file.closed for file in files)
