"""Lists of images: what they name, in which version, and what is not accepted."""

import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputSpec
from pipeline.sources.inventory import inventory
from pipeline.sources.kept_columns import kept_columns
from tests.support.inputs.listing import rows, touch, uris
from tests.support.servers.seaweedfs import Bucket

REMOTE = ["s3://b/a b#1%.jpg", "https://h.example/x.jpg?w=1", "gs://b/ü.png"]
NAMES = [*REMOTE, "d/rel.jpg", "/abs.jpg"]


@pytest.fixture(autouse=True)
def no_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The buckets of these lists are nowhere; test_listing_s3.py has real ones."""
    monkeypatch.setattr("pipeline.sources.inventory.refusal_of_credentials", lambda bucket: None)


def lines(names: list[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


def csv_file(names: list[str]) -> bytes:
    return b"id,url\r\n" + b"".join(f'{n},"{name}"\r\n'.encode() for n, name in enumerate(names))


def jsonl(names: list[str]) -> bytes:
    return b"".join(json.dumps({"n": 1, "path": name}).encode() + b"\n\n" for name in names)


def parquet(names: list[str]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1] * len(names), "image_url": names}), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("name", "write"),
    [("l.txt", lines), ("l.csv", csv_file), ("l.jsonl", jsonl), ("l.ndjson", jsonl),
     ("l.parquet", parquet), ("l.TXT", lines), ("l.csv.gz", lambda n: gzip.compress(csv_file(n))),
     ("bom.csv", lambda n: b"\xef\xbb\xbf" + csv_file(n))],
)  # fmt: skip
def test_every_kind_of_list_names_its_images(
    tmp_path: Path, name: str, write: Callable[[list[str]], bytes]
) -> None:
    (tmp_path / name).write_bytes(write(NAMES))
    found = rows(tmp_path / name)
    assert [row["uri"] for row in found] == [*REMOTE, f"{tmp_path}/d/rel.jpg", "/abs.jpg"]
    assert {row["kind"] for row in found} == {"image"}


def test_a_list_in_a_bucket_names_its_neighbours(s3_bucket: Bucket) -> None:
    listed = s3_bucket.put("lists/a.txt", lines(["x y.jpg", "./sub/z.jpg", "s3://other/k.jpg"]))
    wanted = [f"{s3_bucket.uri}/lists/x y.jpg", f"{s3_bucket.uri}/lists/sub/z.jpg"]
    assert uris(listed) == [*wanted, "s3://other/k.jpg"]
    s3_bucket.put("lists/b.csv", csv_file(["q.jpg"]))
    assert uris(f"{s3_bucket.uri}/lists/*.csv") == [f"{s3_bucket.uri}/lists/q.jpg"]


def test_images_of_a_local_list_have_the_versions_of_a_listing(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "s.tar", "t.parquet")
    (tmp_path / "l.txt").write_bytes(lines(["a.jpg", "s.tar", "t.parquet", "gone.jpg"]))
    listed = {row["uri"]: row for row in rows(tmp_path / "l.txt")}
    for row in rows(tmp_path):
        assert listed.pop(row["uri"]) == row
    (gone,) = listed.values()
    assert (gone["source_version"], gone["size_bytes"]) == ("missing", None)


def test_version_of_a_remote_image_is_its_row(tmp_path: Path) -> None:
    def versions(*cells: str) -> dict[str, str]:
        (tmp_path / "l.csv").write_text("\n".join(["uri,etag", *cells]))
        return {row["uri"]: row["source_version"] for row in rows(tmp_path / "l.csv")}

    first = versions("s3://b/1.jpg,x", "s3://b/2.jpg,y")
    later = versions("s3://b/0.jpg,x", "s3://b/2.jpg,z", "s3://b/1.jpg,x")
    assert later["s3://b/1.jpg"] == first["s3://b/1.jpg"]
    assert later["s3://b/2.jpg"] != first["s3://b/2.jpg"]


def test_names_that_come_again_are_one_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    touch(tmp_path, "d/a.jpg")
    (tmp_path / "l.txt").write_bytes(lines(["s3://b/x.jpg", "d/a.jpg", "", "s3a://b/x.jpg"]))
    assert uris(tmp_path / "l.txt") == ["s3://b/x.jpg", f"{tmp_path}/d/a.jpg"]
    assert "1 objects are named more than once" in caplog.text
    assert "1 rows of" in caplog.text
    assert uris(tmp_path / "l.txt", tmp_path / "d") == uris(tmp_path / "l.txt")


def test_a_column_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("uri,where\n1,s3://b/a.jpg\n")
    assert uris(tmp_path / "l.csv", uri_column="where") == ["s3://b/a.jpg"]


def test_a_format_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "names").write_text('{"uri": "s3://b/a.jpg"}\n')
    assert uris(tmp_path / "names", format="list") == ["s3://b/a.jpg"]
    (tmp_path / "l.txt").write_text("s3://b/b.jpg\n")
    assert uris(tmp_path, format="list") == ["s3://b/b.jpg"]
    assert rows(tmp_path / "l.txt", format="images")[0]["uri"] == f"{tmp_path}/l.txt"


def test_parquet_lists_in_a_directory(tmp_path: Path) -> None:
    """A dataset of its own, or a description of the images beside it."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.parquet").write_bytes(parquet([f"s3://b/{name}.jpg", "s3://b/x.jpg"]))
    wanted = ["s3://b/a.jpg", "s3://b/x.jpg", "s3://b/b.jpg"]
    assert uris(tmp_path) == uris(tmp_path, format="parquet") == wanted
    images = touch(tmp_path, "z.jpg")
    assert uris(tmp_path) == images
    assert uris(tmp_path, format="list") == wanted


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", b"id,name\n1,2\n", "no text column named uri, url.*it has id, name"),
        ("l.csv", b"uri,a\nx\n", "line 2 has 1 cells, the header 2"),
        ("l.csv", b"uri,uri\nx,y\n", "same name"),
        ("l.csv", b'uri\n"x\n', "cannot be read as a list"),
        ("l.csv", b"", "no text column"),
        ("l.jsonl", b'{"uri": "x"}\n[1]\n', "line 2 is not a JSON object"),
        ("l.jsonl", b'{"uri": \n', "cannot be read as a list"),
        ("l.jsonl", b'{"uri": 3}\n', "no text column"),
        ("l.txt", b"\xff\xfe\n", "cannot be read as a list"),
        ("l.txt.gz", b"plain", "cannot be read as a list"),
        ("l.txt", b"\n\n", "no images under"),
        ("l.parquet", parquet([""]), "no images under"),
    ],
)
def test_what_is_no_list_is_a_usage_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as refusal:
        rows(tmp_path / name)
    assert str(tmp_path / name) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_web_is_no_input() -> None:
    for uri in ("http://h.example/a.jpg", "https://h.example/list.txt"):
        with pytest.raises(UsageError, match=r"read only from lists"):
            rows(uri)


