"""Each stage alone, through Ray: what it can do when the other one costs nothing.

    decode    the real decode tasks, a null model that only counts
    model     a null decode that makes pixels without reading, the real actors
    null      both null: what Ray itself can carry

The stages are those of a run, with its options, its pool of actors and its division of the work.
One thing differs where the model computes on the cores that also decode: decoding alone gets all of
them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray

from jobs.bench.measure.rates import curve_of, steady_rate
from pipeline.contract.errors import UsageError
from pipeline.contract.schema import DECODED, NO_COLUMNS, Status
from pipeline.contract.spec import ComputeSpec, RunSpec
from pipeline.model.arithmetic import choose
from pipeline.model.bundle import ModelBundle
from pipeline.model.loaded import LoadedModel
from pipeline.plan.diff import Work
from pipeline.runs.computing.sizes import Cut
from pipeline.stages.allocation import Allocation
from pipeline.stages.cluster.places import places
from pipeline.stages.decode.settings import DecodeSettings
from pipeline.stages.decode.task import decode_block
from pipeline.stages.graph import Stages, decode_stage, infer_stage, source
from pipeline.stages.infer.actor import Predictor
from pipeline.stages.infer.settings import InferSettings

StageName = Literal["decode", "model", "null"]

_SPENT = pa.field("_cpu_seconds", pa.float64())
"""CPU time of a decode task's process since its last yield, on the first row of each yield."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage reached."""

    name: StageName
    images: int
    seconds: float
    """From the first result (or, where known, the start of work on it) to the last."""
    images_per_second: float
    """While all workers are busy."""
    cpu_seconds_per_image: float
    """Of the workers that carry out the stage's own work."""
    nodes: dict[str, int]
    """Images by the Ray id of the node that did the work."""


def stages_of(spec: RunSpec, allocation: Allocation) -> Stages:
    """The stages of a run without bookkeeping and kept columns; Ray is up."""
    dtype = choose(spec.model, None, partial(places, spec.compute)).dtype
    model = LoadedModel.load(spec, dtype)
    return Stages(
        decode=DecodeSettings.of(spec, model.preprocessing, NO_COLUMNS),
        bundle=ray.put(model.pack()),
        infer=InferSettings.of_run(model, spec.compute, allocation),
        allocation=allocation,
    )


def run_stage(name: StageName, stages: Stages, work: Work, compute: ComputeSpec) -> Stage:
    """Time one stage; Ray is up.

    Raises:
        UsageError: none of the images could be decoded.
    """
    cpus = ray.cluster_resources().get("CPU", 1)
    stages = replace(stages, allocation=room_of(name, stages.allocation, cpus))
    cut = Cut.of(work, compute, stages)
    stages = cut.fit(stages)
    decode = partial(timed_decode if name == "decode" else null_decode, settings=stages.decode)
    decoded = decode_stage(source(cut.blocks, stages.decode), decode, stages.allocation)
    if name == "model":
        arguments = stages.bundle, stages.infer
        done = infer_stage(decoded, TimedPredictor, arguments, stages.allocation)
    else:
        done = infer_stage(decoded, NullModel, (), stages.allocation)
    return _stage(name, done.iter_batches(batch_format="pyarrow", batch_size=None))


def room_of(name: StageName, allocation: Allocation, cpus: float) -> Allocation:
    """Who gets what while a stage is measured: the same as in a run, except that the decode tasks
    get all CPUs where nothing else needs them and no GPU computes."""
    if name == "model" or allocation.on_gpu:
        return allocation
    return replace(allocation, actor_cpus=0.0, decode_cpus=1.0, decode_tasks=max(int(cpus), 1))


class Laps:
    """CPU time of this process, each second counted once, however many threads ask: on a GPU an
    actor has two batches in hand."""

    def __init__(self) -> None:
        self._mark = time.process_time()
        self._lock = threading.Lock()

    def lap(self) -> float:
        """Seconds since the last call."""
        with self._lock:
            last, self._mark = self._mark, time.process_time()
            return self._mark - last


def timed_decode(work: pa.Table, settings: DecodeSettings) -> Iterator[pa.Table]:
    """``decode_block``, with the CPU time and the node of each table added."""
    laps = Laps()
    for table in decode_block(work, settings):
        yield _signed(table, laps.lap())


def null_decode(work: pa.Table, settings: DecodeSettings) -> Iterator[pa.Table]:
    """DECODED rows of noise, in blocks like those of ``decode_block``, without reading any image; a
    shard counts as one image."""
    rows = settings.block_size
    noise = np.random.default_rng(0).integers(0, 256, settings.image_bytes, np.uint8).tobytes()
    for start in range(0, len(work), rows):
        part = work.slice(start, rows)
        known: dict[str, Any] = {
            "uri": part["uri"],
            "status": pa.array([Status.OK.value] * len(part)),
            "_pixels": pa.array([noise] * len(part), DECODED.field("_pixels").type),
        }
        columns = [known.get(f.name, pa.nulls(len(part), f.type)) for f in DECODED]
        yield _signed(pa.table(columns, schema=DECODED), 0.0)


def _signed(table: pa.Table, spent: float) -> pa.Table:
    """The table with the CPU time on its first row and the node on all."""
    times = np.zeros(table.num_rows)
    times[:1] = spent
    node = ray.get_runtime_context().get_node_id()
    table = table.append_column(_SPENT, pa.array(times))
    return table.append_column("_node", pa.array([node] * table.num_rows))


class NullModel:
    """Takes the pixels and discards them."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        spent = sum(batch[_SPENT.name].to_pylist())
        return _receipt(batch, spent, batch["_node"].to_pylist())


class TimedPredictor(Predictor):
    """The real actor, answering only with what its work cost."""

    def __init__(self, bundle: ray.ObjectRef[ModelBundle], settings: InferSettings) -> None:
        super().__init__(bundle, settings)
        self.node = ray.get_runtime_context().get_node_id()
        self.laps = Laps()

    def __call__(self, batch: pa.Table) -> pa.Table:
        super().__call__(batch.select(DECODED.names))
        return _receipt(batch, self.laps.lap(), [self.node] * len(batch))


def _receipt(batch: pa.Table, spent: float, nodes: list[str]) -> pa.Table:
    """One row for a batch."""
    row = {
        "when": time.time(),
        "images": len(batch),
        "ok": batch["status"].to_pylist().count(Status.OK.value),
        "cpu_seconds": spent,
        "nodes": nodes,
    }
    return pa.Table.from_pylist([row])


def _stage(name: StageName, batches: Iterable[pa.Table]) -> Stage:
    """The sum of the receipts."""
    rows = [row for table in batches for row in table.to_pylist()]
    curve = curve_of([(row["when"], row["images"]) for row in rows])
    images = sum(row["images"] for row in rows)
    if not sum(row["ok"] for row in rows):
        raise UsageError("none of the images could be decoded; jobs.classify says why")
    seconds = curve[-1][0] - curve[0][0]
    flat = [node for row in rows for node in row["nodes"]]
    return Stage(
        name=name,
        images=images,
        seconds=seconds,
        # A run of one or two batches has no middle; it is timed as a whole.
        images_per_second=steady_rate(curve) or images / max(seconds, 1e-3),
        cpu_seconds_per_image=sum(row["cpu_seconds"] for row in rows) / images,
        nodes={node: flat.count(node) for node in sorted(set(flat))},
    )
