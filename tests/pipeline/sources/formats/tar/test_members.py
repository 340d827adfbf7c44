"""Fetching shards: every readable member, and one failed item for what hides the rest."""

import bz2
import gzip
import io
import lzma
import random
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pipeline.storage.files
import pipeline.storage.read_ahead
import pipeline.storage.retry
from pipeline.sources.fetch import fetch_items
from pipeline.storage.retry import DENIED_TRIES
from tests.support.inputs.fetching import MIB, code, work
from tests.support.inputs.tars import MEMBERS, add, content, failures, read, shard, tar_bytes


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_come_in_order(tmp_path: Path, format: int) -> None:
    names = [
        "z.jpg",
        "deep/er/" * 20 + "a b#%?ü日本.PNG",
        "./a.jpeg",
        "/abs.webp",
        "x" * 200 + ".gif",
    ]
    if format == tarfile.USTAR_FORMAT:
        names = names[:1] + names[2:4]
    uri = shard(
        tmp_path / "a b#1.tar", tar_bytes([(name, name.encode()) for name in names], format)
    )
    items = read(uri)
    assert [item.uri for item in items] == [f"{uri}#{name}" for name in names]
    assert [item.data for item in items] == [name.encode() for name in names]
    assert [item.size_bytes for item in items] == [len(name.encode()) for name in names]


@pytest.mark.parametrize(
    ("name", "compress"),
    [("x.tar.gz", gzip.compress), ("x.tgz", gzip.compress), ("x.tar", gzip.compress),
     ("x.tar", bz2.compress), ("x.tar", lzma.compress), ("x.tar.gz", bytes)],
)  # fmt: skip
def test_compression_is_told_by_the_content(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes]
) -> None:
    uri = shard(tmp_path / name, compress(tar_bytes()))
    assert content(read(uri), uri) == MEMBERS


