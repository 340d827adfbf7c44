"""Listing storage: what lies below a directory, a prefix or a glob, one entry per object."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
from fsspec.utils import glob_translate

from pipeline.contract.errors import UsageError, one_line
from pipeline.storage.filesystems import filesystem, is_made_up
from pipeline.storage.objects.filesystem import ObjectFileSystem, is_no_marker
from pipeline.storage.objects.listing.by_prefixes import Info
from pipeline.storage.objects.listing.stretches import Far
from pipeline.storage.objects.s3.pages import Listed, list_objects
from pipeline.storage.uris import join_uri, printable, split_uri

_GLOB_CHARACTERS = re.compile(r"[*?\[]")
_SPECIAL = "a pipe, a device or a socket is no INPUT; write what it says into a file"
MayBeClosed = Callable[[str], bool]
G = TypeVar("G")

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One listed object. ``path`` is the filesystem's own name for it, without a scheme."""

    path: str
    size: int | None
    version: str


@dataclass(frozen=True)
class Gathered:
    """In the place of many entries: what another process, which listed them, has made of them."""

    table: pa.Table
    """LISTING rows of the images and shards that are taken."""
    lists: list[dict[str, Any]]
    """Rows of the lists among them."""
    others: list[str]
    """URIs of Parquet files that are neither."""
    number: int
    """Of the images and shards that were found, with those that are excluded."""
    excluded: int
    not_taken: Counter[str]
    """Files of other kinds, by their extensions."""


def split_glob(protocol: str, path: str) -> tuple[str, re.Pattern[str] | None]:
    """The directory above the first component with a wildcard, and the pattern of the whole path.

    A local directory whose name looks like a pattern is still a directory.

    Raises:
        UsageError: it is not a valid pattern.
    """
    wildcard = _GLOB_CHARACTERS.search(path)
    if wildcard is None or (protocol == "file" and os.path.isdir(path)):
        return path, None
    try:
        pattern = re.compile(glob_translate(path))
    except (ValueError, re.error) as error:
        raise UsageError(f"{path} is not a glob pattern: {one_line(error)}") from error
    return path[: path.rfind("/", 0, wildcard.start()) + 1], pattern


def uri_of_named(uri: str) -> str:
    """The URI under which a listing has the file that the user names so."""
    protocol, path = split_uri(uri)
    if protocol not in ("file", "s3"):  # other filesystems decide how they call the path
        path = str(filesystem(protocol)._strip_protocol(uri))
    return uri_of(protocol, path)


def uri_of(protocol: str, path: str) -> str:
    """The URI of an entry with this path."""
    return join_uri(protocol, printable(path))


def named_entry(protocol: str, path: str) -> Entry | None:
    """The object that the path names; None if it names a directory or a prefix."""
    if path.endswith("/"):
        return None
    if protocol == "file":
        return local_entry(path, os.stat(path)) if os.path.isfile(path) else None
    if protocol == "s3":
        return _s3_head(path)
    fs = filesystem(protocol)
    if isinstance(fs, ObjectFileSystem):
        found = fs.named(path)
        return _fsspec_entry(found) if found else None
    return _fsspec_entry(fs.info(path)) if fs.isfile(path) else None


def walk(
    protocol: str,
    root: str,
    may_be_closed: MayBeClosed = lambda uri: False,
    far: Far[Entry, Gathered] | None = None,
) -> Iterator[Entry | Gathered]:
    """Every object below a directory or prefix.

    Args:
        protocol: of the filesystem.
        root: its own name for the directory or prefix.
        may_be_closed: whether nothing is missed if a directory may not be read, by its URI.
        far: where stretches of a long listing can be gathered, if the store is one of those that
            list from any name on.

    Raises:
        OSError: the storage failed; FileNotFoundError if a local directory does not exist.
    """
    if protocol == "file":
        if not os.path.isdir(root):
            raise NotADirectoryError(_SPECIAL) if os.path.exists(root) else FileNotFoundError(root)
        return _walk_local(root, may_be_closed)
    if protocol == "s3":
        return _walk_s3(root, far)
    fs = filesystem(protocol)
    if isinstance(fs, ObjectFileSystem):
        return _walk_store(fs, root, far)
    found: dict[str, dict[str, Any]] = fs.find(root, detail=True)
    return map(_fsspec_entry, found.values())


