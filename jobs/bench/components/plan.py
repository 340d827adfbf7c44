"""What the plan of a night costs: a listing compared with a ledger of as many rows."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.contract import layout
from pipeline.contract.manifest import Counts, DataFile, Manifest
from pipeline.contract.provenance import Identity
from pipeline.contract.schema import LISTING
from pipeline.contract.spec import InputSpec
from pipeline.output.ledger.history import History
from pipeline.output.open_run import OpenRun
from pipeline.plan.diff import Plan
from pipeline.sources.formats.registry import IMAGE, shard_names
from pipeline.sources.inventory import CHUNK_ROWS
from pipeline.storage.store import Store

ROWS_PER_FILE = 1_000_000
CHANGED_EVERY = 200
RUN_ID = "0"


def bench_plan(rows: int) -> dict[str, float]:
    """Seconds and memory of the plan of a night: ``rows`` listed, one in 200 of them changed.

    The rows are made up and on the local disk. The listing is generated while it is read, so that
    the time is that of the comparison, not of a bucket.
    """
    with tempfile.TemporaryDirectory() as directory:
        store = Store(directory)
        _write_ledger(store, rows)
        base = _peak_memory()
        started = time.perf_counter()
        ledger = History.load(store).ledger(shard_names(InputSpec(uris=("made-up",))))
        loaded = time.perf_counter()
        plan = Plan(ledger, OpenRun(store))
        plan.survey(_listing(rows))
        done = time.perf_counter()
    expected = rows // CHANGED_EVERY
    if (plan.counts.changed, plan.counts.unchanged) != (expected, rows - expected):
        raise RuntimeError(f"the plan is wrong: {plan.counts}")
    return {
        "rows": rows,
        "ledger_seconds": round(loaded - started, 2),
        "diff_seconds": round(done - loaded, 2),
        "peak_gib": round(_peak_memory() / 2**30, 2),
        "peak_before_gib": round(base / 2**30, 2),
    }


def _peak_memory() -> int:
    """Of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _uris(start: int, stop: int) -> pa.Array:
    return pa.array(
        [f"s3://photos/2026/{n % 997:03d}/image-{n:09d}.jpg" for n in range(start, stop)]
    )


def _versions(start: int, stop: int, *, changed: bool) -> pa.Array:
    """ETags of 32 hexadecimal digits; ``changed``: those of a later night, some of them new."""
    numbers = np.arange(start, stop)
    shift = (numbers % CHANGED_EVERY == 0) * 10**12 if changed else 0
    return pa.array([f"{n:032x}" for n in (numbers + shift).tolist()])


def _write_ledger(store: Store, rows: int) -> None:
    """Write a closed run as ``publish`` leaves it, with the columns that the ledger reads."""
    names = []
    Path(store.path(layout.data_dir(RUN_ID))).mkdir(parents=True)
    for start in range(0, rows, ROWS_PER_FILE):
        stop = min(start + ROWS_PER_FILE, rows)
        table = pa.table(
            {
                "uri": _uris(start, stop),
                "source_version": _versions(start, stop, changed=False),
                "status": pa.array(["ok"] * (stop - start)),
                "error_code": pa.nulls(stop - start, pa.string()),
            }
        )
        name = layout.data_file(start // ROWS_PER_FILE)
        names.append(f"{layout.data_dir(RUN_ID)}/{name}")
        pq.write_table(table, store.path(names[-1]), compression="zstd", row_group_size=65_536)
    manifest = Manifest(
        run_id=RUN_ID,
        counts=Counts(listed=rows, ok=rows),
        files=tuple(map(DataFile, names)),
        identity=Identity(),
        spec={},
    )
    store.write_json(layout.manifest_file(RUN_ID), manifest.to_dict())


def _listing(rows: int) -> Iterator[pa.Table]:
    for start in range(0, rows, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, rows)
        columns = {
            "uri": _uris(start, stop),
            "kind": pa.array([IMAGE.kind] * (stop - start)),
            "source_version": _versions(start, stop, changed=True),
            "size_bytes": pa.array(np.full(stop - start, 100_000)),
        }
        nulls = {field.name: pa.nulls(stop - start, field.type) for field in LISTING}
        yield pa.table(nulls | columns, schema=LISTING)
