"""What a night costs after many nights: closed runs made up, then one in which nothing is new."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipeline.contract import layout
from pipeline.contract.manifest import Counts, DataFile, Manifest
from pipeline.contract.provenance import Identity, Provenance
from pipeline.contract.schema import LISTING, SOURCE
from pipeline.contract.spec import InputSpec
from pipeline.output.ledger.history import History
from pipeline.output.open_run import OpenRecord, OpenRun
from pipeline.plan.diff import Plan
from pipeline.runs.closing import Account, close_run, utc_now
from pipeline.sources.formats.registry import IMAGE, shard_names
from pipeline.sources.inventory import CHUNK_ROWS
from pipeline.storage.parquet import write_table
from pipeline.storage.read_ahead import map_ahead
from pipeline.storage.store import Store

VERSION = "d41d8cd98f00b204e9800998ecf8427e"


@dataclass(frozen=True)
class Night:
    """What it took, from reading what is known to the publication of a run without rows."""

    plan_seconds: float
    close_seconds: float
    cpu_seconds: float
    """Of this process."""

    @property
    def seconds(self) -> float:
        return self.plan_seconds + self.close_seconds


def bench_nights(store: Store, runs: int, rows: int) -> dict[str, Any]:
    """The nights after ``runs`` closed runs of ``rows`` images each: one that finds nothing kept of
    them, as after an update of the program, and one after that."""
    make_up(store, runs, rows)
    first, next_one = night(store, runs, rows), night(store, runs, rows)
    return {
        "runs": runs,
        "rows": runs * rows,
        "first_night": asdict(first),
        "night": asdict(next_one),
        "night_seconds": round(next_one.seconds, 2),
    }


def make_up(store: Store, runs: int, rows: int) -> None:
    """Write closed runs as ``publish`` leaves them, with the columns that every run has."""

    def write(number: str) -> None:
        run_id = f"{int(number):08d}"
        name = f"{layout.data_dir(run_id)}/{layout.data_file(0)}"
        write_table(store, name, _rows(int(number), rows))
        manifest = Manifest(
            run_id=run_id,
            finished=utc_now(),
            counts=Counts(listed=rows, ok=rows),
            labels={"cat": rows},
            files=(DataFile(name, rows),),
            identity=Identity(fingerprint="made up"),
            spec={},
        )
        store.write_json(layout.manifest_file(run_id), manifest.to_dict())

    for _ in map_ahead(write, map(str, range(runs))):
        pass


def night(store: Store, runs: int, rows: int) -> Night:
    """Plan and close a run that lists what all runs have, in the same versions."""
    started, cpu = time.perf_counter(), time.process_time()
    history = History.load(store, for_rows=True)
    plan = Plan(history.ledger(shard_names(InputSpec(uris=("made-up",)))), OpenRun(store))
    plan.survey(_listing(runs, rows))
    planned = time.perf_counter()
    if not plan.is_empty or plan.counts.unchanged != runs * rows:
        raise RuntimeError(f"the plan is wrong: {plan.counts}")
    identity = history.runs[0].identity
    open_run = OpenRun.begin(
        store, OpenRecord(started=utc_now(), identity=identity), history.run_ids
    )
    account = Account(
        expected=0,
        skipped=plan.counts.unchanged,
        model=Provenance(),
        identity=identity,
        classes=(),
        spec={},
    )
    close_run(open_run, history.nights, account, known=history)
    ended = time.perf_counter()
    return Night(
        plan_seconds=round(planned - started, 3),
        close_seconds=round(ended - planned, 3),
        cpu_seconds=round(time.process_time() - cpu, 3),
    )


def _uris(images: range, rows: int) -> list[str]:
    return [f"s3://photos/2026/{n // rows:05d}/image-{n % rows:06d}.jpg" for n in images]


def _rows(run: int, rows: int) -> pa.Table:
    known = {
        "uri": pa.array(_uris(range(run * rows, (run + 1) * rows), rows)),
        "status": pa.array(["ok"] * rows),
        "source_version": pa.array([VERSION] * rows),
    }
    columns = [known.get(field.name, pa.nulls(rows, field.type)) for field in SOURCE]
    return pa.table(columns, schema=SOURCE)


def _listing(runs: int, rows: int) -> Iterator[pa.Table]:
    for start in range(0, runs * rows, CHUNK_ROWS):
        images = range(start, min(start + CHUNK_ROWS, runs * rows))
        known = {
            "uri": pa.array(_uris(images, rows)),
            "kind": pa.array([IMAGE.kind] * len(images)),
            "source_version": pa.array([VERSION] * len(images)),
        }
        columns = [known.get(field.name, pa.nulls(len(images), field.type)) for field in LISTING]
        yield pa.table(columns, schema=LISTING)
