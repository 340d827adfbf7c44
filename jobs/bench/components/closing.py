"""What the closing of a run costs: its parts merged, counted, compared and published."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.bench.measure.processes import peak_bytes
from pipeline.contract.provenance import Identity, Provenance
from pipeline.contract.schema import Status, result_schema
from pipeline.contract.spec import ComputeSpec, OutputSpec
from pipeline.output.merging.tasks import Tasks
from pipeline.output.open_run import OpenRecord, OpenRun, Part, PartFooter
from pipeline.runs.closing import Account, close_run
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store

ROWS_PER_PART = 16_384
CLASSES = tuple(f"class {number}" for number in range(1000))
TOP_K = 5
FAILED_EVERY = 1000
ROWS_AT_WORK = 8192
"""How far images of a run overtake each other."""

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


def bench_close(store: Store, rows: int, dimensions: int, *, shuffle: bool) -> dict[str, Any]:
    """CPU time and memory of the closing of a made-up run, whose images had been computed in about
    the order of their names, or in none.

    Ray is started before the clock is, as a run of this size has one.
    """
    from pipeline.runs.computing.execution import (
        tasks_for,  # not in workers, which import this module
    )

    run = _open_run(store, rows, dimensions, shuffle=shuffle)
    before = peak_bytes(os.getpid())
    with tasks_for(rows, ComputeSpec(num_gpus=0)) as tasks:
        measured = MeasuredTasks(tasks)
        wall, cpu = time.perf_counter(), time.process_time()
        manifest = close_run(run, (), _account(rows, dimensions), measured)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    stored = sum(store.list("data").values())
    return {
        "rows": rows,
        "dimensions": dimensions,
        "shuffled": shuffle,
        "files": len(manifest.files),
        "mib": round(stored / 2**20),
        "in_tasks": measured.elsewhere,
        "driver_cpu_us_per_row": round(1e6 * cpu / rows, 3),
        "tasks_cpu_us_per_row": round(1e6 * measured.cpu_seconds / rows, 3),
        "driver_peak_mib": round(peak_bytes(os.getpid()) / 2**20),
        "driver_peak_before_mib": round(before / 2**20),
        "task_peak_mib": round(measured.peak_bytes / 2**20),
        "wall_seconds": round(wall, 2),
    }


@dataclass(frozen=True)
class Spent:
    """By one call of a function."""

    process: int
    cpu_seconds: float
    peak_bytes: int
    """Of its process so far."""


@dataclass
class MeasuredTasks:
    """The same tasks, with what they spend."""

    tasks: Tasks
    spent: list[Spent] = field(default_factory=list)

    @property
    def cpu_seconds(self) -> float:
        return sum(one.cpu_seconds for one in self.spent)

    @property
    def peak_bytes(self) -> int:
        """Of the largest process."""
        return max((one.peak_bytes for one in self.spent), default=0)

    @property
    def elsewhere(self) -> bool:
        """Whether other processes than this one did the work."""
        return os.getpid() not in {one.process for one in self.spent}

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> list[B]:
        return self._noted(self.tasks.map(partial(_measured, function), items))

    def exchange(
        self,
        function: Callable[[A], tuple[B, Sequence[C]]],
        items: Sequence[A],
        ranges: int,
        reduce: Callable[[Sequence[C]], D],
    ) -> tuple[list[B], list[D]]:
        done, reduced = self.tasks.exchange(
            partial(_measured_pair, function), items, ranges, partial(_measured, reduce)
        )
        return self._noted(done), self._noted(reduced)

    def _noted(self, results: Sequence[tuple[B, Spent]]) -> list[B]:
        self.spent += [spent for _, spent in results]
        return [result for result, _ in results]


def _measured(function: Callable[[A], B], item: A) -> tuple[B, Spent]:
    started = time.process_time()
    result = function(item)
    return result, Spent(os.getpid(), time.process_time() - started, peak_bytes(os.getpid()))


def _measured_pair(
    function: Callable[[A], tuple[B, Sequence[C]]], item: A
) -> tuple[tuple[B, Spent], Sequence[C]]:
    (result, pieces), spent = _measured(function, item)
    return (result, spent), pieces


def _account(rows: int, dimensions: int) -> Account:
    embedding = f"fixed_size_list<element: float>[{dimensions}]" if dimensions else None
    return Account(
        expected=rows,
        skipped=0,
        model=Provenance(model="made up", weights_sha256="0" * 64, fingerprint="0"),
        identity=Identity(scores="softmax", top_k=TOP_K, embedding=embedding),
        classes=CLASSES,
        spec={},
        review=OutputSpec(uri="made-up", top_k=TOP_K).review,
    )


def _open_run(store: Store, rows: int, dimensions: int, *, shuffle: bool) -> OpenRun:
    run = OpenRun.begin(store, OpenRecord())
    rng = np.random.default_rng(0)
    order = rng.permutation(rows) if shuffle else _overtaking(rows, rng)
    for table in _tables(order, dimensions, rng):
        name = run.part_name(len(run.parts))
        footer = PartFooter().spanning(table["uri"])
        write_table(store, name, footer.attach(table))
        run.parts.append(Part(name, table.num_rows, footer))
    return run


def _overtaking(rows: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Row numbers in about their order."""
    return np.argsort(np.arange(rows) + rng.uniform(0, ROWS_AT_WORK, rows))


