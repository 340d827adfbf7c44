"""How a wave is cut, on small and large machines."""

import pyarrow as pa
import pytest

from pipeline.contract.spec import ComputeSpec
from pipeline.plan.diff import Work
from pipeline.runs.sizes import images_per_task, rows_per_block, rows_per_part
from pipeline.stages.allocation import Allocation, allocate

LAPTOP = allocate(ComputeSpec(), cpus=2, gpus=0)
GPU_NODE = allocate(ComputeSpec(), cpus=16, gpus=1)
SIZES = (1, 100, 280, 1_000, 10_000, 10**6)


def images(number: int, size_bytes: int | None = None) -> Work:
    """Every second of them without a size, as those are that a list names."""
    sizes = pa.array([size_bytes, None] * (number // 2) + [size_bytes] * (number % 2), pa.int64())
    return Work(images=(pa.table({"size_bytes": sizes}),))


def shards(number: int) -> Work:
    return Work(shards=(pa.table({"uri": pa.nulls(number, pa.string())}),))


def test_parts_grow_with_the_wave() -> None:
    sizes = [rows_per_part(images(n)) for n in (1, 60_000, 10**6, 10**7)]
    assert sizes == [256, 300, 5000, 16_384]


@pytest.mark.parametrize(
    ("allocation", "rows", "tasks"),
    [
        (LAPTOP, [8, 8, 24, 32, 32, 32], [8, 8, 24, 32, 256, 256]),
        (GPU_NODE, [32] * 6, [32, 32, 32, 32, 64, 256]),
    ],
)
def test_blocks_and_tasks(allocation: Allocation, rows: list[int], tasks: list[int]) -> None:
    found = [rows_per_block(images(n), 32, allocation) for n in SIZES]
    assert found == rows
    pairs = zip(SIZES, rows, strict=True)
    assert [images_per_task(images(n), r, allocation) for n, r in pairs] == tasks


@pytest.mark.parametrize(
    ("size_bytes", "task"), [(110_000, 256), (1_000_000, 64), (5_000_000, 32), (200_000_000, 32)]
)
def test_tasks_of_large_images_are_small(size_bytes: int, task: int) -> None:
    assert images_per_task(images(10**6, size_bytes), 32, GPU_NODE) == task


def test_a_shard_is_cut_into_blocks_too() -> None:
    assert rows_per_block(shards(1), 32, LAPTOP) == 32
    assert rows_per_block(shards(1), 1, LAPTOP) == 1
