"""The data flow itself, as Ray sees it: blocks of work, decode tasks, model actors, one sink."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
import ray
from ray.data import (
    ActorPoolStrategy,
    DataContext,
    Dataset,
    ExecutionOptions,
    TaskPoolStrategy,
)
from ray.data.dataset import MaterializedDataset
from ray.util.annotations import RayDeprecationWarning

from pipeline.model.bundle import ModelBundle, ShadowBundle
from pipeline.output.open_run import Committed
from pipeline.stages.allocation import WRITE_CPUS, Allocation
from pipeline.stages.decode.settings import DecodeSettings
from pipeline.stages.decode.task import decode_block
from pipeline.stages.infer.actor import Predictor
from pipeline.stages.infer.settings import InferSettings
from pipeline.stages.rows.write import PartSink
from pipeline.stages.watching.pool import Pool
from pipeline.stages.watching.progress import shows_all
from pipeline.stages.watching.reach import elsewhere

NO_PROGRESS_TIMEOUT_SECONDS = 600
ACTORS_START_TIMEOUT_SECONDS = 1800
"""Machines with GPUs may have to be started first."""
# Ray's defaults have no limit: a block that kills its process would be retried for ever. An actor's
# restarts bound that, too; its retries are not limited, because Ray uses one up every second until
# it knows that the actor's node is dead.
TASK_LIMITS: dict[str, Any] = {"max_retries": 3}
ACTOR_LIMITS: dict[str, Any] = {"max_restarts": 3, "max_task_retries": -1}
PASSED_ON_FROM = 0.8
"""Of a full block. Ray gathers a task's blocks up to a size, while actors wait for them, and cuts
what is half as large again. Neither may happen to a block, be it smaller because images failed or
larger because of columns of the input: actors would get odd remainders of batches."""

Decode = Callable[[pa.Table], Iterator[pa.Table]]


class Actor(Protocol):
    """What an actor of the pool does with a batch; two threads may call it at the same time."""

    def __call__(self, batch: pa.Table) -> pa.Table: ...


@dataclass(frozen=True)
class Stages:
    """What the stages of a run compute, and with what."""

    decode: DecodeSettings
    bundle: ray.ObjectRef[ModelBundle]
    infer: InferSettings
    allocation: Allocation
    shadow: ray.ObjectRef[ShadowBundle] | None = None
    pool: Pool = field(default_factory=Pool)
    """How many actors there are, while they compute."""


def execute(blocks: Sequence[pa.Table], stages: Stages, sink: PartSink) -> Committed:
    """Stream the blocks through decode and inference into the sink; returns what it committed."""
    work = source(blocks, stages.decode, stages.pool)
    decoded = decode_stage(work, partial(decode_block, settings=stages.decode), stages.allocation)
    arguments = (stages.bundle, stages.infer, stages.shadow)
    results = infer_stage(decoded, Predictor, arguments, stages.allocation)
    writers = stages.allocation.write_tasks * stages.allocation.growth
    with warnings.catch_warnings():
        # A short run may not reach this limit either; how many blocks come, nobody knows yet.
        warnings.filterwarnings("ignore", "The maximum number of concurrent tasks for 'Write'")
        results.write_datasink(sink, ray_remote_args={"num_cpus": WRITE_CPUS}, concurrency=writers)
    return sink.committed


def source(
    blocks: Sequence[pa.Table], decode: DecodeSettings, pool: Pool | None = None
) -> MaterializedDataset[Any]:
    """WORK as a dataset, which carries the options of a run to every later stage; ``pool`` is kept
    up to date while they compute."""
    with _options(decode, pool):
        # from_arrow runs a task for each of them.
        work: MaterializedDataset[Any] = ray.data.from_blocks(list(blocks))
    return work


def decode_stage(work: MaterializedDataset[Any], decode: Decode, allocation: Allocation) -> Dataset:
    """WORK to DECODED, a task for every block; ``decode`` is ``decode_block`` with its settings,
    or its substitute when a stage is measured alone."""
    # A limit that is not reached, Ray Data thinks a mistake and says so.
    tasks = max(min(allocation.decode_tasks * allocation.growth, work.num_blocks()), 1)
    with _limits_are_deprecated():
        return work.map_batches(
            decode,
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=allocation.decode_cpus,
            # On CPUs a task's share may be less than its part of what is left: see ``allocation``.
            compute=None if allocation.on_gpu else TaskPoolStrategy(tasks),
            **TASK_LIMITS,
        )


def infer_stage(
    decoded: Dataset, actor: type[Actor], arguments: tuple[object, ...], allocation: Allocation
) -> Dataset:
    """DECODED to results, by a pool of actors; ``actor`` is the ``Predictor``, with its arguments,
    or its substitute when a stage is measured alone."""
    with _limits_are_deprecated():
        return decoded.map_batches(
            actor,
            fn_constructor_args=arguments,
            compute=ActorPoolStrategy(
                min_size=allocation.least_actors,
                max_size=allocation.num_actors,
                max_concurrent_calls_per_actor=allocation.actor_calls,
                enable_true_multi_threading=allocation.actor_calls > 1,
            ),
            batch_format="pyarrow",
            batch_size=allocation.batch_size,
            num_cpus=allocation.actor_cpus,
            num_gpus=allocation.actor_gpus or None,
            **ACTOR_LIMITS,
        )


def _limits_are_deprecated() -> warnings.catch_warnings[None]:
    """Ray 2.60 to 2.63 accept restart limits only through arguments that they warn about."""
    return warnings.catch_warnings(action="ignore", category=RayDeprecationWarning)


@contextmanager
def _options(decode: DecodeSettings, pool: Pool | None) -> Iterator[None]:
    """What datasets that are made inside are to do; those of whoever called us are left alone."""
    context = DataContext.get_current()
    full = decode.block_size * decode.image_bytes
    options = {
        "enable_progress_bars": shows_all(),
        "enable_rich_progress_bars": True,
        "use_ray_tqdm": False,
        "execution_no_progress_timeout_s": NO_PROGRESS_TIMEOUT_SECONDS,
        # Actors check themselves when they start; no image is read until all have.
        "wait_for_min_actors_s": ACTORS_START_TIMEOUT_SECONDS,
        "execution_options": _elsewhere(context.execution_options),
        "target_max_block_size": max(int(PASSED_ON_FROM * full), 1),
        "custom_execution_callback_classes": [
            *context.custom_execution_callback_classes,
            *([pool.watch()] if pool else []),
        ],
    }
    before = {name: getattr(context, name) for name in options}
    try:
        _set(context, options)
        yield
    finally:
        _set(context, before)


def _elsewhere(options: ExecutionOptions) -> ExecutionOptions:
    """The same, for nodes that were not left out."""
    found = copy(options)
    for name, value in elsewhere().items():
        setattr(found, name, value)
    return found


def _set(context: DataContext, options: dict[str, Any]) -> None:
    for name, value in options.items():
        setattr(context, name, value)