def _tables(
    order: npt.NDArray[np.intp], dimensions: int, rng: np.random.Generator
) -> Iterator[pa.Table]:
    embedding = pa.list_(pa.float32(), dimensions) if dimensions else None
    schema = result_schema(labels=True, thresholds=False, embedding=embedding)
    for start in range(0, len(order), ROWS_PER_PART):
        numbers = order[start : start + ROWS_PER_PART]
        columns = _columns(numbers, dimensions, rng)
        nulls = (pa.nulls(len(numbers), field.type) for field in schema)
        yield pa.table(
            [columns.get(name, null) for name, null in zip(schema.names, nulls, strict=True)],
            schema=schema,
        )


def _columns(
    numbers: npt.NDArray[np.intp], dimensions: int, rng: np.random.Generator
) -> dict[str, pa.Array]:
    count = len(numbers)
    failed = numbers % FAILED_EVERY == 0
    ids = np.minimum(rng.zipf(1.5, (count, TOP_K)), len(CLASSES)) - 1
    scores = -np.sort(-rng.random((count, TOP_K), np.float32), axis=1)
    offsets = pa.array(np.arange(0, (count + 1) * TOP_K, TOP_K, dtype=np.int32))
    names = pa.array(CLASSES)
    found = {
        "uri": pa.array([f"s3://photos/{n // 10_000:06d}/image-{n:09d}.jpg" for n in numbers]),
        "status": pa.array(np.where(failed, Status.FAILED.value, Status.OK.value)),
        "error_code": pa.array(np.full(count, "corrupt"), mask=~failed),
        "error_message": pa.array(np.full(count, "it is cut off"), mask=~failed),
        "width": pa.array(np.full(count, 500, np.int32)),
        "height": pa.array(np.full(count, 375, np.int32)),
        "size_bytes": pa.array(rng.integers(10_000, 200_000, count)),
        "sha256": pa.array([rng.bytes(32).hex() for _ in range(count)]),
        "source_version": pa.array([rng.bytes(16).hex() for _ in range(count)]),
        "label_id": pa.array(ids[:, 0].astype(np.int32)),
        "label": names.take(pa.array(ids[:, 0])),
        "score": pa.array(scores[:, 0]),
        "topk_ids": pa.ListArray.from_arrays(offsets, pa.array(ids.reshape(-1).astype(np.int32))),
        "topk_labels": pa.ListArray.from_arrays(offsets, names.take(pa.array(ids.reshape(-1)))),
        "topk_scores": pa.ListArray.from_arrays(offsets, pa.array(scores.reshape(-1))),
    }
    if dimensions:
        values = pa.array(rng.standard_normal(count * dimensions, np.float32))
        found["embedding"] = pa.FixedSizeListArray.from_arrays(values, dimensions)
    return found