def test_only_image_files_count(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        add(tar, "dir.jpg", type=tarfile.DIRTYPE)
        add(tar, "a.jpg", b"image")
        add(tar, "a.json", b"{}")
        add(tar, "a.cls", b"1")
        add(tar, "fifo.jpg", type=tarfile.FIFOTYPE)
        add(tar, "device.jpg", type=tarfile.CHRTYPE)
        add(tar, "noextension", b"x")
    uri = shard(tmp_path / "x.tar", buffer.getvalue())
    items = read(uri)
    assert content(items, uri) == {"a.jpg": b"image"}
    told = [(f"{uri}#{name}.jpg", "not_an_image") for name in ("fifo", "device")]
    assert failures(items) == told, "tar tools show them"


def test_names_that_come_again_are_numbered(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3"), ("a.jpg", b"4")]
    uri = shard(tmp_path / "x.tar", tar_bytes(members))
    named = {"a.jpg": b"1", "b.jpg": b"2", "a.jpg#2": b"3", "a.jpg#3": b"4"}
    assert content(read(uri), uri) == named
    resumed = read(uri, done=[f"{uri}#a.jpg", f"{uri}#a.jpg#2"])
    assert content(resumed, uri) == {"b.jpg": b"2", "a.jpg#3": b"4"}


def test_member_names_that_are_no_utf8(tmp_path: Path) -> None:
    data = tar_bytes([("cafX.jpg", b"1")]).replace(b"cafX.jpg", b"caf\xe9.jpg")
    header = bytearray(data[:512])
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    uri = shard(tmp_path / "x.tar", bytes(header) + data[512:])
    (item,) = read(uri)
    assert item.uri == f"{uri}#caf\\udce9.jpg"
    assert item.data == b"1"


def test_member_larger_than_allowed_is_one_failed_row(tmp_path: Path) -> None:
    members = {"a.jpg": b"1", "big.jpg": bytes(20_000), "c.jpg": b"3"}
    uri = shard(tmp_path / "x.tar", tar_bytes(members))
    items = read(uri, max_bytes=19_999)
    assert content(items, uri) == {"a.jpg": b"1", "c.jpg": b"3"}
    assert failures(items) == [(f"{uri}#big.jpg", "too_large")]
    assert items[1].size_bytes == 20_000


def test_bomb_is_not_read_into_memory(tmp_path: Path) -> None:
    big = bytes(40 * MIB)
    uri = shard(tmp_path / "x.tar", gzip.compress(tar_bytes({"big.jpg": big, "c.jpg": b"3"}), 1))
    del big
    tracemalloc.start()
    items = read(uri)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [code(item) for item in items] == ["too_large", None]
    assert peak < 8 * MIB


class TestResume:
    def test_done_members_are_left_out_and_counted(self, tmp_path: Path) -> None:
        uri = shard(tmp_path / "x.tar", tar_bytes())
        done = [f"{uri}#{name}" for name in list(MEMBERS)[::2]]
        items = read(uri, done=done)
        assert content(items, uri) == dict(list(MEMBERS.items())[1::2])
        assert items[-1].shard_rows == len(MEMBERS)

    def test_last_member_is_done_already(self, tmp_path: Path) -> None:
        uri = shard(tmp_path / "x.tar", tar_bytes())
        *_, last = MEMBERS
        items = read(uri, done=[f"{uri}#{last}"])
        assert len(items) == len(MEMBERS) - 1
        assert items[-1].shard_rows == len(MEMBERS)

    def test_failure_that_is_done_already_is_no_second_row(self, tmp_path: Path) -> None:
        """The row of the broken tar was committed, one of an earlier member was not."""
        cut = len(tar_bytes()) - 11_000
        uri = shard(tmp_path / "x.tar", tar_bytes()[:cut])
        everything = read(uri)
        assert failures(everything)
        missing = everything[2]
        done = [item.uri for item in everything if item is not missing]
        (item,) = read(uri, done=done)
        assert item.uri == missing.uri
        assert item.shard_rows == len(everything)


class TestStorage:
    """Storage that fails in the middle of a tar, as servers and networks do."""

    @pytest.fixture
    def flaky(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Exception]]:
        """After how many bytes each opening fails, and with what; then it works."""
        plan: list[tuple[int, Exception]] = []
        open_file = pipeline.storage.files._open

        class Failing(io.RawIOBase):
            def __init__(self, data: bytes, error: Exception) -> None:
                self.buffer, self.error = io.BytesIO(data), error

            def read(self, size: int | None = -1) -> bytes:
                data = self.buffer.read(size)
                if not data:
                    raise self.error
                return data

        def open_flaky(protocol: str, path: str, *, start: int = 0, is_streamed: bool) -> Any:
            if not plan:
                return open_file(protocol, path, start=start, is_streamed=is_streamed)
            size, error = plan.pop(0)
            return Failing(Path(path).read_bytes()[start:size], error)

        monkeypatch.setattr(pipeline.storage.files, "_open", open_flaky)
        monkeypatch.setattr(pipeline.storage.retry, "BACKOFF_SECONDS", 0)
        monkeypatch.setattr(pipeline.storage.retry, "TRIES", 3)
        return plan

    def test_it_is_read_on_from_where_it_broke(
        self, tmp_path: Path, flaky: list[tuple[int, Exception]]
    ) -> None:
        members = [*MEMBERS.items(), ("00.jpg", b"again")]
        uri = shard(tmp_path / "x.tar", tar_bytes(members))
        flaky += [(6000, OSError("reset")), (3000, TimeoutError("timed out"))]
        items = read(uri)
        assert content(items, uri) == MEMBERS | {"00.jpg#2": b"again"}
        assert not failures(items)

    def test_in_the_end_the_tar_has_a_failed_row(
        self, tmp_path: Path, flaky: list[tuple[int, Exception]]
    ) -> None:
        uri = shard(tmp_path / "x.tar", tar_bytes())
        flaky += [(6000, OSError("reset"))] * 3
        items = read(uri)
        found = content(items, uri)
        assert 0 < len(found) < len(MEMBERS)
        assert failures(items) == [(uri, "storage_error")]

    @pytest.mark.parametrize(
        ("error", "expected", "tries"),
        [
            (PermissionError("no"), "access_denied", DENIED_TRIES),
            (FileNotFoundError("no"), "not_found", 1),
        ],
    )
    def test_some_failures_need_few_tries(
        self,
        tmp_path: Path,
        flaky: list[tuple[int, Exception]],
        error: Exception,
        expected: str,
        tries: int,
    ) -> None:
        uri = shard(tmp_path / "x.tar", tar_bytes())
        flaky += [(0, error)] * 9
        assert failures(read(uri)) == [(uri, expected)]
        assert len(flaky) == 9 - tries


def test_shards_and_images_in_one_table(tmp_path: Path) -> None:
    uri = shard(tmp_path / "x.tar", tar_bytes())
    (tmp_path / "y.jpg").write_bytes(b"y")
    rows = [
        {"uri": str(tmp_path / "y.jpg")},
        {"uri": uri, "kind": "webdataset"},
        {"uri": str(tmp_path / "gone.tar"), "kind": "webdataset"},
    ]
    items = list(fetch_items(work(*rows), MIB))
    assert len(items) == len(MEMBERS) + 2
    assert sum(item.shard_rows or 0 for item in items) == len(MEMBERS) + 1


def test_shard_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tar of any size takes the memory of a member, not its own."""
    member = random.Random(0).randbytes(MIB // 2)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for number in range(64):
            add(tar, f"{number}.jpg", member)
    monkeypatch.setattr(pipeline.storage.read_ahead, "WINDOW_BYTES", 2 * MIB)
    tracemalloc.start()
    table = work({"uri": str(tmp_path / "x.tar"), "kind": "webdataset"})
    assert sum(len(item.data or b"") for item in fetch_items(table, MIB)) == 32 * MIB
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * MIB
