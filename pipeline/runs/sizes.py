"""How the work of a wave is cut: into tasks, blocks and parts, each for a reason of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import pyarrow as pa

from pipeline.contract.spec import ComputeSpec
from pipeline.plan.diff import Work
from pipeline.stages.allocation import Allocation
from pipeline.stages.graph import Stages

TURNS = 8
"""How often every worker is given something in a wave, so that all end at about the same time."""
MOST_BLOCKS_OF_A_TASK = 8
IMAGES_WORTH_COMPILING = 200_000
"""For an actor. On an H100, torch.compile takes CvT-13 in bfloat16 from 12,000 to 18,000 images/s:
28 microseconds an image. It takes 25 s in a machine's first run and 4 s in later ones, which a run
of this length has gained again (docs/measurements)."""
MOST_BYTES_OF_A_TASK = 64 * 2**20
"""Encoded: large images take long to decode, and are few enough to hide the latency of another."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A wave of work in the pieces that suit it."""

    blocks: list[pa.Table]
    """The work of one decode task each."""
    rows: int
    """Of a block of decoded images."""
    num_actors: int
    """No more than there are such blocks."""
    compile: bool

    @classmethod
    def of(cls, work: Work, compute: ComputeSpec, allocation: Allocation) -> Cut:
        """Cut a wave, which is not empty."""
        rows = rows_per_block(work, compute.block_size, allocation)
        is_worth_it = is_worth_compiling(work, allocation)
        return cls(
            blocks=list(work.blocks(images_per_task(work, rows, allocation))),
            rows=rows,
            num_actors=min(allocation.num_actors, ceil(work.weight / rows)),
            compile=is_worth_it if compute.compile is None else compute.compile,
        )

    def fit(self, stages: Stages) -> Stages:
        """The stages as they suit this work."""
        return replace(
            stages,
            decode=replace(stages.decode, block_size=self.rows),
            infer=replace(stages.infer, compile=self.compile),
            allocation=replace(stages.allocation, num_actors=self.num_actors),
        )


def rows_per_block(work: Work, block_size: int, allocation: Allocation) -> int:
    """Decoded images that travel to an actor together: ``block_size``, in a short wave less."""
    turn = ceil(work.weight / (TURNS * allocation.num_actors))
    return min(block_size, ceil(turn / allocation.batch_size) * allocation.batch_size)


def images_per_task(work: Work, rows: int, allocation: Allocation) -> int:
    """Images that a decode task reads and hands on in blocks of ``rows``.

    The storage's latency counts once a task, as fetching runs ahead within it, and so do some 15 ms
    of Ray's scheduler; both disappear in a task of several blocks.
    """
    turn = work.num_images / (TURNS * allocation.decode_tasks)
    most = MOST_BYTES_OF_A_TASK / work.mean_bytes if work.mean_bytes else turn
    return rows * min(max(int(min(ceil(turn), most)) // rows, 1), MOST_BLOCKS_OF_A_TASK)


def is_worth_compiling(work: Work, allocation: Allocation) -> bool:
    """Whether what torch.compile saves is more than what it takes."""
    return allocation.on_gpu and work.weight >= IMAGES_WORTH_COMPILING * allocation.num_actors


def rows_per_part(work: Work) -> int:
    """Small enough that a crash costs little, large enough that a wave has at most some hundred
    parts: a two-hundredth of it, between 256 and 16,384 rows."""
    return min(max(work.weight // 200, 256), 16_384)
