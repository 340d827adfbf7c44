"""How the work of a wave is cut into tasks, blocks and parts, each for a reason of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log2
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.contract.spec import ComputeSpec
from pipeline.plan.diff import Work
from pipeline.stages.allocation import CPU_BLOCK, GPU_BLOCK, GPU_BLOCK_BYTES, Allocation

if TYPE_CHECKING:
    from pipeline.stages.graph import Stages

TURNS = 8
"""How often every worker is given something in a wave, so that all end at about the same time."""
MOST_BLOCKS_OF_A_TASK = 8
SMALLEST_GPU_BLOCK = 32
"""Below that, a block of a short wave costs Ray longer than all cores take to decode another."""
IMAGES_WORTH_COMPILING = 200_000
"""For an actor. On an H100, torch.compile takes CvT-13 in bfloat16 from 12,000 to 18,000 images/s:
28 microseconds saved per image. It takes 25 s in a machine's first run and 4 s in later ones, which
a run of this length makes up for (docs/measurements.md)."""
MOST_BYTES_OF_A_TASK = 64 * 2**20
"""Encoded: large images take so long to decode that a few of them hide the latency of the next."""
MOST_BYTES_ON_GPUS = 128 * 2**20
"""The same beside a GPU, which waits for the decoders: between two tasks, a core is idle until the
driver gets to it."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A wave of work, cut into pieces of suitable size."""

    blocks: list[pa.Table]
    """The work of one decode task each."""
    rows: int
    """Of a block of decoded images."""
    num_actors: int
    """The most there may be: no more than such blocks."""
    compile: bool

    @classmethod
    def of(cls, work: Work, compute: ComputeSpec, stages: Stages) -> Cut:
        """Cut a wave that is not empty, for stages that have no cut yet."""
        allocation = stages.allocation
        rows = rows_per_block(work, compute.block_size, stages.decode.image_bytes, allocation)
        is_worth_it = is_worth_compiling(work, allocation)
        return cls(
            blocks=list(work.blocks(images_per_task(work, rows, allocation))),
            rows=rows,
            num_actors=min(allocation.num_actors, ceil(work.weight / rows)),
            compile=is_worth_it if compute.compile is None else compute.compile,
        )

    def fit(self, stages: Stages) -> Stages:
        """The stages, adapted to this work."""
        return replace(
            stages,
            decode=replace(stages.decode, block_size=self.rows),
            infer=replace(stages.infer, compile=self.compile),
            allocation=stages.allocation.limited(self.num_actors),
        )


def rows_per_block(
    work: Work, block_size: int | None, image_bytes: int, allocation: Allocation
) -> int:
    """Decoded images that travel to an actor together.

    Args:
        work: in a short wave they are fewer, so that every worker has a share.
        block_size: the most there may be, if given.
        image_bytes: of the pixels of one image.
        allocation: on GPUs they make up one batch or several, or a part of one, which Ray
            completes.
    """
    if allocation.on_gpu and block_size is None:
        return _rows_on_gpus(work, image_bytes, allocation)
    turn = ceil(work.weight / (TURNS * allocation.num_actors))
    whole_batches = ceil(turn / allocation.batch_size) * allocation.batch_size
    return min(block_size or CPU_BLOCK, whole_batches)


def _rows_on_gpus(work: Work, image_bytes: int, allocation: Allocation) -> int:
    batch = allocation.batch_size
    turn = max(work.weight // (2 * allocation.decode_tasks), SMALLEST_GPU_BLOCK)
    most_bytes = min(GPU_BLOCK_BYTES, allocation.most_block_bytes)
    most = max(min(turn, int(most_bytes / image_bytes)), 1)
    if most >= batch:
        return batch * min(most // batch, ceil(GPU_BLOCK / batch))
    return ceil(batch / (1 << ceil(log2(batch / most))))


def num_tasks(work: Work, compute: ComputeSpec, image_bytes: int, allocation: Allocation) -> int:
    """Decode tasks that a wave is cut into, with one for each of its shards."""
    rows = rows_per_block(work, compute.block_size, image_bytes, allocation)
    return work.num_shards + ceil(work.num_images / images_per_task(work, rows, allocation))


def images_per_task(work: Work, rows: int, allocation: Allocation) -> int:
    """Images that a decode task reads and hands on in blocks of ``rows``.

    The storage's latency counts once per task, as fetching runs ahead within it, and so do some
    15 ms of Ray's scheduler; both become negligible in a task of several blocks.
    """
    turn = work.num_images / (TURNS * allocation.decode_tasks)
    most_bytes = MOST_BYTES_ON_GPUS if allocation.on_gpu else MOST_BYTES_OF_A_TASK
    most = most_bytes / work.mean_bytes if work.mean_bytes else turn
    return rows * min(max(int(min(ceil(turn), most)) // rows, 1), MOST_BLOCKS_OF_A_TASK)


def is_worth_compiling(work: Work, allocation: Allocation) -> bool:
    """Whether ``torch.compile`` saves more time than it takes."""
    return allocation.on_gpu and work.weight >= IMAGES_WORTH_COMPILING * allocation.num_actors


def rows_per_part(work: Work) -> int:
    """Small enough that a crash costs little, large enough that a wave has at most some hundred
    parts: a two-hundredth of it, between 256 and 16,384 rows."""
    return min(max(work.weight // 200, 256), 16_384)
