"""What lies behind an INPUT argument: images, shards and lists, by their names and footers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from typing import Any, TypeVar, cast, overload

import pyarrow as pa

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.spec import IMAGE_COLUMNS, URI_COLUMNS, InputSpec
from pipeline.sources.exclusion import Exclusion
from pipeline.sources.formats.lists import find_uri_column
from pipeline.sources.formats.parquet.files import (
    find_image_column,
    parquet_footer,
    parquet_schema,
)
from pipeline.sources.formats.registry import LIST, PARQUET, Format, Search, format_of_named
from pipeline.sources.listing import Entry, Gathered, named_entry, split_glob, uri_of, walk
from pipeline.storage.filesystems import STORAGE_ERRORS, refusal_of_credentials
from pipeline.storage.objects.listing.stretches import Far
from pipeline.storage.read_ahead import map_ahead
from pipeline.storage.uris import is_web, join_uri, split_uri

LOOKED_INTO_AT_ONCE = 1000
"""Listed files among which Parquet files are opened side by side; a page of S3's listings."""

Found = tuple[Format, dict[str, Any]]
"""The format of a file, and its row in a LISTING, as far as it is known."""
Leave = Callable[[str], object]
"""Is told the URI of every file that is not taken, while others beside it are looked for."""

G = TypeVar("G")

log = logging.getLogger(__name__)


@overload
def find_files(uri: str, inputs: InputSpec, leave: Leave = ...) -> Iterator[Found]: ...
@overload
def find_files(
    uri: str, inputs: InputSpec, leave: Leave, far: Far[Entry, Gathered] | None
) -> Iterator[Found | Gathered]: ...
def find_files(
    uri: str,
    inputs: InputSpec,
    leave: Leave = lambda uri: None,
    far: Far[Entry, Gathered] | None = None,
) -> Iterator[Found | Gathered]:
    """The images, shards and lists of one INPUT.

    Args:
        uri: the INPUT.
        inputs: how to read it.
        leave: is told of what is not taken.
        far: where stretches of a long listing can be gathered.

    Raises:
        UsageError: it is a Parquet file or a report without what a listing needs.
        OSError: the storage failed; FileNotFoundError if there is no such INPUT.
    """
    if is_web(uri):
        raise UsageError(
            f"{uri} cannot be an INPUT: web images are read only from lists; "
            "write their URLs into a .txt file, one per line"
        )
    protocol, path = split_uri(uri)
    entry = named_entry(protocol, path)
    if entry is None:
        root, _ = split_glob(protocol, path)
        is_kept = Exclusion(inputs.exclude).keeps(join_uri(protocol, path))
        entries = walk(protocol, root.rstrip("/") or root, lambda uri: not is_kept(f"{uri}/x"), far)
        yield from _settle_parquet(_searched(entries, protocol, path, inputs, leave), inputs, leave)
        return
    format = format_of_named(path, inputs.format)
    if format.reported is not None:
        reported = _taken("s3", format.reported(uri), Search(inputs), leave)
        yield from _settle_parquet(reported, inputs, leave)
        return
    row = _row(protocol, entry)
    yield _named_parquet(row, inputs) if format is PARQUET else (format, row)


def sort_out(
    entries: Iterable[Entry], uri: str, inputs: InputSpec, leave: Leave
) -> tuple[list[Found], list[dict[str, Any]], list[str]]:
    """Of some of the entries below an INPUT: images and shards; lists; and the URIs of Parquet
    files that are neither."""
    found = _looked_into(_searched(entries, *split_uri(uri), inputs, leave), inputs)
    taken: list[Found] = []
    lists: list[dict[str, Any]] = []
    others: list[str] = []
    for format, row in found:
        if format is LIST:
            lists.append(row)
        elif format is None:
            others.append(row["uri"])
        else:
            taken.append((format, row))
    return taken, lists, others


def _searched(
    entries: Iterable[Entry | G], protocol: str, path: str, inputs: InputSpec, leave: Leave
) -> Iterator[Found | G]:
    """What is taken of the entries below a directory or prefix, or of those that match a glob;
    lists only if the glob names them by their ending."""
    _, pattern = split_glob(protocol, path)
    if pattern is None:
        yield from _taken(protocol, entries, Search(inputs), leave)
        return
    matching = (
        entry for entry in entries if not isinstance(entry, Entry) or pattern.match(entry.path)
    )
    if format_of_named(path, inputs.format) is LIST:
        inputs = replace(inputs, format=LIST.word)
    yield from _taken(protocol, matching, Search(inputs), leave)


def _taken(
    protocol: str, entries: Iterable[Entry | G], search: Search, leave: Leave
) -> Iterator[Found | G]:
    for entry in entries:
        if not isinstance(entry, Entry):
            yield entry
            continue
        format = search.format_of(entry.path)
        if format is None:
            leave(uri_of(protocol, entry.path))
        else:
            yield format, _row(protocol, entry)


