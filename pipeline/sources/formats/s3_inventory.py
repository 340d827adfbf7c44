"""S3 Inventory reports: the listing of a bucket as files, for buckets too large to list.

The format is AWS' own ("Locating your inventory list" and "Cataloging and analyzing your data with
S3 Inventory" in the S3 user guide): a manifest.json names data files in a destination bucket,
either gzipped CSV without a header, whose columns ``fileSchema`` names and whose keys are
URL-encoded, or Parquet.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

import pyarrow.parquet as pq

from pipeline.contract.errors import UsageError, one_line
from pipeline.sources.listing import Entry
from pipeline.storage.filesystems import open_binary
from pipeline.storage.uris import join_uri, split_uri

S3_MANIFEST = "manifest.json"
"""AWS' name for the file that names the others."""


def reported_objects(uri: str) -> Iterator[Entry]:
    """The objects of a report, file by file, as a listing of the bucket would give them; old
    versions, delete markers and markers of directories are left out.

    Args:
        uri: of the manifest. The data files of a local copy lie in ``../data`` or beside it.

    Raises:
        UsageError: it is not a report in CSV or Parquet, or lacks what a listing needs.
        OSError: the storage failed.
    """
    protocol, path = split_uri(uri)
    try:
        with open_binary(uri) as file:
            manifest = json.load(file)
        read = {"csv": _csv, "parquet": _parquet}[manifest["fileFormat"].lower()]
        names = [_plain(name) for name in manifest["fileSchema"].split(",")]
        target = manifest["destinationBucket"].removeprefix("arn:aws:s3:::")
        for described in manifest["files"]:
            with open_binary(_data_file(protocol, path, target, described["key"])) as file:
                for row in read(file, names):
                    if _is_current(row):
                        yield _entry(row)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, csv.Error) as error:
        raise UsageError(
            f"{uri} is not the manifest of an S3 Inventory report in CSV or Parquet: "
            f"{one_line(repr(error))}"
        ) from error


def _data_file(protocol: str, manifest: str, bucket: str, key: str) -> str:
    """The URI of a data file."""
    if protocol != "file":
        return join_uri(protocol, f"{bucket}/{key}")
    directory, name = os.path.dirname(manifest), os.path.basename(key)
    beside = os.path.join(directory, name)
    return beside if os.path.exists(beside) else f"{directory}/../data/{name}"


def _plain(name: str) -> str:
    """One spelling for CSV's ``LastModifiedDate`` and Parquet's ``last_modified_date``."""
    return name.strip().replace("_", "").lower()


def _csv(file: Any, names: list[str]) -> Iterator[dict[str, Any]]:
    text = io.TextIOWrapper(gzip.GzipFile(fileobj=file), encoding="utf-8", newline="")
    for cells in csv.reader(text):
        row = dict(zip(names, cells, strict=True))
        yield row | {"key": unquote_plus(row["key"])}


def _parquet(file: Any, names: list[str]) -> Iterator[dict[str, Any]]:
    parquet = pq.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
    for batch in parquet.iter_batches(batch_size=4096):
        columns = [_plain(name) for name in batch.schema.names]
        for row in batch.to_pylist():
            yield dict(zip(columns, row.values(), strict=True))


def _is_current(row: dict[str, Any]) -> bool:
    latest, deleted = (str(row.get(name, "")).lower() for name in ("islatest", "isdeletemarker"))
    return latest != "false" and deleted != "true" and not row["key"].endswith("/")


def _entry(row: dict[str, Any]) -> Entry:
    size = int(row["size"]) if row.get("size") not in (None, "") else None
    version = (row.get("etag") or "").strip('"') or f"{size}-{row.get('lastmodifieddate')}"
    return Entry(f"{row['bucket']}/{row['key']}", size, version)
