"""What the plan of a night costs: a listing compared with a ledger of as many rows."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.bench.measure.processes import Process, family, peak_bytes
from pipeline.contract import layout
from pipeline.contract.manifest import Counts, DataFile, Manifest
from pipeline.contract.provenance import Identity
from pipeline.contract.schema import LISTING
from pipeline.contract.spec import ComputeSpec, InputSpec
from pipeline.output.ledger.history import History
from pipeline.output.ledger.ledger import Ledger
from pipeline.output.open_run import OpenRecord, OpenRun, PartFooter
from pipeline.plan.diff import Plan
from pipeline.runs.computing.committed_rows import CommittedRows
from pipeline.sources.formats.registry import IMAGE, shard_names
from pipeline.sources.inventory import CHUNK_ROWS
from pipeline.stages.cluster.ray_session import connect, ray_as_found
from pipeline.stages.cluster.tasks import RayTasks
from pipeline.stages.rows.spread_ledger import SpreadLedger
from pipeline.storage.filesystems import WorkerEnvironment
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store

ROWS_PER_FILE = 1_000_000
ROWS_PER_PART = 16_384
CHANGED_EVERY = 200
RUN_ID = "0"


def bench_plan(rows: int, parts: int = 0, *, unfinished: bool = False) -> dict[str, float]:
    """What the plan of a night costs: ``rows`` listed, one in 200 of them changed.

    The rows are made up and on the local disk. The listing is generated while it is read; what that
    takes is left out of the CPU time.

    Args:
        rows: of the ledger, and of the listing.
        parts: in how many actors of Ray the ledger is; 0 for this process.
        unfinished: the rows are those of an unfinished run, and not of a closed one.
    """
    with tempfile.TemporaryDirectory() as directory, ray_as_found():
        store = Store(directory)
        (_write_unfinished if unfinished else _write_ledger)(store, rows)
        writing = _Clock()
        history = History.load(store).keep()
        writing.stop()
        if unfinished or parts:
            connect(ComputeSpec())
        base = peak_bytes(os.getpid())
        loading = _Clock()
        plan, listing = _plan(store, history, parts, unfinished=unfinished), _Listing(rows)
        loading.stop()
        comparing = _Clock()
        plan.survey(listing.tables())
        plan.stale()
        comparing.stop()
        workers = [process for process in family(os.getpid()) if process.is_ray_worker]
        holding = [process for process in workers if is_part(process)]
        reading = [process for process in workers if not is_part(process)]
        peaks = _peak_gib(holding), _peak_gib(reading)
    expected = rows // CHANGED_EVERY
    counts = plan.counts
    found = (counts.new, counts.finished) if unfinished else (counts.changed, counts.unchanged)
    if found != (expected, rows - expected):
        raise RuntimeError(f"the plan is wrong: {counts}")
    cpu = {
        "hashes": writing.cpu,
        "ledger": loading.cpu,
        "diff": comparing.cpu - listing.cpu,
        "parts": sum(process.cpu_seconds for process in holding),
        "tasks": sum(process.cpu_seconds for process in reading),
    }
    return {
        "rows": rows,
        "parts": parts,
        "ledger_seconds": round(loading.wall, 2),
        "diff_seconds": round(comparing.wall, 2),
        **{f"{name}_cpu_microseconds_a_row": round(s / rows * 1e6, 2) for name, s in cpu.items()},
        "peak_gib": round(peak_bytes(os.getpid()) / 2**30, 2),
        "peak_before_gib": round(base / 2**30, 2),
        "peak_of_a_part_gib": peaks[0],
        "peak_of_a_task_gib": peaks[1],
    }


def _peak_gib(processes: list[Process]) -> float:
    """Of the largest one."""
    peaks = [peak_bytes(process.pid) for process in processes]
    return round(max(peaks, default=0) / 2**30, 2)


class _Clock:
    """Wall and CPU seconds of this process, from its making until it is stopped."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """End both."""
        self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu


def _plan(store: Store, history: History, parts: int, *, unfinished: bool) -> Plan:
    names = shard_names(InputSpec(uris=("made-up",)))
    environment = WorkerEnvironment.capture()
    if not unfinished:
        spread = parts and SpreadLedger.load(history, names, environment, parts)
        return Plan(spread or history.ledger(names), OpenRun(store))
    open_run = OpenRun.find(store) or OpenRun(store)
    rows_of = CommittedRows(ComputeSpec()).ledger
    if parts:
        rows_of = partial(SpreadLedger.gather, tasks=RayTasks(environment), number=parts)
    return Plan(Ledger.from_tables([], names), open_run, rows_of=rows_of)


def is_part(process: Process) -> bool:
    """Whether it is an actor that holds a part of the ledger."""
    return process.is_ray_worker and process.name.startswith("ray::Part")


def _uris(start: int, stop: int) -> pa.Array:
    return pa.array(
        [f"s3://photos/2026/{n % 997:03d}/image-{n:09d}.jpg" for n in range(start, stop)]
    )


def _versions(start: int, stop: int, *, changed: bool) -> pa.Array:
    """ETags of 32 hexadecimal digits; ``changed``: those of a later night, some of them new."""
    numbers = np.arange(start, stop)
    shift = (numbers % CHANGED_EVERY == 0) * 10**12 if changed else 0
    return pa.array([f"{n:032x}" for n in (numbers + shift).tolist()])


def _rows(start: int, stop: int) -> pa.Table:
    """With the columns that the ledger reads."""
    return pa.table(
        {
            "uri": _uris(start, stop),
            "source_version": _versions(start, stop, changed=False),
            "status": pa.array(["ok"] * (stop - start)),
            "error_code": pa.nulls(stop - start, pa.string()),
        }
    )


def _write_unfinished(store: Store, rows: int) -> None:
    """Write the parts of a run that was killed."""
    run = OpenRun.begin(store, OpenRecord())
    for number, start in enumerate(range(0, rows, ROWS_PER_PART)):
        table = _rows(start, min(start + ROWS_PER_PART, rows))
        write_table(store, run.part_name(number), PartFooter().spanning(table["uri"]).attach(table))


def _write_ledger(store: Store, rows: int) -> None:
    """Write a closed run as ``publish`` leaves it."""
    files = []
    Path(store.path(layout.data_dir(RUN_ID))).mkdir(parents=True)
    for start in range(0, rows, ROWS_PER_FILE):
        stop = min(start + ROWS_PER_FILE, rows)
        table = _rows(start, stop)
        name = layout.data_file(start // ROWS_PER_FILE)
        files.append(DataFile(f"{layout.data_dir(RUN_ID)}/{name}", stop - start))
        pq.write_table(table, store.path(files[-1].name), compression="zstd", row_group_size=65_536)
    manifest = Manifest(
        run_id=RUN_ID,
        counts=Counts(listed=rows, ok=rows),
        files=tuple(files),
        identity=Identity(),
        spec={},
    )
    store.write_json(layout.manifest_file(RUN_ID), manifest.to_dict())


class _Listing:
    """A made-up listing, and the CPU seconds that making it takes."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.cpu = 0.0

    def tables(self) -> Iterator[pa.Table]:
        """LISTING tables."""
        for start in range(0, self.rows, CHUNK_ROWS):
            started = time.process_time()
            table = _listed(start, min(start + CHUNK_ROWS, self.rows))
            self.cpu += time.process_time() - started
            yield table


def _listed(start: int, stop: int) -> pa.Table:
    columns = {
        "uri": _uris(start, stop),
        "kind": pa.array([IMAGE.kind] * (stop - start)),
        "source_version": _versions(start, stop, changed=True),
        "size_bytes": pa.array(np.full(stop - start, 100_000)),
    }
    nulls = {field.name: pa.nulls(stop - start, field.type) for field in LISTING}
    return pa.table(nulls | columns, schema=LISTING)