def local_entry(path: str, status: os.stat_result) -> Entry:
    """A local file; its version is its size and modification time."""
    return Entry(path, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def _walk_local(root: str, may_be_closed: MayBeClosed) -> Iterator[Entry]:
    """Depth first, in order of name; symbolic links are followed, but not in circles. Without
    recursion, for directories may lie a thousand deep."""
    above: list[tuple[int, int]] = []
    levels: list[Iterator[os.DirEntry[str]]] = []

    def enter(directory: str) -> None:
        identity, children = _children(directory, may_be_closed)
        if identity not in above:
            above.append(identity)
            levels.append(iter(children))

    enter(root)
    while levels:
        child = next(levels[-1], None)
        if child is None:
            levels.pop()
            above.pop()
        elif os.path.isdir(child.path) if child.is_symlink() else child.is_dir():
            enter(child.path)
        elif (entry := _local_child(child)) is not None:
            yield entry


def _children(
    directory: str, may_be_closed: MayBeClosed
) -> tuple[tuple[int, int], list[os.DirEntry[str]]]:
    """Device and number of a directory, and what it holds in order of name; nothing if it is gone
    since its parent was read, cannot be reached, or is made up by the system, as /proc is."""
    try:
        status = os.stat(directory)
        if is_made_up(status):
            return (0, 0), []
        with os.scandir(directory) as scan:
            found = sorted(scan, key=lambda child: child.name)
    except FileNotFoundError:
        return (0, 0), []
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            log.warning("left out, for its path is too long to open: %s", one_line(directory))
        elif not (isinstance(error, PermissionError) and may_be_closed(uri_of("file", directory))):
            raise
        return (0, 0), []
    return (status.st_dev, status.st_ino), found


def _local_child(child: os.DirEntry[str]) -> Entry | None:
    """A file or a dangling link; None for anything else, or if it is gone by now."""
    if child.is_symlink() and not os.path.exists(child.path):
        return Entry(child.path, 0, "dangling-link")
    try:
        return local_entry(child.path, child.stat()) if child.is_file() else None
    except FileNotFoundError:
        return None


def _s3_head(path: str) -> Entry | None:
    bucket, _, key = path.partition("/")
    if not key:
        return None
    try:
        head = filesystem("s3").call_s3("head_object", Bucket=bucket, Key=key)
    except FileNotFoundError:
        return None
    return Entry(path, head["ContentLength"], head["ETag"].strip('"'))


def _walk_s3(root: str, far: Far[Entry, Gathered] | None) -> Iterator[Entry | Gathered]:
    bucket, _, prefix = root.partition("/")
    there = far.of(partial(_s3_objects, bucket)) if far else None
    found = list_objects(bucket, f"{prefix}/" if prefix else "", there)
    return _s3_entries(bucket, found)


def _s3_objects(bucket: str, found: Iterable[Listed]) -> Iterator[Entry]:
    return _s3_entries(bucket, found)


def _s3_entries(bucket: str, found: Iterable[Listed | G]) -> Iterator[Entry | G]:
    for one in found:
        if not isinstance(one, tuple):
            yield one
            continue
        key, size, etag = one
        if not key.endswith("/"):  # zero-byte markers of directories
            yield Entry(f"{bucket}/{key}", size, etag)


def _walk_store(
    store: ObjectFileSystem, root: str, far: Far[Entry, Gathered] | None
) -> Iterator[Entry | Gathered]:
    for found in store.below(root, far.of(_store_objects) if far else None):
        yield found if isinstance(found, Gathered) else _fsspec_entry(found)


def _store_objects(found: Iterable[Info]) -> Iterator[Entry]:
    return map(_fsspec_entry, filter(is_no_marker, found))


def _fsspec_entry(info: dict[str, Any]) -> Entry:
    size = int(info.get("size") or 0)
    names = ("ETag", "etag", "md5Hash", "content_md5", "updated", "mtime", "last_modified")
    stamp = next((info[name] for name in (*names, "created") if info.get(name)), "")
    return Entry(info["name"], size, f"{size}-{stamp}".strip('-"'))
