"""--input-format: a file that is named is what it is said to be, whatever it is called."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputFormat, InputSpec
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.registry import shard_names
from pipeline.sources.inventory import inventory
from pipeline.sources.kept_columns import kept_columns
from tests.support.inputs.fetching import MIB, work
from tests.support.inputs.listing import rows, touch, uris
from tests.support.inputs.tars import tar_bytes

NAMES = ("photo.tar", "data.bin", "table.csv", "urls.log")


def parquet_bytes(**columns: list[object]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def csv_bytes(*cells: tuple[str, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(cells)
    return text.getvalue().encode()


def read(path: Path, word: InputFormat) -> dict[str, bytes | None]:
    """What is fetched of an INPUT, by uri."""
    work_rows = work(*rows(path, format=word))
    return {item.uri: item.data for item in fetch_items(work_rows, MIB)}


@pytest.mark.parametrize("name", NAMES)
class TestFormatsUnderNamesOfOthers:
    def test_images(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"an image")
        assert read(tmp_path / name, "images") == {f"{tmp_path}/{name}": b"an image"}

    def test_webdataset(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(tar_bytes({"a.jpg": b"1", "d/b.png": b"2"}))
        uri = f"{tmp_path}/{name}"
        assert read(tmp_path / name, "webdataset") == {f"{uri}#a.jpg": b"1", f"{uri}#d/b.png": b"2"}

    def test_parquet(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(parquet_bytes(image=[b"1", b"2"]))
        uri = f"{tmp_path}/{name}"
        assert read(tmp_path / name, "parquet") == {f"{uri}#0": b"1", f"{uri}#1": b"2"}

    def test_parquet_of_uris(self, tmp_path: Path, name: str) -> None:
        (image,) = touch(tmp_path, "a.jpg")
        (tmp_path / name).write_bytes(parquet_bytes(url=[image]))
        assert read(tmp_path / name, "parquet") == {image: b"a.jpg"}

    def test_list(self, tmp_path: Path, name: str) -> None:
        (image,) = touch(tmp_path, "a.jpg")
        content = csv_bytes(("uri", "n"), (image, "1")) if name.endswith("csv") else b"a.jpg\n"
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name, "list") == {image: b"a.jpg"}

    def test_inventory(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "0.csv.gz").write_bytes(gzip.compress(csv_bytes(("b", "k.jpg"), ("b", "k.md"))))
        report = {
            "fileFormat": "CSV",
            "fileSchema": "Bucket, Key",
            "destinationBucket": "arn:aws:s3:::far",
            "files": [{"key": "data/0.csv.gz"}],
        }
        (tmp_path / name).write_bytes(json.dumps(report).encode())
        assert uris(tmp_path / name, format="inventory") == ["s3://b/k.jpg"]


def packed(content: bytes) -> bytes:
    return gzip.compress(content)


CSV = csv_bytes(("id", "url"), ("1", "s3://b/a,b.jpg"), ("2", "s3://b/c.jpg"))
JSONL = b'\n{"id": 1, "url": "s3://b/a,b.jpg"}\n\n{"id": 2, "url": "s3://b/c.jpg"}\n'
TEXT = b"s3://b/a,b.jpg\r\ns3://b/c.jpg"


class TestListsUnderOtherNames:
    """What is in them tells what they are."""

    @pytest.fixture(autouse=True)
    def _no_server_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pipeline.sources.inventory.refusal_of_credentials", lambda _: None)

    @pytest.mark.parametrize("name", ["urls.log", "photo.tar", "names", "names.gz"])
    @pytest.mark.parametrize("pack", [bytes, packed], ids=["plain", "packed"])
    @pytest.mark.parametrize(
        "content", [CSV, JSONL, TEXT, b"\xef\xbb\xbf" + CSV], ids=["csv", "jsonl", "txt", "bom"]
    )
    def test_texts(
        self, tmp_path: Path, name: str, pack: Callable[[bytes], bytes], content: bytes
    ) -> None:
        (tmp_path / name).write_bytes(pack(content))
        assert uris(tmp_path / name, format="list") == ["s3://b/a,b.jpg", "s3://b/c.jpg"]

    def test_parquet(self, tmp_path: Path) -> None:
        content = parquet_bytes(url=["s3://b/a.jpg"], note=["x"])
        (tmp_path / "urls.log").write_bytes(content)
        assert uris(tmp_path / "urls.log", format="list") == ["s3://b/a.jpg"]
        spec = InputSpec(uris=(f"{tmp_path}/urls.log",), format="list", keep=("*",))
        assert kept_columns(spec) == pa.schema({"note": pa.string()})

    def test_a_text_that_begins_like_parquet(self, tmp_path: Path) -> None:
        (tmp_path / "urls.log").write_text("PAR1/a.jpg\n")
        assert uris(tmp_path / "urls.log", format="list") == [f"{tmp_path}/PAR1/a.jpg"]

    def test_a_column_that_is_asked_for_makes_it_a_table(self, tmp_path: Path) -> None:
        (tmp_path / "urls.log").write_text("photo,note\ns3://b/a.jpg,x\n")
        assert uris(tmp_path / "urls.log", format="list", uri_column="photo") == ["s3://b/a.jpg"]
        with pytest.raises(UsageError, match="no text column named url; it has photo, note"):
            rows(tmp_path / "urls.log", format="list", uri_column="url")
        spec = InputSpec(
            uris=(f"{tmp_path}/urls.log",), format="list", uri_column="photo", keep=("note",)
        )
        (table,) = inventory(spec, kept=kept_columns(spec))
        assert table["_kept"].to_pylist() == [{"note": "x"}]

    @pytest.mark.parametrize("content", [b"", b"\x1f\x8bno gzip", bytes(range(255, 0, -1))])
    def test_what_is_no_list(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "urls.log").write_bytes(content)
        with pytest.raises(UsageError, match=r"urls\.log") as refusal:
            rows(tmp_path / "urls.log", format="list")
        assert "\n" not in str(refusal.value)


def test_in_a_directory_it_takes_files_by_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.tar", "c.bin")
    (tmp_path / "d.csv").write_text("uri\na.jpg\n")
    assert uris(tmp_path, format="webdataset") == [f"{tmp_path}/b.tar"]
    assert uris(tmp_path / "*", format="images") == [f"{tmp_path}/a.jpg"]
    assert uris(tmp_path, format="list") == uris(tmp_path / "*.csv") == [f"{tmp_path}/a.jpg"]
    with pytest.raises(UsageError, match=r"no images under .*looked for \.tar, \.tar\.gz, \.tgz"):
        rows(tmp_path / "*.csv", format="webdataset")


def test_parquet_that_is_damaged_is_a_shard_that_fails(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "data.dat")
    (row,) = rows(path, format="parquet")
    (item,) = fetch_items(work(row), MIB)
    assert item.error is not None
    assert item.error.code == "shard_corrupt"
    with pytest.raises(UsageError, match=r"data\.dat cannot be read as Parquet"):
        kept_columns(InputSpec(uris=(path,), format="parquet", keep=("*",)))


@pytest.fixture
def memory() -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/shards/x.bin", tar_bytes({"a.jpg": b"1"}))
    yield "memory://shards/x.bin"
    fs.rm("/shards", recursive=True)


def test_the_ledger_knows_the_shards_that_were_named(tmp_path: Path, memory: str) -> None:
    (tmp_path / "x.bin").write_bytes(tar_bytes({"a.jpg": b"1"}))
    given = (f"file://{tmp_path}/../{tmp_path.name}/x.bin", memory)
    names = shard_names(InputSpec(uris=given, format="webdataset"))
    for uri in given:
        (shard,) = uris(uri, format="webdataset")
        members = pa.chunked_array([[f"{shard}#a.jpg", shard, "/other.bin#a.jpg"]])
        assert names.shards_of(members).to_pylist() == [shard, shard, None]
    others: tuple[InputFormat, ...] = ("auto", "images", "list")
    for word in others:
        assert not shard_names(InputSpec(uris=given, format=word)).others
