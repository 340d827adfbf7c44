"""What is there: the objects behind the INPUT arguments, streamed as LISTING tables.

Listing reads names, sizes and versions only, never the bytes of an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from itertools import islice
from typing import Any

import pyarrow as pa
from botocore.exceptions import BotoCoreError

from pipeline.errors import UsageError, one_line
from pipeline.schema import LISTING
from pipeline.spec import InputSpec, suffixes
from pipeline.storage import join_uri, printable, split_uri
from pipeline.tar import TAR_SUFFIXES
from pipeline.walk import Entry, single, split_glob, walk

CHUNK_ROWS = 10_000
STORAGE_ERRORS = (OSError, BotoCoreError)


class Kind(StrEnum):
    """What an object holds."""

    IMAGE = "image"
    WEBDATASET = "webdataset"


def kind_of(path: str, inputs: InputSpec) -> Kind | None:
    """What a listed object is by its extension, None if the run does not want it."""
    lowered = path.lower()
    if inputs.format != "webdataset" and lowered.endswith(suffixes(inputs.extensions)):
        return Kind.IMAGE
    if inputs.format != "images" and lowered.endswith(TAR_SUFFIXES):
        return Kind.WEBDATASET
    return None


def inventory(inputs: InputSpec, *, exclude: str = "") -> Iterator[pa.Table]:
    """LISTING tables of at most ``CHUNK_ROWS`` rows, every uri once.

    Args:
        inputs: the INPUT arguments and how to read them.
        exclude: a URI below which nothing is listed (the output, when it lies in the input).

    Raises:
        UsageError: an INPUT does not exist, holds no images, or may not be listed.
    """
    entries = (entry for uri in inputs.uris for entry in _checked(uri, inputs))
    rows = _once(entries) if len(inputs.uris) > 1 else entries
    outside = exclude.rstrip("/") + "/"
    kept = (row for row in rows if not (exclude and row["uri"].startswith(outside)))
    found = False
    while chunk := list(islice(kept, CHUNK_ROWS)):
        found = True
        yield pa.Table.from_pylist(chunk, schema=LISTING)
    if not found:
        raise UsageError(
            f"every image lies below the output, {exclude}, where nothing is listed; "
            "choose an --output outside the INPUT"
        )


def _once(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Overlapping INPUTs name the same object twice; a hash per uri keeps the memory small."""
    seen: set[int] = set()
    for row in rows:
        key = hash(row["uri"])
        if key not in seen:
            seen.add(key)
            yield row


def _checked(uri: str, inputs: InputSpec) -> Iterator[dict[str, Any]]:
    """The rows of one INPUT, its storage errors turned into usage errors."""
    found = False
    try:
        for row in _rows(uri, inputs):
            found = True
            yield row
    except PermissionError as error:
        raise UsageError(
            f"access to {uri} is denied ({one_line(error)}); check the credentials in the "
            "environment and the permission to list"
        ) from error
    except FileNotFoundError as error:
        raise UsageError(f"{uri} does not exist; check the INPUT argument") from error
    except STORAGE_ERRORS as error:
        raise UsageError(f"cannot list {uri}: {one_line(error)}") from error
    if not found:
        raise UsageError(
            f"no images under {uri}; looked for .tar shards and {', '.join(inputs.extensions)}"
        )


def _rows(uri: str, inputs: InputSpec) -> Iterator[dict[str, Any]]:
    protocol, path = split_uri(uri)
    named = single(protocol, path)
    if named is not None:
        # A file that is named is taken as an image, whatever its extension.
        yield _row(protocol, named, kind_of(path, replace(inputs, format="auto")) or Kind.IMAGE)
        return
    root, pattern = split_glob(protocol, path)
    for entry in walk(protocol, root.rstrip("/") or root):
        kind = kind_of(entry.path, inputs)
        if kind is not None and (pattern is None or pattern.match(entry.path)):
            yield _row(protocol, entry, kind)


def _row(protocol: str, entry: Entry, kind: Kind) -> dict[str, Any]:
    return {
        "uri": join_uri(protocol, printable(entry.path)),
        "kind": kind.value,
        "source_version": entry.version,
        "size_bytes": entry.size,
    }
