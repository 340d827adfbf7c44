"""How a listing streams: seconds to the first work, objects per second, memory of the driver."""

from __future__ import annotations

import csv
import gzip
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from jobs.bench.components.plan import is_part
from jobs.bench.measure.processes import family, peak_bytes
from jobs.bench.synthetic.bucket import made_up_bucket
from pipeline.contract.spec import ComputeSpec, InputSpec
from pipeline.output.ledger.known import Known
from pipeline.output.ledger.ledger import Ledger
from pipeline.output.open_run import OpenRecord, OpenRun
from pipeline.plan.diff import Plan
from pipeline.plan.waves import HEAD_START_SECONDS, listing_ahead, waves
from pipeline.sources.formats.registry import shard_names
from pipeline.sources.formats.s3_inventory import S3_MANIFEST
from pipeline.sources.inventory import inventory
from pipeline.stages.cluster.ray_session import connect, ray_as_found
from pipeline.stages.cluster.tasks import RayTasks
from pipeline.stages.rows.listing import ListingTasks
from pipeline.stages.rows.spread_ledger import SpreadLedger
from pipeline.storage.filesystems import WorkerEnvironment
from pipeline.storage.objects.listing.stretches import Helpers
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store

ROWS_PER_FILE = 100_000
_FOR_EVER = 1e6
_SCHEMA = "Bucket, Key, Size, LastModifiedDate, ETag"


