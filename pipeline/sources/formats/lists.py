"""Lists of images: files in which each row names an image, by URI or by path."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.schema import KEPT
from pipeline.contract.spec import URI_COLUMNS, InputSpec
from pipeline.contract.urls import has_password, row_uri
from pipeline.sources.formats.list_files import open_records
from pipeline.sources.formats.parquet.files import named_so
from pipeline.sources.formats.text_lines import OddLine
from pipeline.sources.listing import local_entry
from pipeline.storage.uris import is_web, join_uri, local_path, printable, split_uri

NAME_CHARACTERS = 2**20
"""The most that the name of an image may have; keys of S3 have 1024 bytes."""

log = logging.getLogger(__name__)


def find_uri_column(schema: pa.Schema, wanted: str | None) -> str | None:
    """The column of a list that names the images, None if there is none."""
    for name in named_so(schema.names, wanted, URI_COLUMNS):
        if _is_text(schema.types[schema.names.index(name)]):
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


def listed_objects(uri: str, inputs: InputSpec, keep: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """LISTING rows, without their kind, for what a list names, in its order. A line that names
    nothing for its own fault has a row, too: the list's name, "#" and its number.

    A local image has the version that a listing of its directory would give it. All others are not
    looked up: their version is a hash of their whole row, so that the next run skips an unchanged
    row without a request, wherever in the list it then is. If an image changes and keeps its name,
    this is noticed only if the row changes, in a column such as an ETag or a date; a list of bare
    URIs cannot show it.

    Args:
        uri: the list. Relative paths in it are relative to its own directory.
        keep: columns that are carried along; they are part of a local image's version, too.

    Raises:
        UsageError: it is not a list, or has no such column.
    """
    with open_records(uri, inputs.uri_column) as records:
        column = find_uri_column(records.schema, inputs.uri_column)
        if column is None:
            raise UsageError(_no_column(uri, inputs.uri_column, records.schema))
        meant = partial(_absolute, list_uri=uri, allow_local_files=inputs.allow_local_files)
        empty = 0
        for number, record in enumerate(records.rows, 1):
            line = f"{printable(uri)}#{number}"
            if isinstance(record, OddLine):
                yield _refused(line, record.reason)
            elif not (record.get(column) or "").strip():
                empty += 1
            else:
                yield _row(line, record, column, meant, keep)
    if empty:
        log.warning("%d rows of %s name nothing", empty, uri)


def named_objects(names: Iterable[str | None], directory: str) -> Iterator[dict[str, Any]]:
    """LISTING rows, without their kind, for names that stand in no list, one for each.

    An image that is not local has no version: it is not looked up, and nothing else is known of it.

    Args:
        directory: a local one, where relative paths begin.
    """
    beside = os.path.join(directory, "list")
    meant = partial(_absolute, list_uri=beside, allow_local_files=True)
    for name in names:
        if not (name or "").strip():
            yield _refused("", "it names nothing") | {"source_version": None}
            continue
        row = _row(name or "", {"uri": name}, "uri", meant, ())
        yield row if os.path.isabs(row["uri"]) else row | {"source_version": None}


def _row(
    line: str,
    record: dict[str, Any],
    column: str,
    meant: Callable[[str], str],
    keep: tuple[str, ...],
) -> dict[str, Any]:
    """The row of what a line names; of the line itself, if anything at all is wrong with it."""
    try:
        if len(record[column]) > NAME_CHARACTERS:
            raise ValueError(f"a name of {len(record[column])} characters")
        address = meant(record[column])
        kept = {key: record[key] for key in keep if key in record}
        uri = _shown(address)
        if uri == address:
            return _described(uri, record, kept)
        return _described(uri, record | {column: uri}, kept) | {"address": address}
    except Exception as error:  # noqa: BLE001  # whatever it is, other lines have done nothing
        return _refused(line, f"it names nothing that can be read: {one_line(error)}")


def _shown(address: str) -> str:
    """The URI as its row has it."""
    if is_web(address):
        return row_uri(address)
    if has_password(address):
        raise ValueError("its URI has a password in it")
    return address


def named_image(name: str, list_uri: str) -> str:
    """The URI that an image has in an output, as a file beside the images names it: it may be that
    URI itself, a URL with credentials, or a path, relative to the file's own directory."""
    if name.startswith("/"):
        return name
    return _shown(_absolute(name, list_uri=list_uri, allow_local_files=True))


def _refused(line: str, reason: str) -> dict[str, Any]:
    version = f"row-{_digest({'refusal': reason})}"
    return {"uri": line, KEPT: {}, "size_bytes": None, "source_version": version, "refusal": reason}


def _is_text(stored: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(stored) for test in tests)


def _no_column(uri: str, wanted: str | None, schema: pa.Schema) -> str:
    looked = wanted or ", ".join(URI_COLUMNS)
    return (
        f"{uri} has no text column named {looked}; it has {', '.join(schema.names)}: "
        "name the one with the images with <inputs.uri_column>"
    )


def _absolute(name: str, *, list_uri: str, allow_local_files: bool) -> str:
    """The URI that a list means by a name.

    Local files that a list from elsewhere must not name keep a scheme, ``file://``, which nothing
    that is read has.
    """
    base, path = split_uri(list_uri)
    if "://" in name:
        protocol, named = split_uri(name.strip() if is_web(name.strip()) else name)
        if protocol != "file":
            return join_uri(protocol, named)
    elif base != "file" and not name.startswith("/"):
        return join_uri(base, f"{path.rpartition('/')[0]}/{name.removeprefix('./')}")
    else:
        named = os.path.join(os.path.dirname(path), name)
    named = printable(os.path.normpath(named))
    return named if base == "file" or allow_local_files else f"file://{named}"


def _described(uri: str, record: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"uri": uri, KEPT: kept, "size_bytes": None}
    if "://" in uri:
        return row | {"source_version": f"row-{_digest(record)}"}
    try:
        entry = local_entry(uri, os.stat(local_path(uri)))
    except (OSError, ValueError):  # no file can have some names
        return row | {"source_version": "missing"}
    mark = f"-row-{_digest(kept)}" if kept else ""
    return row | {"source_version": f"{entry.version}{mark}", "size_bytes": entry.size}


def _digest(values: dict[str, Any]) -> str:
    """16 hex digits; equal rows have equal ones in every process."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