class TestKeep:
    """Columns that travel along."""

    def kept(self, path: Path, *keep: str, **options: Any) -> tuple[pa.Schema, list[Any]]:
        spec = InputSpec(uris=(str(path),), keep=keep, **options)
        schema = kept_columns(spec)
        tables = inventory(spec, kept=schema)
        return schema, [row["_kept"] for table in tables for row in table.to_pylist()]

    def test_csv_holds_strings(self, tmp_path: Path) -> None:
        (tmp_path / "l.csv").write_text("uri,zip,note\ns3://b/1,00123,\ns3://b/2,x,y\n")
        schema, kept = self.kept(tmp_path / "l.csv", "zip", "note")
        assert schema == pa.schema([("zip", pa.string()), ("note", pa.string())])
        assert kept == [{"zip": "00123", "note": ""}, {"zip": "x", "note": "y"}]

    def test_jsonl_holds_what_arrow_makes_of_it(self, tmp_path: Path) -> None:
        objects = [
            {"uri": "s3://b/1", "n": 1, "tags": ["a"], "mixed": 1, "box": {"x": 0.5}},
            {"uri": "s3://b/2", "mixed": "text", "none": None},
        ]
        (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, objects)))
        schema, kept = self.kept(tmp_path / "l.jsonl", "*")
        types = {
            "n": pa.int64(),
            "tags": pa.list_(pa.string()),
            "mixed": pa.string(),
            "box": pa.struct([("x", pa.float64())]),
            "none": pa.string(),
        }
        assert schema == pa.schema(types)
        assert kept[0] == {"n": 1, "tags": ["a"], "mixed": "1", "box": {"x": 0.5}, "none": None}
        assert kept[1] == {"n": None, "tags": None, "mixed": "text", "box": None, "none": None}

    def test_a_later_line_of_another_type_has_no_value(self, tmp_path: Path) -> None:
        values = [*range(1000), "x", 1.0, 2.5, True, [1], {}, 2**70, 7]
        lines = [json.dumps({"uri": f"s3://b/{n}", "n": value}) for n, value in enumerate(values)]
        (tmp_path / "l.jsonl").write_text("\n".join(lines))
        schema, kept = self.kept(tmp_path / "l.jsonl", "n")
        assert schema.field("n").type == pa.int64()
        assert [row["n"] for row in kept[1000:]] == [None, 1, *[None] * 5, 7]

    def test_a_kept_value_is_part_of_a_local_images_version(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.jpg")

        def version(note: str, *keep: str) -> str:
            (tmp_path / "l.csv").write_text(f"uri,note\na.jpg,{note}\n")
            spec = InputSpec(uris=(str(tmp_path / "l.csv"),), keep=keep)
            (table,) = inventory(spec, kept=kept_columns(spec))
            return str(table["source_version"][0])

        assert version("x") == version("y")
        assert version("x", "note") != version("y", "note")

    @pytest.mark.parametrize(
        ("keep", "message"),
        [
            (("label",), "the output itself has: label"),
            (("_x",), "the output itself has: _x"),
            (("nothing",), "columns that the INPUT does not have: nothing; it has: label, _x, id"),
            (("uri",), "the output itself has: uri"),
        ],
    )
    def test_what_cannot_be_kept_is_a_usage_error(
        self, tmp_path: Path, keep: tuple[str, ...], message: str
    ) -> None:
        (tmp_path / "l.csv").write_text("uri,label,_x,id\ns3://b/1,2,3,4\n")
        with pytest.raises(UsageError, match=message):
            self.kept(tmp_path / "l.csv", *keep)
        assert self.kept(tmp_path / "l.csv", "*")[0].names == ["id"]

    def test_columns_of_several_inputs(self, tmp_path: Path) -> None:
        (tmp_path / "l.jsonl").write_text('{"uri": "s3://b/1", "a": 1, "b": 2}\n')
        (tmp_path / "m.jsonl").write_text('{"uri": "s3://b/2", "b": 2.5, "c": "x"}\n')
        (tmp_path / "n.jsonl").write_text('{"uri": "s3://b/3", "c": [1]}\n')
        paths = [str(tmp_path / name) for name in ("l.jsonl", "m.jsonl", "n.jsonl")]
        schema = kept_columns(InputSpec(uris=tuple(paths[:2]), keep=("*",)))
        assert schema == pa.schema({"a": pa.int64(), "b": pa.float64(), "c": pa.string()})
        spec = InputSpec(uris=tuple(paths), keep=("*",))
        schema = kept_columns(spec)
        assert schema.field("c").type == pa.string(), "what does not agree is text"
        tables = inventory(spec, kept=schema)
        kept = [row["_kept"]["c"] for table in tables for row in table.to_pylist()]
        assert kept == [None, "x", "[1]"]


class TestUrlsWithSecrets:
    """Presigned URLs, tokens, names and passwords: read as given, shown without."""

    def listed(self, tmp_path: Path, *lines: str) -> list[dict[str, Any]]:
        (tmp_path / "l.txt").write_text("\n".join(lines))
        return rows(tmp_path / "l.txt")

    def test_tomorrow_it_is_the_same_image(self, tmp_path: Path) -> None:
        url = "https://h.example/a.jpg?id=1&X-Amz-Signature="
        (today,), (tomorrow,) = (self.listed(tmp_path, url + s) for s in ("ONE", "TWO"))
        assert (today["address"], tomorrow["address"]) == (url + "ONE", url + "TWO")
        assert today | {"address": None} == tomorrow | {"address": None}
        assert today["uri"] == "https://h.example/a.jpg?id=1"

    def test_others_are_read_as_they_are_shown(self, tmp_path: Path) -> None:
        (row,) = self.listed(tmp_path, "https://h.example/a.jpg?id=1")
        assert "address" not in row

    def test_an_object_with_a_password(self, tmp_path: Path) -> None:
        (row,) = self.listed(tmp_path, "s3://AKIA:SENT/INEL@bucket/a.jpg")
        assert row["uri"].endswith("l.txt#1")
        assert row["refusal"] == "it names nothing that can be read: its URI has a password in it"
        assert "SENT" not in repr(row)
