"""Lists of images: files in which each row names an image, by URI or by path."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.contract.errors import UsageError
from pipeline.contract.schema import KEPT
from pipeline.contract.spec import URI_COLUMNS, InputSpec
from pipeline.sources.formats.list_files import open_records
from pipeline.sources.listing import local_entry
from pipeline.storage.uris import join_uri, local_path, printable, split_uri

log = logging.getLogger(__name__)


def find_uri_column(schema: pa.Schema, wanted: str | None) -> str | None:
    """The column of a list that names the images, None if there is none."""
    for name in (wanted,) if wanted else URI_COLUMNS:
        if name in schema.names and _is_text(schema.field(name).type):
            return name
    return None


def list_columns(uri: str, inputs: InputSpec) -> pa.Schema:
    """The columns beside the one that names the images.

    Raises:
        UsageError: it is not a list.
        OSError: the storage failed.
    """
    with open_records(uri, inputs.uri_column) as records:
        uri_column = find_uri_column(records.schema, inputs.uri_column)
        return pa.schema([field for field in records.schema if field.name != uri_column])


def listed_objects(
    uri: str, uri_column: str | None, keep: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """LISTING rows, without their kind, for what a list names, in its order.

    A local image has the version that a listing of its directory would give it. All others are not
    looked up: their version is a hash of their whole row, so that the next run skips an unchanged
    row without a request, wherever in the list it then is. If an image changes and keeps its name,
    this is noticed only if the row changes, in a column such as an ETag or a date; a list of bare
    URIs cannot show it.

    Args:
        uri: the list. Relative paths in it are relative to its own directory.
        uri_column: the column with the names; None for the first of ``URI_COLUMNS``.
        keep: columns that are carried along; they are part of a local image's version, too.

    Raises:
        UsageError: it is not a list, or has no such column.
    """
    with open_records(uri, uri_column) as records:
        column = find_uri_column(records.schema, uri_column)
        if column is None:
            raise UsageError(_no_column(uri, uri_column, records.schema))
        empty = 0
        for record in records.rows:
            name = record.get(column)
            if not name:
                empty += 1
                continue
            kept = {key: record[key] for key in keep if key in record}
            yield _described(_absolute(name, uri), record, kept)
    if empty:
        log.warning("%d rows of %s name nothing", empty, uri)


def _is_text(stored: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(stored) for test in tests)


def _no_column(uri: str, wanted: str | None, schema: pa.Schema) -> str:
    looked = wanted or ", ".join(URI_COLUMNS)
    return (
        f"{uri} has no text column named {looked}; it has {', '.join(schema.names)}: "
        "name the one with the images with <inputs.uri_column>"
    )


def _absolute(name: str, list_uri: str) -> str:
    """The URI that a list means by a name."""
    if "://" in name:
        return join_uri(*split_uri(name))
    protocol, path = split_uri(list_uri)
    if protocol == "file" or name.startswith("/"):
        return printable(os.path.normpath(os.path.join(os.path.dirname(path), name)))
    return join_uri(protocol, f"{path.rpartition('/')[0]}/{name.removeprefix('./')}")


def _described(uri: str, record: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"uri": uri, KEPT: kept, "size_bytes": None}
    if split_uri(uri)[0] != "file":
        return row | {"source_version": f"row-{_digest(record)}"}
    try:
        entry = local_entry(uri, os.stat(local_path(uri)))
    except OSError:
        return row | {"source_version": "missing"}
    mark = f"-row-{_digest(kept)}" if kept else ""
    return row | {"source_version": f"{entry.version}{mark}", "size_bytes": entry.size}


def _digest(values: dict[str, Any]) -> str:
    """16 hex digits; equal rows have equal ones in every process."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