def _settle_parquet(
    found: Iterable[Found | Gathered], inputs: InputSpec, leave: Leave
) -> Iterator[Found | Gathered]:
    """Tell Parquet files with images from lists and other tables, each by its own columns.

    Lists beside images or shards are left out: there they describe their neighbours.
    """
    lists: list[Found] = []
    others: list[str] = []
    is_empty = True
    for one in _looked_into(found, inputs):
        if isinstance(one, Gathered):
            lists += [(LIST, row) for row in one.lists]
            others += one.others
            is_empty = is_empty and not one.number
            yield one
            continue
        format, row = one
        if format is LIST:
            lists.append((LIST, row))
        elif format is None:
            others.append(row["uri"])
        else:
            is_empty = False
            yield format, row
    if is_empty:
        yield from lists
        if others and not lists:
            raise UsageError(_without_images(others[0], parquet_schema(others[0]), inputs))
    else:
        others += [row["uri"] for _, row in lists]
    if others:
        log.warning("%d Parquet files without images left out, such as %s", len(others), others[0])
    for uri in others:
        leave(uri)


def _looked_into(
    found: Iterable[Found | G], inputs: InputSpec
) -> Iterator[tuple[Format | None, dict[str, Any]] | G]:
    """The same files, with what Parquet files turn out to be."""
    for kind, some in groupby(found, type):
        if kind is tuple:
            yield from _files_looked_into(cast(Iterator[Found], some), inputs)
        else:
            yield from cast(Iterator[G], some)


def _files_looked_into(
    found: Iterator[Found], inputs: InputSpec
) -> Iterator[tuple[Format | None, dict[str, Any]]]:
    while chunk := list(islice(found, LOOKED_INTO_AT_ONCE)):
        uris = [row["uri"] for format, row in chunk if format is PARQUET]
        if not uris:
            yield from chunk
            continue
        looked_into = map_ahead(partial(_parquet, inputs=inputs), uris)
        for format, row in chunk:
            if format is PARQUET:
                settled, images = next(looked_into)
                yield settled, _with_images(row, images)
            else:
                yield format, row


def _parquet(uri: str, inputs: InputSpec) -> tuple[Format | None, int | None]:
    """Whether a Parquet file holds images, and how many, or names them, or neither."""
    try:
        schema, rows = parquet_footer(uri)
    except (UsageError, *STORAGE_ERRORS):  # reading it will end in a row that says so
        return PARQUET, None
    if find_image_column(schema, inputs.image_column):
        return PARQUET, rows
    is_list = inputs.image_column is None and find_uri_column(schema, inputs.uri_column)
    return (LIST if is_list else None), None


def _with_images(row: dict[str, Any], images: int | None) -> dict[str, Any]:
    """The row of a file with so many images, unless it is too small for them: anybody can forge
    a footer."""
    is_likely = images is not None and images <= row["size_bytes"]
    return row | {"images": images} if is_likely else row


def _named_parquet(row: dict[str, Any], inputs: InputSpec) -> Found:
    """The same for one that an INPUT names."""
    format, images = _parquet(row["uri"], inputs)
    if format is None:
        raise UsageError(_without_images(row["uri"], parquet_schema(row["uri"]), inputs))
    return format, _with_images(row, images)


def _without_images(uri: str, schema: pa.Schema, inputs: InputSpec) -> str:
    images = inputs.image_column or ", ".join(IMAGE_COLUMNS)
    return (
        f"{uri} has neither a column of image bytes ({images}) nor one of URIs "
        f"({inputs.uri_column or ', '.join(URI_COLUMNS)}) but {', '.join(schema.names)}; "
        "name one with <inputs.image_column> or <inputs.uri_column>"
    )


def _row(protocol: str, entry: Entry) -> dict[str, Any]:
    return {
        "uri": uri_of(protocol, entry.path),
        "source_version": entry.version,
        "size_bytes": entry.size,
    }


@contextmanager
def usage_errors(uri: str) -> Iterator[None]:
    """Turn storage errors about an INPUT into one line that says what to change.

    Raises:
        UsageError: the storage failed.
    """
    try:
        yield
    except PermissionError as error:
        reason = refusal_of_credentials(uri) or one_line(error)  # an answer to HEAD gives none
        raise UsageError(
            f"access to {uri} is denied ({reason}); check the credentials in the "
            "environment and the permission to list, or leave it out with <inputs.exclude>"
        ) from error
    except FileNotFoundError as error:
        raise UsageError(f"{uri} does not exist; check the INPUT argument") from error
    except STORAGE_ERRORS as error:
        raise UsageError(f"cannot list {uri}: {one_line(error)}") from error