def bench_listing(
    source: str | None, objects: int, late_ms: float | None = None
) -> dict[str, float]:
    """List an INPUT, or a made-up S3 Inventory report with ``objects`` objects, like a first run;
    or a made-up bucket, if it is said how late its pages come.

    Work is taken wave by wave as in a run, but not done. Each wave lasts until the listing is as
    far ahead as it may be, which takes the most memory.
    """
    with (
        tempfile.TemporaryDirectory() as directory,
        nullcontext() if late_ms is None else made_up_bucket(objects, late_ms / 1e3) as bucket,
        _peak_memory() as peak,
    ):
        uri = source or bucket or write_report(Path(directory), objects)
        base = _memory()
        started, cpu_started = time.perf_counter(), time.process_time()
        inputs = InputSpec(uris=(uri,))
        with listing_ahead(inventory(inputs)) as listing:
            listing.wait_for_end(HEAD_START_SECONDS)
            open_run = OpenRun(Store(directory))
            plan = Plan(Ledger.from_tables([], shard_names(inputs)), open_run)
            sizes, seconds = [], []
            for work in waves(listing, plan, open_run):
                sizes.append(work.num_images)
                seconds.append(time.perf_counter() - started)
                listing.wait_for_end(_FOR_EVER)
            cpu_seconds = time.process_time() - cpu_started
    return {
        "objects": plan.num_images,
        "objects_per_second": round(plan.num_images / seconds[-1]),
        "first_work_after_seconds": round(seconds[0], 2),
        "seconds": round(seconds[-1], 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "waves": sum(size > 0 for size in sizes),
        "growth_of_memory_mib": round((max(peak) - base) / 2**20),
    }


def bench_listing_tasks(objects: int, late_ms: float, parts: int = 0) -> dict[str, float]:
    """What a name of a made-up bucket costs this process, when it lists alone and when tasks of Ray
    do: CPU microseconds, plan included, when all names are known and unchanged, and when all are
    new. Ray is up before the clock starts.

    Args:
        objects: in the bucket, and as many rows in the ledger.
        late_ms: how late pages come.
        parts: in how many actors of Ray the ledger is; 0 for this process.
    """
    found: dict[str, float] = {"objects": objects, "parts": parts}
    with (
        made_up_bucket(objects, late_ms / 1e3) as uri,
        tempfile.TemporaryDirectory() as directory,
        ray_as_found(),
        ListingTasks() as tasks,
    ):
        connect(ComputeSpec())
        inputs = InputSpec(uris=(uri,))
        ledgers = {
            name: _ledger_of(inputs, Store(f"{directory}/{name}"), ending, parts)
            for name, ending in (("known", ""), ("new", ".other.jpg"))
        }
        tasks.begin()
        for name, ledger in ledgers.items():
            alone, _, _ = _microseconds(inputs, ledger, None)
            spent = _microseconds(inputs, ledger, tasks)
            of = dict(zip(("with_tasks", "of_tasks", "of_parts"), spent, strict=True))
            of |= {"alone": alone, "ratio": objects * alone / spent[0]}
            found |= {f"{name}_{what}": value / objects for what, value in of.items()}
        found["peak_gib"] = peak_bytes(os.getpid()) / 2**30
    return {name: round(value, 2) for name, value in found.items()}


def _ledger_of(inputs: InputSpec, store: Store, ending: str, parts: int) -> Known:
    """As if all of these, or as many others, had been computed."""
    run, names = OpenRun.begin(store, OpenRecord()), shard_names(inputs)
    done = {"status": pa.scalar("ok"), "error_code": pa.scalar(None, pa.string())}
    for number, table in enumerate(inventory(inputs)):
        columns = {
            "uri": pc.binary_join_element_wise(table["uri"], ending, ""),
            "source_version": table["source_version"],
        }
        rows = pa.table(columns | {key: pa.repeat(one, len(table)) for key, one in done.items()})
        write_table(store, run.part_name(number), rows)
    committed = OpenRun.find(store) or run
    if not parts:
        return committed.ledger(names)
    return SpreadLedger.gather(committed, names, RayTasks(WorkerEnvironment.capture()), parts)


def _microseconds(
    inputs: InputSpec, ledger: Known, helpers: Helpers | None
) -> tuple[float, float, float]:
    """Of the CPU: this process's, that of tasks, and that of the ledger's actors."""
    with tempfile.TemporaryDirectory() as directory:
        plan = Plan(ledger, OpenRun(Store(directory)))
        before = _cpu_seconds()
        plan.survey(inventory(inputs, helpers=helpers))
        spent = [after - so_far for after, so_far in zip(_cpu_seconds(), before, strict=True)]
    driver, tasks, parts = (seconds * 1e6 for seconds in spent)
    return driver, tasks, parts


def _cpu_seconds() -> tuple[float, float, float]:
    workers = [process for process in family(os.getpid()) if process.is_ray_worker]
    parts = sum(process.cpu_seconds for process in workers if is_part(process))
    others = sum(process.cpu_seconds for process in workers if not is_part(process))
    return time.process_time(), others, parts


def write_report(directory: Path, objects: int) -> str:
    """Write an S3 Inventory report in CSV, as AWS does; returns the path of its manifest."""
    data = directory / "data"
    data.mkdir()
    files = []
    for start in range(0, objects, ROWS_PER_FILE):
        name = f"{start:012d}.csv.gz"
        with gzip.open(data / name, "wt", compresslevel=1, newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(
                _rows(start, min(start + ROWS_PER_FILE, objects))
            )
        files.append({"key": f"inventory/data/{name}"})
    manifest = directory / "2026-11-22T01-00Z" / S3_MANIFEST
    manifest.parent.mkdir()
    manifest.write_text(
        json.dumps(
            {
                "sourceBucket": "photos",
                "destinationBucket": "arn:aws:s3:::inventory",
                "fileFormat": "CSV",
                "fileSchema": _SCHEMA,
                "files": files,
            }
        )
    )
    return str(manifest)


def _rows(start: int, stop: int) -> Iterator[tuple[object, ...]]:
    for n in range(start, stop):
        key = f"2026/{n % 997:03d}/image-{n:09d}.jpg"
        yield "photos", key, 110_000, "2026-11-21T00:00:00.000Z", f"{n:032x}"


@contextmanager
def _peak_memory(interval: float = 0.05) -> Iterator[list[int]]:
    """Samples of this process's resident memory, in bytes: the peak that the system reports would
    include what was there before."""
    samples, ended = [_memory()], threading.Event()

    def sample() -> None:
        while not ended.wait(interval):
            samples.append(_memory())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    yield samples
    ended.set()
    thread.join()


def _memory() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
