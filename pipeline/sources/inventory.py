"""The objects behind the INPUT arguments, streamed as LISTING tables.

Listing reads names, sizes and versions, and the lists that name images; never an image.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.manifest import describe_not_taken
from pipeline.contract.schema import KEPT, LISTING, NO_COLUMNS, with_kept
from pipeline.contract.spec import LISTED_PROTOCOLS, InputSpec
from pipeline.output.ledger.hashes import Keys
from pipeline.sources.exclusion import Earlier, Exclusion, told
from pipeline.sources.formats.registry import (
    SHARD_KINDS,
    Search,
    format_of_listed,
    is_shard,
    shard_names,
)
from pipeline.sources.inputs import Leave, find_files, sort_out, usage_errors
from pipeline.sources.kept_values import fitted_values
from pipeline.sources.listing import Entry, Gathered
from pipeline.storage.filesystems import STORAGE_ERRORS, refusal_of_credentials
from pipeline.storage.objects.listing.stretches import Far, Helpers
from pipeline.storage.uris import printable, with_ancestors

Row = dict[str, Any]

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
    helpers: Helpers | None = None,
) -> Iterator[pa.Table]:
    """LISTING tables of at most ``CHUNK_ROWS`` rows, every URI once.

    Args:
        inputs: the INPUT arguments and how to read them.
        exclude: a URI below which nothing is listed (the output, when it lies in the input).
        kept: columns of lists that are carried along.
        exclusion: that of ``inputs``, if the caller wants to know how many it leaves out.
        helpers: other processes, which list what is long in object stores as soon as they can, and
            hash the names; with them, all tables have ``Keys``.

    Raises:
        UsageError: an INPUT does not exist, holds no images, or may not be listed; or two objects
            would have the same URI in the output.
    """
    once = _Once(always=len(inputs.uris) > 1)
    exclusion = exclusion or Exclusion(inputs.exclude)
    earlier = Earlier(exclude)
    sought = (_Sought(uri, inputs, kept, exclude, earlier) for uri in inputs.uris)
    wanted = (one for each in sought for one in _wanted(each, exclusion, helpers))
    found = False
    for table in _tables(_without_namesakes(once.first(wanted)), kept):
        found = True
        yield Keys.attach(table, shard_names(inputs)) if helpers else table
    if once.repeated:
        log.info("%d objects are named more than once; they are read once", once.repeated)
    if not found and exclusion.count:
        raise UsageError(f"<inputs.exclude> leaves out all {exclusion.count} images")
    if not found:
        raise UsageError(
            f"every image lies below the output, {exclude}, where nothing is listed; "
            "choose an <output.uri> outside the INPUT"
        )


def _tables(found: Iterable[Row | pa.Table], kept: pa.Schema) -> Iterator[pa.Table]:
    """Rows are put together, fewer where they carry much."""
    chunk: list[Row] = []
    size = 0
    for one in found:
        if isinstance(one, pa.Table):
            if chunk:
                yield _table(chunk, kept)
            yield one
            chunk, size = [], 0
            continue
        chunk.append(one)
        size += len(one["uri"]) + (_size_of(one[KEPT]) if KEPT in one else 0)
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield _table(chunk, kept)
            chunk, size = [], 0
    if chunk:
        yield _table(chunk, kept)


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

    def first(self, found: Iterable[Row | pa.Table]) -> Iterator[Row | pa.Table]:
        """The same without what is repeated."""
        for one in found:
            if isinstance(one, pa.Table):
                yield self._first_rows(one) if self.always else one
            elif not (self.always or KEPT in one) or self._is_first(one["uri"]):
                yield one

    def _first_rows(self, table: pa.Table) -> pa.Table:
        return table.filter(pa.array(map(self._is_first, table["uri"].to_pylist()), pa.bool_()))

    def _is_first(self, uri: str) -> bool:
        before = len(self._seen)
        self._seen.add(hash(uri))
        is_first = len(self._seen) > before
        self.repeated += not is_first
        return is_first


def _without_namesakes(found: Iterable[Row | pa.Table]) -> Iterator[Row | pa.Table]:
    """The same; refuses an image with the name of a member of a shard that is also listed."""
    shards: set[str] = set()
    for one in found:
        if isinstance(one, pa.Table):
            may_clash = pc.or_(is_shard(one["kind"]), pc.match_substring(one["uri"], "#"))
            for row in one.filter(may_clash).to_pylist():
                _check_name(row, shards)
        else:
            _check_name(one, shards)
        yield one


def _check_name(row: Row, shards: set[str]) -> None:
    uri = row["uri"]
    if row["kind"] in SHARD_KINDS:
        shards.add(uri)
    elif "#" in uri and shards:
        for shard in shards.intersection(with_ancestors(uri)):
            raise UsageError(
                f"{uri} is a file and also the URI of a member of {shard}, so they would share "
                "a row; rename one of them, or give INPUTs that leave one out"
            )


def _table(rows: list[dict[str, Any]], kept: pa.Schema) -> pa.Table:
    schema = with_kept(LISTING, kept)
    if len(kept):
        rows = [
            row | {KEPT: fitted_values(row[KEPT], kept)} if row.get(KEPT) else row for row in rows
        ]
    return pa.Table.from_pylist(rows, schema=schema)


@dataclass(frozen=True)
class _Sought:
    """What is looked for below an INPUT. It travels to whoever lists a part of it."""

    uri: str
    inputs: InputSpec
    kept: pa.Schema
    outside: str
    """Below which nothing is listed; empty for nowhere."""
    earlier: Earlier

    def __call__(self, entries: Iterable[Entry]) -> Gathered:
        """Of a part of the listing, what ``_wanted`` finds there, with ``Keys``."""
        exclusion = Exclusion(self.inputs.exclude)
        leave = exclusion.counts(self.uri, self.earlier.holds)
        found, lists, others = sort_out(entries, self.uri, self.inputs, leave)
        is_kept = self.keeps(exclusion)
        rows = [{"kind": format.kind, **row} for format, row in found if is_kept(row["uri"])]
        table = Keys.attach(_table(rows, self.kept), shard_names(self.inputs))
        numbers = exclusion.others.numbers
        return Gathered(table, lists, others, len(found), exclusion.count, numbers)

    def keeps(self, exclusion: Exclusion) -> Callable[[str], bool]:
        """Whether no pattern excludes an image, and it lies elsewhere than in the output."""
        is_kept = exclusion.keeps(self.uri)
        if not self.outside:
            return is_kept
        outside = printable(self.outside).rstrip("/") + "/"
        return lambda uri: is_kept(uri) and not uri.startswith(outside)


def _wanted(
    sought: _Sought, exclusion: Exclusion, helpers: Helpers | None
) -> Iterator[Row | pa.Table]:
    uri, before = sought.uri, Counter(exclusion.others.numbers)
    is_kept = sought.keeps(exclusion)
    leave = exclusion.counts(uri, sought.earlier.holds)
    found = False
    with usage_errors(uri):
        for one in _rows(sought, leave, Far(helpers, sought) if helpers else None):
            if isinstance(one, Gathered):
                found = found or one.number > 0
                exclusion.add(one.excluded, one.not_taken)
                if len(one.table):
                    yield one.table
                continue
            found = True
            if is_kept(one["uri"]):
                yield one
        sought.earlier.add(uri)
    if not found:
        raise UsageError(_nothing_under(uri, sought.inputs, exclusion.others.numbers - before))


def _nothing_under(uri: str, inputs: InputSpec, others: Counter[str]) -> str:
    looked_for = ", ".join(Search(inputs).suffixes)
    hint = _GLOB_HINT if _WILDCARDS & set(uri) else ""
    met = f"; {describe_not_taken(told(others))}" if others else ""
    return f"no images under {uri}; looked for {looked_for}{hint}{met}"


def _rows(
    sought: _Sought, leave: Leave, far: Far[Entry, Gathered] | None
) -> Iterator[Row | Gathered]:
    """Rows of a LISTING; only those that come from a list have ``KEPT``."""
    for one in find_files(sought.uri, sought.inputs, leave, far):
        if isinstance(one, Gathered):
            yield one
            continue
        format, row = one
        if format.listed is None:
            yield {"kind": format.kind, **row}
            continue
        keep = tuple(sought.kept.names)
        for listed in _with_credentials(format.listed(row["uri"], sought.inputs, keep)):
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
