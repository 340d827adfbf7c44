"""What a file is, and how it is read: one entry for each format of input files.

The listing, the reading of shards, ``--keep`` and the ledger all ask here. A new format is a module
beside this one that reads it, and an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.schema import NO_COLUMNS
from pipeline.contract.spec import SHARD_SUFFIXES, InputFormat, InputSpec, suffixes
from pipeline.output.ledger.hashes import USUAL_SHARDS, ShardNames
from pipeline.sources.formats.item import Item, ReadOptions
from pipeline.sources.formats.list_files import TEXT_SUFFIXES
from pipeline.sources.formats.lists import list_columns, listed_objects
from pipeline.sources.formats.parquet.files import PARQUET_SUFFIXES, parquet_columns
from pipeline.sources.formats.parquet.rows import parquet_members
from pipeline.sources.formats.s3_inventory import S3_MANIFEST, reported_objects
from pipeline.sources.formats.tar.members import tar_columns, tar_members
from pipeline.sources.listing import Entry, uri_of_named
from pipeline.storage.files import FileStream
from pipeline.storage.uris import is_web

Members = Callable[[FileStream, Item, Set[str], int, ReadOptions], Iterator[Item]]
"""``(file, base, done, max_bytes, options)``: the images of a shard as items derived from ``base``,
except those whose URIs are in ``done``. An item's URI is the shard's, "#" and a name of its own.

Raises:
    ShardError: the shard, or the rest of it, cannot be read; or it holds no image.
    FetchError: the storage failed.
"""


def _no_members(*_: Any) -> Iterator[Item]:
    return iter(())


def _no_columns(uri: str, inputs: InputSpec) -> pa.Schema:
    return NO_COLUMNS


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of input files."""

    kind: str
    """Its value in the column ``kind`` of a LISTING."""
    word: InputFormat
    """What ``--input-format`` calls it."""
    suffixes: tuple[str, ...] = ()
    """The endings of its names, in lower case; for images, those of ``--extensions``."""
    is_sought: bool = True
    """Whether directories, prefixes, globs and reports are searched for it without being asked;
    lists and reports found there describe their neighbours."""
    members: Members = _no_members
    """Reads the images of a shard; only shards have members."""
    is_streamed: bool = False
    """Whether a shard is read from start to end; in others, the reader seeks."""
    columns: Callable[[str, InputSpec], pa.Schema] = _no_columns
    """The columns that a file has beside its images, or their names, and ``--keep`` can name."""
    listed: Callable[[str, InputSpec, tuple[str, ...]], Iterator[dict[str, Any]]] | None = None
    """``(uri, inputs, keep)``: LISTING rows, without their kind, for what a list names."""
    reported: Callable[[str], Iterator[Entry]] | None = None
    """The objects that a report lists; they are searched like those of a directory."""

    @property
    def is_shard(self) -> bool:
        """Whether a file holds many images, each with a row of its own."""
        return self.members is not _no_members


IMAGE = Format(kind="image", word="images")
WEBDATASET = Format(
    kind="webdataset",
    word="webdataset",
    suffixes=SHARD_SUFFIXES["webdataset"],
    members=tar_members,
    is_streamed=True,
    columns=tar_columns,
)
PARQUET = Format(
    kind="parquet",
    word="parquet",
    suffixes=PARQUET_SUFFIXES,
    members=parquet_members,
    columns=parquet_columns,
)
LIST = Format(
    kind="list",
    word="list",
    suffixes=(*TEXT_SUFFIXES, *PARQUET_SUFFIXES),
    is_sought=False,
    columns=list_columns,
    listed=listed_objects,
)
S3_INVENTORY = Format(
    kind="inventory",
    word="inventory",
    suffixes=(f"/{S3_MANIFEST}",),
    is_sought=False,
    reported=reported_objects,
)

FORMATS = (IMAGE, WEBDATASET, PARQUET, LIST, S3_INVENTORY)
"""If a name matches several formats, the first one wins: a Parquet file is a list only if it is
requested as one, or holds no images."""

_BY_KIND = {format.kind: format for format in FORMATS}
_BY_WORD = {format.word: format for format in FORMATS}
_SHARDS = tuple(format for format in FORMATS if format.is_shard)
SHARD_KINDS = frozenset(format.kind for format in _SHARDS)


def format_of_kind(kind: str) -> Format:
    """The format that has this kind in a LISTING."""
    return _BY_KIND[kind]


def is_shard(kinds: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which rows of a LISTING are shards, by its column ``kind``; all others are images."""
    return pc.is_in(kinds, pa.array(SHARD_KINDS))


def format_of_named(path: str, asked: InputFormat) -> Format:
    """The format of an INPUT that names a file: the one requested, or the one that its name
    suggests, or an image."""
    return _BY_WORD[asked] if asked != "auto" else _first(FORMATS, path) or IMAGE


def format_of_listed(uri: str) -> Format:
    """The format of what a list names: a shard if its name ends like one, or an image."""
    return IMAGE if is_web(uri) else _first(_SHARDS, uri) or IMAGE


def _first(formats: tuple[Format, ...], path: str) -> Format | None:
    lowered = f"/{path.lower()}"
    return next((format for format in formats if lowered.endswith(format.suffixes)), None)


class Search:
    """Which files of a directory, prefix, glob or report are taken, and as what, by their names."""

    def __init__(self, inputs: InputSpec) -> None:
        as_usual = inputs.format == "auto" or _BY_WORD[inputs.format].reported is not None
        self._wanted = [
            (format.suffixes or suffixes(inputs.extensions), format)
            for format in FORMATS
            if (format.is_sought if as_usual else format.word == inputs.format)
        ]

    def format_of(self, path: str) -> Format | None:
        """The format of the object, None if it is ignored."""
        lowered = path.lower()
        for ends, format in self._wanted:
            if lowered.endswith(ends):
                return format
        return None

    @property
    def suffixes(self) -> list[str]:
        """The endings of the names that are taken."""
        return [suffix for ends, _ in self._wanted for suffix in ends]


def shard_names(inputs: InputSpec) -> ShardNames:
    """How the ledger of a run recognises members of shards: by the usual endings, or by an INPUT
    that was requested as a shard."""
    usual = USUAL_SHARDS.suffixes
    asked = inputs.format != "auto" and _BY_WORD[inputs.format].is_shard
    named = map(uri_of_named, inputs.uris if asked else ())
    return ShardNames(usual, frozenset(uri for uri in named if not uri.lower().endswith(usual)))
