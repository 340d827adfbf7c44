"""How the work of a wave is cut: into tasks, blocks and parts, each for a reason of its own."""

from __future__ import annotations

from math import ceil

from pipeline.plan.diff import Work
from pipeline.stages.allocation import Allocation

TURNS = 8
"""How often every worker is given something in a wave, so that all end at about the same time."""
MOST_BLOCKS_OF_A_TASK = 8
IMAGES_WORTH_COMPILING = 200_000
"""For an actor. On an H100, torch.compile takes CvT-13 in bfloat16 from 12,000 to 18,000 images/s:
28 microseconds an image. It takes 25 s in a machine's first run and 4 s in later ones, which a run
of this length has gained again (docs/measurements)."""
MOST_BYTES_OF_A_TASK = 64 * 2**20
"""Encoded: large images take long to decode, and are few enough to hide the latency of another."""


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
