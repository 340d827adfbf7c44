"""Fetching single images: one item each, in order, within the window, whatever the storage says."""

import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import aiohttp
import pyarrow as pa
import pytest

import pipeline.fetch
from pipeline.errors import ERROR_CODES
from pipeline.fetch import fetch_items, read_bytes
from pipeline.item import Item
from pipeline.schema import WORK

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
    monkeypatch.setattr(pipeline.fetch, "_open_file", None)
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

        def open_file(protocol: str, path: str, buffer_size: int | None) -> File:
            state["times"] += 1
            return File(b"bytes")

        monkeypatch.setattr(pipeline.fetch, "_open_file", open_file)
        monkeypatch.setattr(pipeline.fetch, "RETRY_PAUSES_SECONDS", (0, 0))
        return state

    def test_two_failures_are_forgiven(self, opened: dict[str, Any]) -> None:
        opened["errors"] = [OSError("reset"), TimeoutError("timed out")]
        assert read_bytes("x") == b"bytes"
        assert opened["times"] == 3

    @pytest.mark.parametrize(
        ("error", "expected", "times"),
        [
            (OSError("AWS Error SLOW_DOWN during GetObject: less,\nplease"), "storage_error", 3),
            (OSError("AWS Error NETWORK_CONNECTION: 28, Timeout was reached"), "timeout", 3),
            (TimeoutError("timed out"), "timeout", 3),
            (OSError("AWS Error ACCESS_DENIED during HeadObject operation"), "access_denied", 1),
            (PermissionError("no"), "access_denied", 1),
            (FileNotFoundError("no"), "not_found", 1),
            (ConnectionResetError("reset by peer"), "storage_error", 3),
            (aiohttp.ClientPayloadError("not completed"), "storage_error", 3),
            (ZeroDivisionError("some filesystem's bug"), "storage_error", 3),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
    )  # fmt: skip
    def test_stubborn_failures_become_the_row(
        self, opened: dict[str, Any], error: Exception, expected: str, times: int
    ) -> None:
        opened["errors"] = [error] * 9
        (item,) = fetch("x")
        assert code(item) == expected
        assert opened["times"] == times

    @pytest.mark.parametrize(
        "error",
        [
            OSError("AWS Error NETWORK_CONNECTION: curlCode: 7, Could not connect to server"),
            OSError("AWS Error NETWORK_CONNECTION: curlCode: 6, Couldn't resolve host name"),
            ConnectionError('Could not connect to the endpoint URL: "http://127.0.0.1:9/"'),
            ConnectionRefusedError(111, "Connect call failed"),
        ],
        ids=["curl-7", "curl-6", "botocore", "refused"],
    )
    def test_a_server_that_is_away_is_waited_for(
        self, opened: dict[str, Any], error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pipeline.fetch, "OUTAGE_PAUSE_SECONDS", 0)
        opened["errors"] = [error] * 50
        assert read_bytes("x") == b"bytes"
        monkeypatch.setattr(pipeline.fetch, "OUTAGE_SECONDS", 0)
        opened["errors"] = [error] * 50
        (item,) = fetch("x")
        assert code(item) == "storage_error"


class TestWindow:
    """What is read ahead: counted from the moment of reading until the item is handed out."""

    @pytest.fixture
    def storage(self, monkeypatch: pytest.MonkeyPatch) -> Iterator["Storage"]:
        storage = Storage()
        monkeypatch.setattr(pipeline.fetch, "read_bytes", storage.read)
        yield storage
        storage.gate.set()

    def test_images_are_bounded_and_read_in_parallel(self, storage: "Storage") -> None:
        images = pipeline.fetch.WINDOW_IMAGES
        storage.gate.clear()  # no read ends
        items = fetch_items(work(*({"uri": f"{n}/1"} for n in range(10 * images))), MIB)
        consumer = threading.Thread(target=next, args=(items,))
        consumer.start()
        storage.wait_until(lambda: storage.reading == images)
        time.sleep(0.1)
        assert storage.reading == images
        storage.gate.set()
        consumer.join()
        storage.handed_out = 1
        for _ in items:
            storage.handed_out += 1
        assert storage.handed_out == 10 * images
        assert storage.most_images <= images + 1

    def test_bytes_are_bounded(self, storage: "Storage") -> None:
        size = pipeline.fetch.WINDOW_BYTES // 4
        rows = ({"uri": f"{n}/{size}", "size_bytes": size} for n in range(40))
        for item in fetch_items(work(*rows), 2 * size):
            storage.handed_out += 1
            storage.handed_out_bytes += item.size_bytes or 0
        assert storage.handed_out == 40
        # The four of the window, and the one that is being handed out.
        assert storage.most_bytes <= 5 * size

    def test_image_larger_than_the_window_goes_alone(self, storage: "Storage") -> None:
        size = pipeline.fetch.WINDOW_BYTES + 1
        rows = ({"uri": f"{n}/{size}", "size_bytes": size} for n in range(3))
        for item in fetch_items(work(*rows), 2 * size):
            storage.handed_out += 1
            storage.handed_out_bytes += item.size_bytes or 0
        assert storage.handed_out == 3
        assert storage.most_bytes <= 2 * size

    def test_order_is_kept_when_late_reads_end_first(self, storage: "Storage") -> None:
        storage.delay = lambda number: 0.03 if number % 7 == 0 else 0.0
        uris = [f"{n}/1" for n in range(100)]
        assert [i.uri for i in fetch_items(work(*({"uri": u} for u in uris)), MIB)] == uris

    def test_consumer_that_leaves_ends_the_reading(self, storage: "Storage") -> None:
        items = fetch_items(work(*({"uri": f"{n}/1"} for n in range(1000))), MIB)
        next(items)
        items.close()  # type: ignore[attr-defined]
        assert storage.begun <= 2 * pipeline.fetch.WINDOW_IMAGES


class Storage:
    """Reads of "number/size": how many images and bytes are held at a time, by its own count."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.delay: Callable[[int], float] = lambda number: 0.0
        self.begun = self.reading = self.begun_bytes = 0
        self.handed_out = self.handed_out_bytes = 0
        self.most_images = self.most_bytes = 0
        self._lock = threading.Lock()

    def read(self, uri: str, *_: object) -> "Sized":
        number, size = map(int, uri.split("/"))
        with self._lock:
            self.begun += 1
            self.reading += 1
            self.begun_bytes += size
            self.most_images = max(self.most_images, self.begun - self.handed_out)
            self.most_bytes = max(self.most_bytes, self.begun_bytes - self.handed_out_bytes)
        self.gate.wait(10)
        time.sleep(self.delay(number))
        with self._lock:
            self.reading -= 1
        return Sized(size)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        give_up = time.monotonic() + 10
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
    open_file = pipeline.fetch._open_file

    def keep(protocol: str, path: str, buffer_size: int | None) -> IO[bytes]:
        files.append(open_file(protocol, path, buffer_size))
        return files[-1]

    monkeypatch.setattr(pipeline.fetch, "_open_file", keep)
    fetch(*[tmp_path / "x.jpg"] * 20)
    assert len(files) == 20
    assert all(file.closed for file in files)
