"""A bucket and its history as plain dicts, and what a plan must say about them, by brute force."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.contract.schema import LISTING, SOURCE
from pipeline.contract.spec import InputSpec
from pipeline.output.ledger.ledger import Ledger
from pipeline.output.open_run import OpenRecord, OpenRun, PartFooter
from pipeline.sources.formats.registry import IMAGE, WEBDATASET, shard_names
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store

SHARD_NAMES = shard_names(InputSpec(uris=("any",)))
"""The usual ones."""

CODES = ("timeout", "corrupt", "truncated")


@dataclass(frozen=True)
class Row:
    """A row that a run has written; ``shard`` is the uri of the tar that it came from. Without a
    version it says that the image vanished."""

    uri: str
    version: str | None
    error_code: str | None = None
    shard: str | None = None

    @property
    def object(self) -> str:
        return self.shard or self.uri


def table_of(rows: Iterable[Row]) -> pa.Table:
    """Rows as they stand in a published file."""
    columns: dict[str, Any] = {name: [] for name in SOURCE.names}
    for row in rows:
        status = "vanished" if row.version is None else "failed" if row.error_code else "ok"
        known = {
            "uri": row.uri,
            "status": status,
            "error_code": row.error_code,
            "source_version": row.version,
        }
        for name, column in columns.items():
            column.append(known.get(name))
    return pa.table(columns, schema=SOURCE)


def listing_of(objects: dict[str, str], rows_per_table: int = 7) -> Iterator[pa.Table]:
    """LISTING tables of objects by their version; names of tars are shards."""
    rows = [
        {"uri": uri, "kind": kind(uri), "source_version": version, "size_bytes": 1}
        for uri, version in objects.items()
    ]
    for start in range(0, len(rows), rows_per_table):
        yield pa.Table.from_pylist(rows[start : start + rows_per_table], schema=LISTING)


def is_shard(uri: str) -> bool:
    return uri.lower().endswith((".tar", ".tar.gz", ".tgz"))


def kind(uri: str) -> str:
    return (WEBDATASET if is_shard(uri) else IMAGE).kind


@dataclass
class World:
    """Listed objects by version, closed runs from old to new, and the open run's parts."""

    listing: dict[str, str] = field(default_factory=dict)
    runs: list[list[Row]] = field(default_factory=list)
    parts: list[list[Row]] = field(default_factory=list)
    closed: dict[str, int] = field(default_factory=dict)
    """Shards whose last row is in the parts, and how many rows they have in all."""

    def ledger(self) -> Ledger:
        return Ledger.from_runs(([table_of(rows)] for rows in reversed(self.runs)), SHARD_NAMES)

    def open_run(self, store: Store) -> OpenRun:
        """The parts as an earlier attempt left them, taken up again."""
        run = OpenRun.begin(store, OpenRecord())
        for number, rows in enumerate(self.parts):
            shards = {row.object for row in rows}
            footer = PartFooter({uri: n for uri, n in self.closed.items() if uri in shards})
            table = table_of(rows)
            if number % 3:  # the others are as earlier versions wrote them
                footer = footer.spanning(table["uri"])
            write_table(store, run.part_name(number), footer.attach(table))
        found = OpenRun.find(store)
        assert found is not None
        return found

    def expected(self, retry: frozenset[str]) -> tuple[dict[str, Any], set[str]]:
        """The counts of the plan, and the objects that it has work for."""
        newest_rows: dict[str, Row] = {row.uri: row for rows in self.runs for row in rows}
        past = {uri: row for uri, row in newest_rows.items() if row.version is not None}
        counts: Counter[str] = Counter()
        failed_before: Counter[str] = Counter()
        todo = set()
        for uri, version in self.listing.items():
            mine = [row for row in past.values() if row.object == uri]
            old = self._superseded(uri, mine)
            mine = [row for row in mine if row not in old]
            newest = self._newest_version(uri)
            counts["vanished"] += len(old)
            current = [row for row in mine if row.version == newest]
            done = self.done(uri)
            counts["finished"] += len(done)
            again = any(row.error_code in retry for row in current)
            if len(done) == (self.closed.get(uri) if is_shard(uri) else 1):
                continue
            if mine and newest == version and not again and not done:
                counts["unchanged"] += len(current)
                failed_before.update(row.error_code for row in current if row.error_code)
                continue
            todo.add(uri)
            counts["new" if not mine else "retried" if newest == version else "changed"] += 1
        counts["vanished"] += sum(row.object not in self.listing for row in past.values())
        counts["shards"] = sum(map(is_shard, todo))
        return {**counts, "failed_before": dict(failed_before)}, todo

    def _superseded(self, uri: str, mine: list[Row]) -> list[Row]:
        """Rows of a shard that are older than the newest run over it, if that read it to its end.

        ``mine``: the newest row of each member."""
        ages = {row.uri: number for number, rows in enumerate(self.runs) for row in rows}
        newest = max((ages[row.uri] for row in mine), default=0)
        if not is_shard(uri) or any(row.uri == uri and ages[uri] == newest for row in mine):
            return []
        return [row for row in mine if ages[row.uri] < newest]

    def done(self, uri: str) -> list[Row]:
        """The open run's rows of a listed object that are still good."""
        rows = [row for part in self.parts for row in part if row.object == uri]
        return [row for row in rows if self.is_current(row)]

    def is_current(self, row: Row) -> bool:
        """Whether the object of a row is listed in the row's version."""
        return self.listing.get(row.object) == row.version

    def _newest_version(self, uri: str) -> str | None:
        """Of the newest run that has a row of the object, where that row still counts."""
        known: set[str] = set()
        for rows in reversed(self.runs):
            for row in rows:
                if row.object == uri and row.uri not in known and row.version is not None:
                    return row.version
                known.add(row.uri)
        return None


