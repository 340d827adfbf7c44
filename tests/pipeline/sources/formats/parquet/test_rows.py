"""Fetching from Parquet files: every readable row, and one failed item for what hides the rest."""

import io
import random
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.storage.files
import pipeline.storage.read_ahead
import pipeline.storage.retry
from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputSpec
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item, ReadOptions
from pipeline.sources.kept_columns import kept_columns
from tests.support.inputs.fetching import MIB, code, work
from tests.support.inputs.listing import rows
from tests.support.inputs.tars import failures
from tests.support.inputs.world import SHARD_NAMES
from tests.support.servers.seaweedfs import Bucket

IMAGES = [bytes([n]) * (n * 311 % 2000 + 1) for n in range(25)]
HUGGING_FACE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, images: pa.Array, name: str = "image", **options: Any) -> str:
    columns = {"id": range(len(images)), name: images, "caption": ["c"] * len(images)}
    options = {"row_group_size": 10, "compression": "none"} | options
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def read(
    uri: str,
    *,
    done: Iterable[str] = (),
    max_bytes: int = MIB,
    options: ReadOptions = ReadOptions(),  # noqa: B008  # frozen
) -> list[Item]:
    """The items of a file; what holds for every shard is checked here."""
    row = {"uri": uri, "kind": "parquet", "_done": list(done)}
    items = list(fetch_items(work(row), max_bytes, options))
    assert all((item.shard, item.source_version) == (uri, "v") for item in items)
    uris = pa.chunked_array([[item.uri for item in items]], pa.string())
    assert SHARD_NAMES.shards_of(uris).to_pylist() == [uri] * len(items)
    assert [item.shard_rows for item in items[:-1]] == [None] * (len(items) - 1)
    if items:
        assert items[-1].shard_rows == len(items) + len(list(done))
    return items


def content(items: list[Item], uri: str) -> dict[int, bytes]:
    return {int(i.uri.removeprefix(f"{uri}#")): i.data for i in items if i.data is not None}


