"""Fetching single images: one item each, in order, whatever became of them since the listing."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

import pipeline.sources.fetch
import pipeline.storage.files
import pipeline.storage.retry
from pipeline.contract.errors import CredentialsError, RunError
from pipeline.contract.schema import WORK
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item
from tests.support.inputs.fetching import MIB, code, fetch, work
from tests.support.inputs.raised import RAISED, name
from tests.support.inputs.tars import tar_bytes


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
    monkeypatch.setattr(pipeline.storage.files, "_open", None)
    (item,) = fetch(tmp_path / "x.jpg", size_bytes=MIB + 1)
    assert code(item) == "too_large"
    assert item.size_bytes == MIB + 1
    assert "--max-bytes" in str(item.error)


def test_files_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ResourceWarnings are errors here; this one counts what is open, too."""
    (tmp_path / "x.jpg").write_bytes(b"x")
    files: list[IO[bytes]] = []
    open_file = pipeline.storage.files._open

    def keep(*arguments: Any, **options: Any) -> IO[bytes]:
        files.append(open_file(*arguments, **options))
        return files[-1]

    monkeypatch.setattr(pipeline.storage.files, "_open", keep)
    fetch(*[tmp_path / "x.jpg"] * 20)
    assert len(files) == 20
    assert all(file.closed for file in files)


class TestWhateverIsRaised:
    """In one image, it is that image's row."""

    @pytest.fixture(autouse=True)
    def no_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline.storage.retry, "BACKOFF_SECONDS", 0)

    def spoil(self, monkeypatch: pytest.MonkeyPatch, spoiled: str, error: BaseException) -> None:
        """Let reading the files of a name fail."""
        open_file = pipeline.storage.files._open

        def open_or_raise(protocol: str, path: str, **options: Any) -> Any:
            if path.endswith(spoiled):
                raise error
            return open_file(protocol, path, **options)

        monkeypatch.setattr(pipeline.storage.files, "_open", open_or_raise)

    @pytest.mark.parametrize("error", RAISED, ids=name)
    def test_becomes_the_row_of_an_image(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        for number in range(3):
            (tmp_path / f"{number}.jpg").write_bytes(b"x")
        self.spoil(monkeypatch, "1.jpg", error)
        items = fetch(*(tmp_path / f"{number}.jpg" for number in range(3)))
        assert [code(item) for item in items] == [None, "storage_error", None]

    @pytest.mark.parametrize("error", RAISED, ids=name)
    @pytest.mark.parametrize("kind", ["webdataset", "parquet"])
    def test_becomes_the_row_of_a_shard(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, kind: str
    ) -> None:
        (tmp_path / "x").write_bytes(tar_bytes({"a.jpg": b"a"}))
        self.spoil(monkeypatch, "x", error)
        (item,) = fetch(tmp_path / "x", kind=kind)
        assert (item.uri, code(item)) == (str(tmp_path / "x"), "storage_error")
        assert item.shard_rows == 1

    @pytest.mark.parametrize("error", [RunError("ours"), CredentialsError("bad"), SystemExit()])
    def test_ends_the_run_where_no_image_is_to_blame(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        self.spoil(monkeypatch, ".jpg", error)
        with pytest.raises(type(error)):
            fetch(tmp_path / "x.jpg")


class TestSpecialFiles:
    """Opening some waits for ever, reading others never ends, and none is an image."""

    @pytest.mark.parametrize(
        "path", ["/dev/zero", "/dev/urandom", "/dev/tty", "/proc/self/environ", "/sys/kernel/notes",
                 "/proc/self/fd/0", "/proc/self/root/proc/self/status"]
    )  # fmt: skip
    @pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="of Linux")
    def test_of_the_system_are_not_read(self, path: str) -> None:
        (item,) = fetch(path, size_bytes=0)
        assert code(item) in ("url_refused", "not_found")

    @pytest.mark.parametrize("kind", ["image", "webdataset", "parquet"])
    def test_pipes_and_sockets_are_not_opened(self, tmp_path: Path, kind: str) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to("pipe")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "socket"))
            for special in ("pipe", "link", "socket"):
                (item,) = fetch(tmp_path / special, kind=kind)
                assert code(item) == "url_refused"

    def test_a_file_that_becomes_a_pipe_is_not_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "x.jpg").write_bytes(b"x")
        os.mkfifo(tmp_path / "pipe")
        look = os.stat

        def look_and_replace(path: Any, **options: Any) -> os.stat_result:
            status = look(path, **options)
            if str(path).endswith("x.jpg"):
                os.replace(tmp_path / "pipe", path)
            return status

        monkeypatch.setattr("pipeline.storage.filesystems.os.stat", look_and_replace)
        assert code(fetch(tmp_path / "x.jpg")[0]) == "url_refused"


@pytest.mark.parametrize("path", ["/tmp/a\0b.jpg", "/tmp/" + "n" * 300, "/tmp/\\ud800.jpg"])
def test_names_that_no_file_can_have(path: str) -> None:
    assert code(fetch(path)[0]) == "not_found"


@pytest.mark.parametrize(("length", "expected"), [(100, None), (MIB, None), (MIB + 1, "too_large")])
def test_a_file_that_is_larger_than_it_seems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, expected: str | None
) -> None:
    """It grows while it is read, or its filesystem does not know."""
    (tmp_path / "x.jpg").write_bytes(bytes(length))
    monkeypatch.setattr(pipeline.storage.files, "_size", lambda file: 10)
    (item,) = fetch(tmp_path / "x.jpg", max_bytes=MIB)
    assert code(item) == expected
    assert expected or item.data == bytes(length)


@pytest.mark.parametrize(
    ("uri", "is_local"),
    [
        ("photos/a.jpg", True),
        ("/photos/a.jpg", True),
        ("s3://bucket/a.jpg", False),
        ("https://example.com/a.jpg", False),
    ],
)
def test_files_of_this_machine_are_known_by_their_names(
    uri: str, is_local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()

    def read(*args: object, **options: object) -> bytes:
        threads.add(threading.get_ident())
        return b""

    monkeypatch.setattr(pipeline.sources.fetch, "read_bytes", read)
    monkeypatch.setattr(pipeline.sources.fetch, "read_url", read)
    assert [item.uri for item in fetch_items(work({"uri": uri}), MIB)] == [uri]
    assert (threads == {threading.get_ident()}) == is_local