def random_world(seed: int) -> World:
    """Objects that come, go, change and change back, in runs that were and were not finished."""
    draw = random.Random(seed)
    images = [f"s3://b/{n}#%20 ü.jpg" for n in range(30)]
    shards = [f"s3://b/dir.tar/{n}.{draw.choice(['tar', 'tar.gz', 'TGZ'])}" for n in range(8)]
    world = World()
    for _ in range(draw.randrange(4)):
        seen = draw.sample(images, 15) + draw.sample(shards, 4)
        rows = [row for uri in seen for row in _rows_of(draw, uri, draw.choice("AB"))]
        rows += _vanished(draw, world, {row.object for row in rows})
        world.runs.append(draw.sample(rows, len(rows)))
    world.listing = {uri: draw.choice("AB") for uri in draw.sample(images + shards, 28)}
    staged: list[Row] = []
    for uri in draw.sample(sorted(world.listing), 12) if draw.random() < 0.8 else []:
        # As an attempt left them: of the listed version or of one that has changed since.
        rows = _rows_of(draw, uri, draw.choice("AB"))
        left = draw.sample(rows, draw.randint(1, len(rows)))
        if rows[-1] in left and is_shard(uri):
            world.closed[uri] = len(rows)
        staged += left
    draw.shuffle(staged)
    world.parts = [staged[start : start + 6] for start in range(0, len(staged), 6)]
    return world


def _vanished(draw: random.Random, world: World, seen: set[str]) -> list[Row]:
    """Rows of objects that a run did not find: all that is known of some of them, and a member of
    others."""
    known = {row.uri: row for rows in world.runs for row in rows if row.object not in seen}
    gone = [row for row in known.values() if row.version is not None]
    objects = set(draw.sample(sorted({row.object for row in gone}), len(gone) // 8))
    return [
        Row(row.uri, None, None, row.shard)
        for row in gone
        if row.object in objects or (row.shard and draw.random() < 0.2)
    ]


def _rows_of(draw: random.Random, uri: str, version: str) -> list[Row]:
    def code() -> str | None:
        return draw.choice(CODES) if draw.random() < 0.3 else None

    if not is_shard(uri):
        return [Row(uri, version, code())]
    rows = [Row(f"{uri}#x/{n}.jpg", version, code(), uri) for n in range(draw.randrange(5))]
    if not rows or draw.random() < 0.2:  # the tar is broken or empty: its own row is the last
        rows.append(Row(uri, version, draw.choice(CODES), uri))
    return rows