@pytest.mark.parametrize("name", ["image", "bytes", "jpg", "img", "content"])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), HUGGING_FACE])
def test_rows_come_by_their_number(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    values: list[Any] = IMAGES
    if kind == HUGGING_FACE:
        values = [{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate(IMAGES)]
    uri = write(tmp_path / "a b#1.parquet", pa.array(values, kind), name)
    items = read(uri)
    assert content(items, uri) == dict(enumerate(IMAGES))
    assert [item.size_bytes for item in items] == [len(data) for data in IMAGES]
    assert rows(tmp_path)[0]["kind"] == rows(uri)[0]["kind"] == "parquet"


@pytest.mark.parametrize("name", ["IMAGE", "Image", "Jpg"])
def test_usual_names_in_capitals(tmp_path: Path, name: str) -> None:
    """As SQL writes them; but first comes what is spelled as usual."""
    uri = write(tmp_path / "a.parquet", pa.array(IMAGES), name)
    assert content(read(uri), uri) == dict(enumerate(IMAGES))
    assert rows(uri)[0]["kind"] == rows(tmp_path)[0]["kind"] == "parquet"
    both = pa.table({name: [b"capital"], "content": [b"usual"]})
    pq.write_table(both, tmp_path / "b.parquet")
    assert content(read(f"{tmp_path}/b.parquet"), f"{tmp_path}/b.parquet") == {0: b"usual"}


def test_null_is_an_empty_image(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.parquet", pa.array([{"bytes": None}, None, {"bytes": b"x"}]))
    assert content(read(uri), uri) == {0: b"", 1: b"", 2: b"x"}


def test_image_column_can_be_named(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.parquet", pa.array(IMAGES), "photo.v2")
    assert len(read(uri, options=ReadOptions(image_column="photo.v2"))) == len(IMAGES)
    assert rows(uri, image_column="photo.v2")[0]["kind"] == "parquet"
    for options in ({}, {"image_column": "caption"}, {"uri_column": "nowhere"}):
        with pytest.raises(UsageError, match=r"inputs\.image_column or inputs\.uri_column"):
            rows(uri, **options)


def test_kept_columns_travel_with_their_row(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": IMAGES[:3],
            "cat": pa.array(["x", "y", None]).dictionary_encode(),
            "when": pa.array([1, None, 3], pa.timestamp("us", "UTC")),
            "vec": pa.array([[1.0], None, [2.0, 3.0]], pa.list_(pa.float32())),
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    spec = InputSpec(uris=(str(tmp_path),), keep=("vec", "cat", "when"))
    kept = kept_columns(spec)
    expected = {"vec": pa.list_(pa.float32()), "cat": pa.string(), "when": table["when"].type}
    assert dict(zip(kept.names, kept.types, strict=True)) == expected
    items = read(str(path), max_bytes=len(IMAGES[1]), options=ReadOptions.of(spec, kept))
    assert [item.kept for item in items] == table.select(["vec", "cat", "when"]).to_pylist()
    assert [code(item) for item in items] == [None, None, "too_large"]
    # A later file of the dataset has a column less, and one of another type.
    other = pa.table({"image": [b"x"], "cat": ["z"], "vec": pa.array([[1]], pa.list_(pa.int8()))})
    pq.write_table(other, tmp_path / "b.parquet")
    (item,) = read(f"{tmp_path}/b.parquet", options=ReadOptions.of(spec, kept))
    assert item.kept == {"vec": [1.0], "cat": "z"}


class TestResume:
    def test_done_rows_are_left_out_and_their_groups_not_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = write(tmp_path / "a.parquet", pa.array(IMAGES))
        done = [f"{uri}#{n}" for n in (*range(10), 12, 24)]
        read_groups = []
        iter_batches = pq.ParquetFile.iter_batches

        def watch(self: Any, *args: Any, **options: Any) -> Any:
            read_groups.extend(options["row_groups"])
            return iter_batches(self, *args, **options)

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", watch)
        assert set(content(read(uri, done=done), uri)) == {10, 11, *range(13, 24)}
        assert read_groups == [1, 2]

    def test_storage_that_fails_on_the_way(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = write(tmp_path / "a.parquet", pa.array(IMAGES))
        whole = Path(uri).read_bytes()
        tries: list[int] = []

        class Failing(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if len(tries) < 3 and 0 < self.tell() < len(whole) // 2:
                    raise OSError("reset")
                return super().read(size)

        def open_file(*_: Any, start: int = 0, is_streamed: bool) -> Failing:
            tries.append(1)
            assert not is_streamed
            file = Failing(whole)
            file.seek(start)
            return file

        monkeypatch.setattr(pipeline.storage.files, "_open", open_file)
        monkeypatch.setattr(pipeline.storage.retry, "BACKOFF_SECONDS", 0)
        items = read(uri)
        assert content(items, uri) == dict(enumerate(IMAGES))
        assert len(tries) == 3
        tries.clear()
        monkeypatch.setattr(pipeline.storage.retry, "TRIES", 2)
        assert (uri, "storage_error") in failures(read(uri))


class TestBroken:
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (lambda data: b"", "shard_corrupt"),
            (lambda data: b"text" * 99, "shard_corrupt"),
            (lambda data: data[:-1], "shard_truncated"),
            (lambda data: data[: len(data) // 2], "shard_truncated"),
            (lambda data: data[:-1000] + bytes(992) + data[-8:], "shard_corrupt"),
        ],
        ids=["empty", "text", "last byte", "half", "footer"],
    )
    def test_without_a_footer_there_is_one_failed_row(
        self, tmp_path: Path, change: Any, expected: str
    ) -> None:
        path = tmp_path / "a.parquet"
        data = Path(write(path, pa.array(IMAGES))).read_bytes()
        path.write_bytes(change(data))
        assert failures(read(str(path))) == [(str(path), expected)]
        assert rows(path)[0]["kind"] == rows(tmp_path)[0]["kind"] == "parquet"

    def test_damaged_row_group_costs_itself_only(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        uri = write(path, pa.array(IMAGES), compression="zstd")
        column = pq.ParquetFile(path).metadata.row_group(1).column(1)
        data = bytearray(path.read_bytes())
        at = column.data_page_offset
        data[at : at + column.total_compressed_size] = bytes(column.total_compressed_size)
        path.write_bytes(data)
        items = read(uri)
        assert set(content(items, uri)) == {*range(10), *range(20, 25)}
        assert failures(items) == [(uri, "shard_corrupt")]
        assert "row group 1 of 3" in str(items[-1].error)
        assert failures(read(uri, done=[uri])) == []

    def test_rows_before_the_damage_are_read(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        images = [random.Random(n).randbytes(5000) for n in range(64)]
        uri = write(path, pa.array(images), row_group_size=64, data_page_size=20_000,
                    use_dictionary=False, write_page_checksum=True, write_batch_size=1)  # fmt: skip
        data = bytearray(path.read_bytes())
        data[data.index(images[40]) + 9] ^= 1
        path.write_bytes(data)
        items = read(uri)
        found = content(items, uri)
        assert 30 < len(found) <= 40
        assert found == dict(enumerate(images[: len(found)]))
        assert failures(items) == [(uri, "shard_corrupt")]

    def test_no_image_column_and_no_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"x": [1]}), path)
        assert failures(read(str(path))) == [(str(path), "shard_corrupt")]
        write(path, pa.array([], pa.binary()))
        assert failures(read(str(path))) == [(str(path), "shard_empty")]

    @pytest.mark.parametrize("seed", range(4))
    def test_noise_anywhere_never_raises(self, tmp_path: Path, seed: int) -> None:
        draw = random.Random(seed)
        path = tmp_path / "a.parquet"
        good = Path(write(path, pa.array(IMAGES), compression="zstd")).read_bytes()
        body = pq.ParquetFile(path).metadata.row_group(2).column(0).dictionary_page_offset
        for _ in range(30):
            data = bytearray(good)
            for _ in range(draw.choice([1, 30])):
                data[draw.randrange(4, body)] = draw.randrange(256)
            path.write_bytes(data)
            items = read(str(path))
            assert len(failures(items)) <= 1
            assert set(range(20, 25)) <= set(content(items, str(path)))


def test_gone(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.parquet")
    assert failures(read(uri)) == [(uri, "not_found")]


def test_from_a_bucket(tmp_path: Path, s3_bucket: Bucket) -> None:
    data = Path(write(tmp_path / "a.parquet", pa.array(IMAGES))).read_bytes()
    uri = s3_bucket.put("a b#%.parquet", data)
    assert content(read(uri), uri) == dict(enumerate(IMAGES))
    assert rows(s3_bucket.uri)[0]["uri"] == uri


def test_a_large_row_group_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group of 64 MiB takes the memory of some pages."""
    images = [random.Random(n).randbytes(MIB) for n in range(64)]
    uri = write(tmp_path / "a.parquet", pa.array(images), row_group_size=64, use_dictionary=False,
                write_batch_size=1)  # fmt: skip
    del images
    monkeypatch.setattr(pipeline.storage.read_ahead, "WINDOW_BYTES", 2 * MIB)
    pool = pa.default_memory_pool()
    base, peak = pool.bytes_allocated(), 0
    tracemalloc.start()
    for item in fetch_items(work({"uri": uri, "kind": "parquet"}), 2 * MIB):
        assert item.data is not None
        peak = max(peak, pool.bytes_allocated() - base)
    assert peak < 24 * MIB
    assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    tracemalloc.stop()
