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
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from pipeline.contract.errors import UsageError, one_line
from pipeline.sources.formats.parquet.tables import table_rows
from pipeline.sources.formats.text_lines import OddLine, bounded_lines
from pipeline.sources.listing import Entry
from pipeline.storage.filesystems import open_binary
from pipeline.storage.uris import join_uri, split_uri

S3_MANIFEST = "manifest.json"
"""AWS' name for the file that names the others."""


MANIFEST_BYTES = 64 * 2**20
"""The most that it may have; each file that it names stands for millions of objects."""

_BROKEN = (
    *(ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError),
    *(csv.Error, gzip.BadGzipFile, zlib.error),
)


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
            content = file.read(MANIFEST_BYTES + 1)
        if len(content) > MANIFEST_BYTES:
            raise ValueError(f"it has more than {MANIFEST_BYTES} bytes")
        manifest = json.loads(content)
        read = {"csv": _csv, "parquet": _parquet}[manifest["fileFormat"].lower()]
        names = [_plain(name) for name in manifest["fileSchema"].split(",")]
        target = manifest["destinationBucket"].removeprefix("arn:aws:s3:::")
        for described in manifest["files"]:
            with open_binary(_data_file(protocol, path, target, described["key"])) as file:
                for row in read(file, names):
                    if _is_current(row):
                        yield _entry(row)
    except _BROKEN as error:
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
    for cells in csv.reader(_lines(text)):
        row = dict(zip(names, cells, strict=True))
        yield row | {"key": unquote_plus(row["key"])}


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    for line in bounded_lines(text):
        if isinstance(line, OddLine):
            raise ValueError(line.reason)
        yield line


def _parquet(file: Any, names: list[str]) -> Iterator[dict[str, Any]]:
    for row in table_rows(file):
        if row is None:
            raise ValueError("a row is too large")
        yield {_plain(name): value for name, value in row.items()}


def _is_current(row: dict[str, Any]) -> bool:
    latest, deleted = (str(row.get(name, "")).lower() for name in ("islatest", "isdeletemarker"))
    return latest != "false" and deleted != "true" and not row["key"].endswith("/")


def _entry(row: dict[str, Any]) -> Entry:
    size = int(row["size"]) if row.get("size") not in (None, "") else None
    version = (row.get("etag") or "").strip('"') or f"{size}-{row.get('lastmodifieddate')}"
    return Entry(f"{row['bucket']}/{row['key']}", size, version)
