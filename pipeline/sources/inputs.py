"""What lies behind an INPUT argument: images, shards and lists, by their names and footers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.spec import IMAGE_COLUMNS, URI_COLUMNS, InputSpec
from pipeline.sources.formats.kinds import Kind, kind_of_found, kind_of_named
from pipeline.sources.formats.list_files import LIST_SUFFIXES, read_schema
from pipeline.sources.formats.lists import find_uri_column
from pipeline.sources.formats.parquet import find_image_column
from pipeline.sources.formats.s3_inventory import reported_objects
from pipeline.sources.listing import Entry, single, split_glob, walk
from pipeline.storage.filesystems import STORAGE_ERRORS
from pipeline.storage.uris import is_web, join_uri, printable, split_uri

Object = tuple[Kind, dict[str, Any]]
"""A kind, and uri, source_version and size_bytes of a LISTING."""


def objects(uri: str, inputs: InputSpec) -> Iterator[Object]:
    """The images, shards and lists of one INPUT.

    Raises:
        UsageError: it is a table or a report without what a listing needs.
        OSError: the storage failed; FileNotFoundError if there is no such INPUT.
    """
    if is_web(uri):
        raise UsageError(
            f"{uri} is no INPUT: the web is read only where a list names its URIs; "
            "write them into a .txt file, one a line"
        )
    protocol, path = split_uri(uri)
    entry = single(protocol, path)
    if entry is None:
        yield from _settle_tables(_found(protocol, path, inputs), inputs)
        return
    kind = kind_of_named(path, inputs.format)
    if kind is Kind.INVENTORY:
        yield from _settle_tables(_reported(uri, inputs), inputs)
    else:
        row = _row(protocol, entry)
        yield _kind_of_table(row["uri"], inputs, named=True) if kind is Kind.PARQUET else kind, row


def _found(protocol: str, path: str, inputs: InputSpec) -> Iterator[Object]:
    """What lies below a directory or prefix, or matches a glob; lists only if it ends like one."""
    root, pattern = split_glob(protocol, path)
    names_lists = pattern is not None and path.lower().endswith(LIST_SUFFIXES)
    for entry in walk(protocol, root.rstrip("/") or root):
        if pattern is None or pattern.match(entry.path):
            kind = Kind.LIST if names_lists else kind_of_found(entry.path, inputs)
            if kind is not None:
                yield kind, _row(protocol, entry)


def _reported(uri: str, inputs: InputSpec) -> Iterator[Object]:
    for entry in reported_objects(uri):
        kind = kind_of_found(entry.path, inputs)
        if kind is not None:
            yield kind, _row("s3", entry)


def _settle_tables(found: Iterable[Object], inputs: InputSpec) -> Iterator[Object]:
    """Tell Parquet files with images from lists; the first one decides for all.

    Beside images or shards, Parquet lists are left alone: there they describe their neighbours.
    """
    table_kind: Kind | None = None
    lists: list[Object] = []
    is_empty = True
    for kind, row in found:
        if kind is Kind.PARQUET:
            table_kind = table_kind or _kind_of_table(row["uri"], inputs)
            if table_kind is Kind.LIST:
                lists.append((table_kind, row))
                continue
        is_empty = False
        yield kind, row
    if is_empty:
        yield from lists


def _kind_of_table(uri: str, inputs: InputSpec, *, named: bool = False) -> Kind:
    """Whether a Parquet file holds images, or names them."""
    try:
        schema = read_schema(uri)
    except UsageError:  # damaged: reading it will end in a row that says so
        return Kind.PARQUET
    if find_image_column(schema, inputs.image_column):
        return Kind.PARQUET
    if inputs.image_column is None and (not named or find_uri_column(schema, inputs.uri_column)):
        return Kind.LIST
    images = inputs.image_column or ", ".join(IMAGE_COLUMNS)
    raise UsageError(
        f"{uri} has neither a column of image bytes ({images}) nor one of URIs "
        f"({inputs.uri_column or ', '.join(URI_COLUMNS)}) but {', '.join(schema.names)}; "
        "name one by <inputs.image_column> or <inputs.uri_column>"
    )


def _row(protocol: str, entry: Entry) -> dict[str, Any]:
    return {
        "uri": join_uri(protocol, printable(entry.path)),
        "source_version": entry.version,
        "size_bytes": entry.size,
    }


@contextmanager
def usage_errors(uri: str) -> Iterator[None]:
    """Turn what the storage says of an INPUT into one line that says what to change."""
    try:
        yield
    except PermissionError as error:
        raise UsageError(
            f"access to {uri} is denied ({one_line(error)}); check the credentials in the "
            "environment and the permission to list"
        ) from error
    except FileNotFoundError as error:
        raise UsageError(f"{uri} does not exist; check the INPUT argument") from error
    except STORAGE_ERRORS as error:
        raise UsageError(f"cannot list {uri}: {one_line(error)}") from error
