"""The open run: what a run has committed but not yet published, and how it is continued.

    OUT/_open/<run_id>/open.json                  what the run is
    OUT/_open/<run_id>/parts/<attempt>-<wave>-<n>.parquet    rows, committed once computed

Exactly-once rests on three rules. A part is written under a name made of the attempt, its wave and
the number of Ray's write task, so that a retried task overwrites its own file. An attempt takes
over the parts that it finds when it starts, and no later ones, and writes their names into the
run's record: what a worker of a killed driver still commits afterwards belongs to no attempt,
neither this one nor the next. And the parts of a run are the ones that its closing attempt names,
not whatever lies in the directory.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.contract import layout
from pipeline.contract.errors import DamagedFileError, one_line
from pipeline.contract.provenance import Identity
from pipeline.contract.records import Record, omitted
from pipeline.output.identity import check_same
from pipeline.output.ledger.hashes import LEDGER_COLUMNS, ShardNames
from pipeline.output.ledger.ledger import Ledger
from pipeline.output.staged import withdraw
from pipeline.storage.parquet import read_columns
from pipeline.storage.read_ahead import map_ahead, together
from pipeline.storage.store import Store
from pipeline.storage.uris import with_ancestors

COMPACT = "compact"
"""The format of the input of a compaction, which is the output itself."""
_ADVICE = "finish it with its own settings, or start over with <policy.discard_open_run>"
_FOOTER = b"cvt.part"
_AFTER_MEMBERS = chr(ord("#") + 1)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Thumbnail(Record):
    """A sample for the report."""

    uri: str
    label: str | None
    jpeg: str
    """In base 64."""


@dataclass(frozen=True)
class PartFooter(Record):
    """What a part records beside its rows, in the same file, so that both are committed as one."""

    shards: Mapping[str, int] = field(default_factory=dict)
    """Shards whose last row is in this part, and how many rows they have in all."""
    thumbnails: tuple[Thumbnail, ...] = ()
    span: tuple[str, str] | None = None
    """No URI comes before the first of these, none after the second; None if nobody says so."""

    def spanning(self, uris: pa.ChunkedArray) -> PartFooter:
        """The same of a part with these URIs, of which there are some."""
        bounds = pc.min_max(uris).as_py()
        return replace(self, span=(bounds["min"], bounds["max"]))

    def attach(self, table: pa.Table) -> pa.Table:
        footer = json.dumps(self.to_dict()).encode()
        metadata = {**(table.schema.metadata or {}), _FOOTER: footer}
        return table.replace_schema_metadata(metadata)

    def keep(self, uris: pa.ChunkedArray) -> PartFooter:
        """What remains of it when only the rows with these URIs stay.

        A shard is stale only as a whole: if any of its rows stays, so does its last one.
        """
        rows = set(uris.to_pylist())
        shards = {shard for uri in rows for shard in with_ancestors(uri)}
        return PartFooter(
            {uri: number for uri, number in self.shards.items() if uri in shards},
            tuple(shot for shot in self.thumbnails if shot.uri in rows),
            self.span,
        )

    @classmethod
    def of(cls, schema: pa.Schema) -> PartFooter:
        """
        Raises:
            DamagedFileError: it is not what a write task attached.
        """
        return cls.from_json((schema.metadata or {}).get(_FOOTER, b"{}"), "what it records")


@dataclass(frozen=True)
class Part:
    """A committed file of an open run."""

    name: str
    rows: int
    footer: PartFooter

    def near(self, shards: Set[str]) -> list[str]:
        """Those of the shards of which it may have rows."""
        if self.footer.span is None:
            return list(shards)
        first, last = self.footer.span
        return [uri for uri in shards if uri <= last and first < uri + _AFTER_MEMBERS]


@dataclass(frozen=True)
class Deferred:
    """Work that the deadline left to the next run."""

    images: int = 0
    shards: frozenset[str] = frozenset()

    def __add__(self, other: Deferred) -> Deferred:
        return Deferred(self.images + other.images, self.shards | other.shards)


@dataclass(frozen=True)
class Committed:
    """The result of a write task, or of a whole execution."""

    parts: tuple[Part, ...] = ()
    deferred: Deferred = Deferred()

    def __add__(self, other: Committed) -> Committed:
        return Committed(self.parts + other.parts, self.deferred + other.deferred)


@dataclass(frozen=True, kw_only=True)
class OpenRecord(Record):
    """What an unfinished run is, as stored in ``open.json``."""

    when_damaged: ClassVar[str] = "remove it, and with it what the unfinished run has done"

    started: str = ""
    attempts: int = 1
    full: bool = False
    """Whether any attempt was asked to do everything again."""
    identity: Identity = field(default_factory=Identity)
    model: str | None = omitted()
    """Where its model was read from; only a name, and unknown of earlier versions."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """The properties of the INPUT that must stay the same for an attempt to continue the run."""
    attempt: str = ""
    """The last attempt, which wrote this."""
    parts: tuple[str, ...] = ()
    """The parts that it took over from earlier attempts."""

    @property
    def is_copy(self) -> bool:
        """Whether its rows are those of closed runs, so that nothing is lost with it."""
        return self.inputs.get("format") == COMPACT


@dataclass
class OpenRun:
    """A run between its start and its publication; without an ID, one that has done nothing."""

    store: Store
    run_id: str = ""
    record: OpenRecord = OpenRecord()
    parts: list[Part] = field(default_factory=list)
    """Committed by earlier attempts and taken over by this one."""
    attempt: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def directory(self) -> str:
        return layout.open_dir(self.run_id)

    @classmethod
    def begin(
        cls, store: Store, record: OpenRecord, closed: Iterable[str] | None = None
    ) -> OpenRun:
        """Start a run, after removing what is left of discarded ones. Writing its record also
        proves that the output can be written.

        Args:
            closed: IDs of closed runs, the newest among them, if they are known.
        """
        together(partial(store.clear, layout.OPEN), partial(withdraw, store))
        closed = store.children(layout.RUNS) if closed is None else closed
        run = cls(store, layout.new_run_id(closed), record)
        run.save()
        return run

    @classmethod
    def find(cls, store: Store) -> OpenRun | None:
        """The run that an earlier attempt left open, with the parts that it committed; the newest,
        if a listing had not shown one of them to the other."""
        for run_id in sorted(filter(layout.is_run_id, store.children(layout.OPEN)), reverse=True):
            record = store.read_record(OpenRecord, layout.open_record(run_id))
            if record is not None:
                run = cls(store, run_id, record)
                run.parts = list(run._committed())
                return run
        return None

    def save(self) -> None:
        """Write the record; from here on the run is this attempt's, with the parts it took over."""
        parts = tuple(part.name for part in self.parts)
        self.record = replace(self.record, attempt=self.attempt, parts=parts)
        self.store.write_json(self._record_name, self.record.to_dict())

    def take_up(self, *, full: bool) -> None:
        """Begin another attempt. Once an attempt was asked for a full run, it stays one."""
        record = self.record
        self.record = replace(record, attempts=record.attempts + 1, full=record.full or full)
        self.save()

    def check(self, identity: Identity, inputs: Mapping[str, Any]) -> None:
        """Only the command that began an open run may finish it.

        Raises:
            UsageError: the settings or the inputs differ.
        """
        ours = {**identity.to_dict(), "inputs": inputs}
        theirs = {**self.record.identity.to_dict(), "inputs": self.record.inputs}
        is_other = identity.weights_sha256 != self.record.identity.weights_sha256
        name = self.record.model if is_other else None
        advice = f"its model is <model.source> {name}: {_ADVICE}" if name else _ADVICE
        check_same(ours, theirs, f"the unfinished run {self.run_id}", advice)

    def discard(self) -> None:
        """Remove the run, its record first: without a record there is no open run, whatever an
        interruption leaves behind. What there is to remove is listed meanwhile."""
        remove_record = partial(self.store.remove_file, self._record_name)
        _, files = together(remove_record, partial(self.store.list, self.directory))
        files.pop(self._record_name, None)
        together(
            partial(self.store.clear, self.directory, files),
            partial(withdraw, self.store, layout.data_dir(self.run_id)),
        )

    @property
    def _record_name(self) -> str:
        return layout.open_record(self.run_id)

    def part_name(self, task: int, wave: int = 0) -> str:
        return layout.part_file(self.run_id, self.attempt, wave, task)

    def _committed(self) -> Iterator[Part]:
        """The parts that the last attempt took over, and its own."""
        taken = set(self.record.parts)
        own = layout.parts_of_attempt(self.run_id, self.record.attempt)
        found = self.store.list(layout.parts_dir(self.run_id))
        names = [name for name in found if name in taken or name.startswith(own)]
        for part in map_ahead(self._describe, names):
            if part is not None:
                yield part

    def _describe(self, name: str) -> Part | None:
        try:
            with self.store.fs.open(self.store.path(name)) as file:
                parquet = pq.ParquetFile(file)
                return Part(name, parquet.metadata.num_rows, PartFooter.of(parquet.schema_arrow))
        except (pa.ArrowInvalid, DamagedFileError, FileNotFoundError) as error:
            # A disk that lost power may have lied about fsync, a listing lags behind.
            log.warning("computing the rows of %s again: %s", name, one_line(error))
            return None

    @property
    def rows(self) -> int:
        """Committed by earlier attempts and, once they are added, by this one."""
        return sum(part.rows for part in self.parts)

    def ledger(self, names: ShardNames) -> Ledger:
        """An index over the rows that this run already has."""
        files = [part.name for part in self.parts]
        return Ledger.from_tables(read_columns(self.store, files, LEDGER_COLUMNS), names)

    def closed_shards(self) -> dict[str, int]:
        """Shards that are done to their last row."""
        return {uri: rows for part in self.parts for uri, rows in part.footer.shards.items()}

    def members_done(self, shards: Set[str]) -> dict[str, list[str]]:
        """The URIs of the rows that this run has of each of these shards. Read are the parts that
        may have some, by what they say of their URIs."""
        members: dict[str, list[str]] = {uri: [] for uri in shards}
        near = {part.name: some for part in self.parts if (some := part.near(shards))}
        for some, table in zip(near.values(), read_columns(self.store, near, ["uri"]), strict=True):
            for shard in some:
                is_of = pc.or_(
                    pc.equal(table["uri"], shard), pc.starts_with(table["uri"], f"{shard}#")
                )
                members[shard] += table["uri"].filter(is_of).to_pylist()
        return members
