"""How a wave is cut, on small and large machines."""

from itertools import product

import pytest

from pipeline.contract.spec import ComputeSpec
from pipeline.plan.diff import Work
from pipeline.runs.computing.sizes import images_per_task, num_tasks, rows_per_block, rows_per_part
from pipeline.stages.allocation import GPU_BLOCK, GPU_BLOCK_BYTES, Allocation, allocate
from pipeline.stages.nodes import Node
from tests.support.inputs.waves import images, shards

LAPTOP = allocate(ComputeSpec(), [Node(cpus=2)])
GPU_NODE = allocate(ComputeSpec(), [Node(cpus=16, gpus=1)], store_bytes=8 * 2**30)
SIZES = (1, 100, 280, 1_000, 10_000, 10**6)
BYTES = 224 * 224 * 3


def test_parts_grow_with_the_wave() -> None:
    sizes = [rows_per_part(images(n)) for n in (1, 60_000, 10**6, 10**7)]
    assert sizes == [256, 300, 5000, 16_384]


@pytest.mark.parametrize(
    ("allocation", "block_size", "rows", "tasks"),
    [
        (LAPTOP, None, [8, 8, 24, 32, 32, 32], [8, 8, 24, 32, 256, 256]),
        (LAPTOP, 16, [8, 8, 16, 16, 16, 16], [8, 8, 16, 48, 128, 128]),
        (GPU_NODE, None, [32, 32, 32, 32, 256, 256], [32, 32, 32, 32, 256, 2048]),
        (GPU_NODE, 32, [32] * 6, [32, 32, 32, 32, 64, 256]),
    ],
)
def test_blocks_and_tasks(
    allocation: Allocation, block_size: int | None, rows: list[int], tasks: list[int]
) -> None:
    found = [rows_per_block(images(n), block_size, BYTES, allocation) for n in SIZES]
    assert found == rows
    pairs = zip(SIZES, rows, strict=True)
    assert [images_per_task(images(n), r, allocation) for n, r in pairs] == tasks


@pytest.mark.parametrize(
    ("work", "tasks"),
    [(images(1), 1), (images(8), 1), (images(9), 2), (images(280), 12), (images(10**6), 3907),
     (shards(3), 3), (images(1) + shards(2), 3)],
)  # fmt: skip
def test_a_short_wave_is_few_tasks(work: Work, tasks: int) -> None:
    """For which few workers are started: as many as it is cut into."""
    rows = rows_per_block(work, None, BYTES, LAPTOP)
    assert num_tasks(work, ComputeSpec(), BYTES, LAPTOP) == tasks
    assert len(list(work.blocks(images_per_task(work, rows, LAPTOP)))) == tasks


def test_blocks_for_gpus_are_batches_or_parts_of_one() -> None:
    """Of any batch, image and store: what Ray puts together has no small rest."""
    for batch, size, store, wave in product(
        (1, 8, 48, 64, 100, 256, 512, 1000), (224, 384, 1024), (2**28, 2**30, 2**36), SIZES
    ):
        compute = ComputeSpec(batch_size=batch)
        node = allocate(compute, [Node(cpus=16, gpus=1)], store_bytes=store)
        rows = rows_per_block(images(wave), None, size * size * 3, node)
        if rows >= batch:
            assert rows % batch == 0
            assert rows < GPU_BLOCK + batch
        else:
            parts = -(-batch // rows)
            assert 0 <= parts * rows - batch < parts
        most = min(GPU_BLOCK_BYTES, node.most_block_bytes)
        assert rows == 1 or (rows - 1) * size * size * 3 <= most


@pytest.mark.parametrize(
    ("allocation", "size_bytes", "task"),
    [
        (LAPTOP, 110_000, 256),
        (LAPTOP, 1_000_000, 64),
        (LAPTOP, 200_000_000, 32),
        (GPU_NODE, 110_000, 1024),
        (GPU_NODE, 1_000_000, 256),
        (GPU_NODE, 200_000_000, 256),
    ],
)
def test_tasks_of_large_images_are_small(
    allocation: Allocation, size_bytes: int, task: int
) -> None:
    work = images(10**6, size_bytes)
    rows = rows_per_block(work, None, BYTES, allocation)
    assert images_per_task(work, rows, allocation) == task


def test_a_shard_is_cut_into_blocks_too() -> None:
    assert rows_per_block(shards(1), None, BYTES, LAPTOP) == 32
    assert rows_per_block(shards(1), 1, BYTES, LAPTOP) == 1
    assert rows_per_block(shards(1), None, BYTES, GPU_NODE) == 32
    assert rows_per_block(shards(100), None, BYTES, GPU_NODE) == 256
