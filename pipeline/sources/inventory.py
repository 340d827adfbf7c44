"""The objects behind the INPUT arguments, streamed as LISTING tables.

Listing reads names, sizes and versions, and the lists that name images; never an image.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.manifest import describe_not_taken
from pipeline.contract.schema import KEPT, LISTING, NO_COLUMNS, with_kept
from pipeline.contract.spec import LISTED_PROTOCOLS, InputSpec
from pipeline.sources.exclusion import Exclusion, told
from pipeline.sources.formats.registry import SHARD_KINDS, Search, format_of_listed
from pipeline.sources.inputs import Leave, find_files, usage_errors
from pipeline.sources.kept_values import fitted_values
from pipeline.sources.listing import split_glob, uri_of_named
from pipeline.storage.filesystems import STORAGE_ERRORS, refusal_of_credentials
from pipeline.storage.uris import printable, split_uri, with_ancestors

CHUNK_ROWS = 10_000
CHUNK_BYTES = 16 * 2**20
"""Of names and kept values, about."""

_STORES = LISTED_PROTOCOLS - {"http", "https"}
MOST_STORES = 100
"""Accounts that a list may name; each is asked once."""
_TOO_MANY = f"the list names more than {MOST_STORES} accounts"
_WILDCARDS = set("*?[")
_GLOB_HINT = " (in a glob, * stops at a slash and ** does not)"

log = logging.getLogger(__name__)


def inventory(
    inputs: InputSpec,
    *,
    exclude: str = "",
    kept: pa.Schema = NO_COLUMNS,
    exclusion: Exclusion | None = None,
) -> Iterator[pa.Table]:
    """LISTING tables of at most ``CHUNK_ROWS`` rows, every URI once.

    Args:
        inputs: the INPUT arguments and how to read them.
        exclude: a URI below which nothing is listed (the output, when it lies in the input).
        kept: columns of lists that are carried along.
        exclusion: that of ``inputs``, if the caller wants to know how many it leaves out.

    Raises:
        UsageError: an INPUT does not exist, holds no images, or may not be listed; or two objects
            would have the same URI in the output.
    """
    once = _Once(always=len(inputs.uris) > 1)
    exclusion = exclusion or Exclusion(inputs.exclude)
    earlier = _Earlier(exclude)
    rows = (row for uri in inputs.uris for row in _wanted(uri, inputs, kept, exclusion, earlier))
    outside = printable(exclude).rstrip("/") + "/"
    if exclude:
        rows = (row for row in rows if not row["uri"].startswith(outside))
    found = False
    unique = _without_namesakes(filter(once.is_first, rows))
    for chunk in _chunks(unique):
        found = True
        yield _table(chunk, kept)
    if once.repeated:
        log.info("%d objects are named more than once; they are read once", once.repeated)
    if not found and exclusion.count:
        raise UsageError(f"<inputs.exclude> leaves out all {exclusion.count} images")
    if not found:
        raise UsageError(
            f"every image lies below the output, {exclude}, where nothing is listed; "
            "choose an <output.uri> outside the INPUT"
        )


def _chunks(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows for a table each, fewer where they carry much."""
    chunk: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += len(row["uri"]) + (_size_of(row[KEPT]) if KEPT in row else 0)
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _size_of(value: Any) -> int:
    """What a value takes, about."""
    if isinstance(value, dict | list):
        return sum(map(_size_of, value.values() if isinstance(value, dict) else value))
    return len(value) if isinstance(value, str | bytes) else 8


class _Once:
    """Finds repeated objects, which overlapping INPUTs and lists name twice; a hash per URI keeps
    the memory small. A walk through a single directory needs none."""

    def __init__(self, *, always: bool) -> None:
        self.always = always
        self.repeated = 0
        self._seen: set[int] = set()

    def is_first(self, row: dict[str, Any]) -> bool:
        if not (self.always or KEPT in row):
            return True
        before = len(self._seen)
        self._seen.add(hash(row["uri"]))
        is_first = len(self._seen) > before
        self.repeated += not is_first
        return is_first


