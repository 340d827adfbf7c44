"""S3 Inventory reports, laid out as AWS documents them, instead of a listing."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputSpec
from pipeline.sources.exclusion import Exclusion
from pipeline.sources.inventory import inventory
from tests.support.inputs.listing import rows
from tests.support.servers.seaweedfs import Bucket

KEYS = ["a b+c/1%#ü.jpg", "x.tar", "notes.txt", "d/", "old.jpg", "gone.jpg", "日本.PNG"]
COLUMNS = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"


def records() -> list[dict[str, Any]]:
    return [
        {
            "bucket": "photos",
            "key": key,
            "version_id": "v",
            "is_latest": key != "old.jpg",
            "is_delete_marker": key == "gone.jpg",
            "size": number,
            "last_modified_date": datetime(2026, 1, 2, tzinfo=UTC),
            "e_tag": f"etag-{number}",
        }
        for number, key in enumerate(KEYS)
    ]


EXPECTED = [
    {"uri": f"s3://photos/{key}", "kind": kind, "source_version": f"etag-{KEYS.index(key)}",
     "size_bytes": KEYS.index(key)}
    for key, kind in ((KEYS[0], "image"), ("x.tar", "webdataset"), ("日本.PNG", "image"))
]  # fmt: skip


def csv_data(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = row | {"key": quote_plus(row["key"]), "last_modified_date": "2026-01-02T00:00:00Z"}
        writer.writerow([str(v).lower() if isinstance(v, bool) else v for v in cells.values()])
    return gzip.compress(text.getvalue().encode())


def parquet_data(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def manifest(bucket: str, file_format: str, keys: list[str]) -> bytes:
    return json.dumps(
        {
            "sourceBucket": "photos",
            "destinationBucket": f"arn:aws:s3:::{bucket}",
            "version": "2016-11-30",
            "creationTimestamp": "1514944800000",
            "fileFormat": file_format,
            "fileSchema": COLUMNS,
            "files": [{"key": key, "size": 1, "MD5checksum": "x"} for key in keys],
        }
    ).encode()


@pytest.mark.parametrize(("file_format", "pack"), [("CSV", csv_data), ("Parquet", parquet_data)])
def test_report_in_a_bucket(
    s3_bucket: Bucket, file_format: str, pack: Callable[[list[dict[str, Any]]], bytes]
) -> None:
    for number in range(2):
        s3_bucket.put(f"inv/photos/all/data/{number}", pack(records()[number * 3 :][: 3 + number]))
    keys = [f"inv/photos/all/data/{number}" for number in range(2)]
    uri = s3_bucket.put(
        "inv/photos/all/2026-01-02T01-00Z/manifest.json",
        manifest(s3_bucket.name, file_format, keys),
    )
    assert rows(uri) == EXPECTED
    assert rows(uri, format="inventory") == EXPECTED


@pytest.mark.parametrize("directory", ["2026-01-02T01-00Z/../data", "2026-01-02T01-00Z"])
def test_local_copy(tmp_path: Path, directory: str) -> None:
    (tmp_path / "2026-01-02T01-00Z").mkdir()
    (tmp_path / directory).mkdir(exist_ok=True)
    (tmp_path / directory / "0.csv.gz").write_bytes(csv_data(records()))
    path = tmp_path / "2026-01-02T01-00Z" / "manifest.json"
    path.write_bytes(manifest("far", "CSV", ["some/prefix/data/0.csv.gz"]))
    assert rows(path) == EXPECTED
    assert [row["kind"] for row in rows(path, extensions=("txt",))] == ["webdataset", "image"]
    exclusion = Exclusion()
    assert list(inventory(InputSpec(uris=(str(path),)), exclusion=exclusion))
    assert exclusion.others.numbers == {"txt": 1}


def test_streams_file_by_file(tmp_path: Path) -> None:
    """The second file is not opened before the rows of the first one are used."""
    from pipeline.sources.formats.s3_inventory import reported_objects

    path = tmp_path / "manifest.json"
    path.write_bytes(manifest("far", "CSV", ["data/0.csv.gz", "data/1.csv.gz"]))
    (tmp_path / "0.csv.gz").write_bytes(csv_data(records()))
    entries = reported_objects(str(path))
    assert next(entries).path == f"photos/{KEYS[0]}"
    with pytest.raises(FileNotFoundError):
        list(entries)


@pytest.mark.parametrize(
    "content",
    [b"{}", b"[1]", b"no json", manifest("b", "ORC", []), manifest("b", "CSV", ["data/0.csv.gz"])],
    ids=["nothing", "list", "text", "ORC", "without data"],
)
def test_what_is_no_report_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UsageError) as refusal:
        rows(tmp_path / "manifest.json")
    assert "manifest.json" in str(refusal.value)
    assert "\n" not in str(refusal.value)
