"""Each stage alone, through Ray: what it can do when the other one costs nothing.

decode      the real decode tasks on every CPU, a null model that only counts
model       a null decode that makes pixels without reading, the real actors
null        both null: what Ray itself can carry
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from jobs.bench.measure.rates import curve_of, steady_rate
from pipeline.contract.errors import UsageError
from pipeline.contract.schema import DECODED, NO_COLUMNS, WORK, Status
from pipeline.contract.spec import InputSpec, RunSpec
from pipeline.model.bundle import ModelBundle
from pipeline.model.loaded import LoadedModel
from pipeline.sources.formats.item import ReadOptions
from pipeline.sources.formats.kinds import Kind
from pipeline.sources.inventory import inventory
from pipeline.stages.allocation import Allocation
from pipeline.stages.decode import DecodeSettings, decode_block
from pipeline.stages.infer.actor import Predictor
from pipeline.stages.infer.settings import InferSettings
from pipeline.storage.files import read_bytes
from pipeline.storage.filesystems import WorkerEnvironment

StageName = Literal["decode", "model", "null"]

_SPENT = pa.field("_cpu_seconds", pa.float64())
"""On the first row of what a decode task yields, CPU time of its process since the last yield."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage reached."""

    name: StageName
    images: int
    seconds: float
    """From the first result, or the start of work on it where that is known, to the last."""
    images_per_second: float
    """While all workers are busy."""
    cpu_seconds_per_image: float
    """Of the workers that carry out the stage's own work."""
    nodes: dict[str, int]
    """Images by the Ray id of the node that did the work."""


def work_blocks(
    inputs: InputSpec, block_size: int, images: int | None, at_least: int = 0
) -> list[pa.Table]:
    """WORK for the first ``images`` objects of an INPUT (all, for None), said again and again
    until there are ``at_least``: a stage must be timed for long enough."""
    tables = []
    left = images
    for table in inventory(inputs):
        tables.append(table if left is None else table.slice(0, left))
        if left is not None:
            left -= tables[-1].num_rows
            if left <= 0:
                break
    rows = pa.concat_tables(tables).select(WORK.names[:-1])
    work = rows.append_column(WORK.field("_done"), pa.nulls(len(rows), WORK.field("_done").type))
    times = max(-(-at_least // len(work)), 1)
    work = pa.concat_tables([work] * times).combine_chunks()
    return [work.slice(start, block_size) for start in range(0, len(work), block_size)]


def run_stage(
    name: StageName, spec: RunSpec, model: LoadedModel, blocks: list[pa.Table], room: Allocation
) -> Stage:
    """Time one stage; Ray is up.

    Raises:
        UsageError: none of the images could be decoded.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.wait_for_min_actors_s = 600
    context.target_max_block_size = 16 * 2**20
    alone = name != "model"  # then nothing else takes the CPUs
    work = ray.data.from_blocks(blocks)
    if name == "decode":
        decode: Any = partial(timed_decode, settings=_decode_settings(spec, model))
    else:
        decode = partial(null_decode, size=model.preprocessing.size)
    decoded = work.map_batches(
        decode,
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=1 if alone else room.decode_cpus,
    )
    done = _model(name, decoded, model, room)
    return _stage(name, done.iter_batches(batch_format="pyarrow", batch_size=None))


def _model(name: StageName, decoded: Dataset, model: LoadedModel, room: Allocation) -> Dataset:
    common: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": room.batch_size}
    if name != "model":
        pool = ActorPoolStrategy(size=room.num_actors)
        return decoded.map_batches(NullModel, compute=pool, num_cpus=0, **common)
    settings = InferSettings.of(
        model,
        gpus=room.actor_gpus,
        threads=room.actor_threads,
        calls=room.actor_calls,
        batch_size=room.batch_size,
    )
    return decoded.map_batches(
        TimedPredictor,
        fn_constructor_args=(ray.put(model.pack()), settings),
        compute=ActorPoolStrategy(size=room.num_actors),
        num_cpus=room.actor_cpus,
        num_gpus=room.actor_gpus or None,
        **common,
    )


def _decode_settings(spec: RunSpec, model: LoadedModel) -> DecodeSettings:
    return DecodeSettings(
        preprocessing=model.preprocessing,
        mode=spec.model.decode,
        environment=WorkerEnvironment.capture(),
        max_pixels=spec.inputs.max_pixels,
        max_bytes=spec.inputs.max_bytes,
        read=ReadOptions.of(spec.inputs, NO_COLUMNS),
        block_size=spec.compute.block_size,
    )


def timed_decode(work: pa.Table, settings: DecodeSettings) -> Iterator[pa.Table]:
    """``decode_block`` whose tables also say what CPU time they took, and on which node."""
    mark = time.process_time()
    for table in decode_block(work, settings):
        spent, mark = time.process_time() - mark, time.process_time()
        yield _signed(table, spent)


def null_decode(work: pa.Table, size: int) -> Iterator[pa.Table]:
    """DECODED rows of noise (size, size, 3), without a look at any image."""
    noise = np.random.default_rng(0).integers(0, 256, size * size * 3, np.uint8).tobytes()
    known: dict[str, Any] = {
        "uri": work["uri"],
        "status": pa.array([Status.OK.value] * len(work)),
        "_pixels": pa.array([noise] * len(work), DECODED.field("_pixels").type),
    }
    columns = [known.get(f.name, pa.nulls(len(work), f.type)) for f in DECODED]
    yield _signed(pa.table(columns, schema=DECODED), 0.0)


def _signed(table: pa.Table, spent: float) -> pa.Table:
    """With the CPU time on the first row and the node on all."""
    times = np.zeros(table.num_rows)
    times[:1] = spent
    node = ray.get_runtime_context().get_node_id()
    table = table.append_column(_SPENT, pa.array(times))
    return table.append_column("_node", pa.array([node] * table.num_rows))


class NullModel:
    """Takes the pixels and throws them away."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        spent = sum(batch[_SPENT.name].to_pylist())
        return _receipt(batch, spent, batch["_node"].to_pylist())


class TimedPredictor(Predictor):
    """The real actor, whose answer is only what it took."""

    def __init__(self, bundle: ray.ObjectRef[ModelBundle], settings: InferSettings) -> None:
        super().__init__(bundle, settings)
        self.node = ray.get_runtime_context().get_node_id()

    def __call__(self, batch: pa.Table) -> pa.Table:
        started = time.process_time()
        super().__call__(batch.select(DECODED.names))
        return _receipt(batch, time.process_time() - started, [self.node] * len(batch))


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


def copy_images(inputs: InputSpec, number: int, directory: Path) -> Path:
    """The first images of an INPUT as local files, named by their place.

    Raises:
        UsageError: the INPUT holds shards or tables.
    """
    directory.mkdir()
    index = 0
    for table in inventory(inputs):
        for uri, kind in zip(table["uri"].to_pylist(), table["kind"].to_pylist(), strict=True):
            if kind != Kind.IMAGE.value:
                raise UsageError(f"--peers reads files alone; {uri} is none")
            suffix = PurePosixPath(uri).suffix.lower() or ".jpg"
            (directory / f"{index:06d}{suffix}").write_bytes(read_bytes(uri))
            index += 1
            if index == number:
                return directory
    return directory