def _without_namesakes(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same rows; refuses an image with the name of a member of a shard that is also listed."""
    shards: set[str] = set()
    for row in rows:
        uri = row["uri"]
        if row["kind"] in SHARD_KINDS:
            shards.add(uri)
        elif "#" in uri and shards:
            for shard in shards.intersection(with_ancestors(uri)):
                raise UsageError(
                    f"{uri} is a file and also the URI of a member of {shard}, so they would share "
                    "a row; rename one of them, or give INPUTs that leave one out"
                )
        yield row


def _table(rows: list[dict[str, Any]], kept: pa.Schema) -> pa.Table:
    schema = with_kept(LISTING, kept)
    if len(kept):
        rows = [
            row | {KEPT: fitted_values(row[KEPT], kept)} if row.get(KEPT) else row for row in rows
        ]
    return pa.Table.from_pylist(rows, schema=schema)


class _Earlier:
    """What INPUTs before this one have searched; files of other kinds there are counted already.
    Those below the output never are."""

    def __init__(self, outside: str) -> None:
        self._roots = {printable(outside).rstrip("/")} if outside else set()
        self._patterns: list[re.Pattern[str]] = []

    def add(self, uri: str) -> None:
        """Note an INPUT that has been searched."""
        protocol, path = split_uri(uri)
        pattern = split_glob(protocol, path)[1]
        if pattern is None:
            self._roots.add(uri_of_named(uri).rstrip("/"))
        else:
            self._patterns.append(pattern)

    def holds(self, uri: str) -> bool:
        """Whether a file lies below one, or matches one."""
        end = uri.rfind("/")
        while end >= 0:
            if uri[:end] in self._roots:
                return True
            end = uri.rfind("/", 0, end)
        return any(pattern.match(split_uri(uri)[1]) for pattern in self._patterns)


def _wanted(
    uri: str, inputs: InputSpec, kept: pa.Schema, exclusion: Exclusion, earlier: _Earlier
) -> Iterator[dict[str, Any]]:
    is_kept = exclusion.keeps(uri)
    before = Counter(exclusion.others.numbers)
    found = False
    leave = exclusion.counts(uri, earlier.holds)
    with usage_errors(uri):
        for row in _rows(uri, inputs, tuple(kept.names), leave):
            found = True
            if is_kept(row["uri"]):
                yield row
        earlier.add(uri)
    if not found:
        raise UsageError(_nothing_under(uri, inputs, exclusion.others.numbers - before))


def _nothing_under(uri: str, inputs: InputSpec, others: Counter[str]) -> str:
    looked_for = ", ".join(Search(inputs).suffixes)
    hint = _GLOB_HINT if _WILDCARDS & set(uri) else ""
    met = f"; {describe_not_taken(told(others))}" if others else ""
    return f"no images under {uri}; looked for {looked_for}{hint}{met}"


def _rows(
    uri: str, inputs: InputSpec, keep: tuple[str, ...], leave: Leave
) -> Iterator[dict[str, Any]]:
    """Rows of a LISTING; only those that come from a list have ``KEPT``."""
    for format, row in find_files(uri, inputs, leave):
        if format.listed is None:
            yield {"kind": format.kind, **row}
            continue
        for listed in _with_credentials(format.listed(row["uri"], inputs, keep)):
            yield {"kind": format_of_listed(listed["uri"]).kind, **listed}


def _with_credentials(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same rows; those in a store for which there are no credentials say so. If the list begins
    with one, it fails now: the list itself may lie elsewhere, and each image would be refused."""
    refusals: dict[str, str | None] = {}
    for row in rows:
        store = _store(row["uri"])
        if store is not None and store not in refusals:
            refusals[store] = _refusal(row["uri"]) if len(refusals) < MOST_STORES else _TOO_MANY
            if refusals[store] and len(refusals) == 1:
                raise PermissionError(refusals[store])
        refusal = refusals.get(store) if store else None
        yield row | {"refusal": f"no credentials: {refusal}"} if refusal else row


def _store(uri: str) -> str | None:
    """What credentials are for: a protocol, and the account if the URI names one (Azure's)."""
    protocol, _, path = uri.partition("://")
    _, at, account = path.partition("/")[0].rpartition("@")
    return f"{protocol}{at}{account if at else ''}" if protocol in _STORES else None


def _refusal(uri: str) -> str | None:
    """Why credentials for the store of this URI cannot be used, as far as that is known."""
    try:
        return refusal_of_credentials(uri)
    except UsageError as error:
        return one_line(error)
    except STORAGE_ERRORS:  # nobody answers, which says nothing about credentials
        return None
