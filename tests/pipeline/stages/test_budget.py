"""Ray Data lets as many decode tasks run as an allocation has room for: its own arithmetic is
asked, with stand-ins for its operators."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.data._internal.execution.interfaces import ExecutionResources
from ray.data._internal.execution.resource_manager import ReservationOpResourceAllocator

from pipeline.contract.spec import ComputeSpec
from pipeline.runs.computing.sizes import rows_per_block
from pipeline.stages.allocation import (
    GPU_BLOCK_BYTES,
    WRITE_CPUS,
    Allocation,
    allocate,
)
from pipeline.stages.cluster.own.object_store import object_store_bytes
from pipeline.stages.nodes import Node
from tests.support.inputs.waves import images

GIB = 2**30
RESERVED = 0.5
"""Ray Data's default of op_resource_reservation_ratio."""
PLANNED = 0.5
"""The share of the object store that Ray Data plans with."""
BLOCKS_OF_A_TASK = 2
"""That a task may have ready, in Ray Data's books."""


class Stage:
    """An operator as the allocator sees it."""

    def __init__(self, cpus: float, most_cpus: float, *, is_pool: bool = False) -> None:
        self.each = ExecutionResources(cpu=0 if is_pool else cpus)
        self.least = ExecutionResources(cpu=most_cpus if is_pool else cpus)
        self.most = ExecutionResources(cpu=most_cpus, object_store_memory=float("inf"))
        self.usage = self.least if is_pool else ExecutionResources()
        self.metrics = SimpleNamespace(obj_store_mem_max_pending_output_per_task=0)
        self.running = 0

    def incremental_resource_usage(self) -> ExecutionResources:
        return self.each

    min_scheduling_resources = incremental_resource_usage

    def min_max_resource_requirements(self) -> tuple[ExecutionResources, ExecutionResources]:
        return self.least, self.most

    def throttling_disabled(self) -> bool:
        return False

    def has_execution_finished(self) -> bool:
        return False

    def start_task(self) -> None:
        self.running += 1
        self.usage = self.usage.add(self.each)

    def pending(self) -> int:
        return self.running * int(self.metrics.obj_store_mem_max_pending_output_per_task)


def running_at_a_time(allocation: Allocation, cpus: float, block: float, writers: float) -> int:
    """How many decode tasks Ray Data starts while actors take their blocks at once."""
    infinite = float("inf")
    decode = Stage(allocation.decode_cpus, infinite)
    actors = Stage(0, allocation.num_actors * allocation.actor_cpus, is_pool=True)
    write = Stage(WRITE_CPUS, writers * WRITE_CPUS)
    decode.metrics.obj_store_mem_max_pending_output_per_task = BLOCKS_OF_A_TASK * block
    manager: Any = SimpleNamespace(
        _topology={decode: None, actors: None, write: None},
        get_mem_op_internal=Stage.pending,
        get_mem_op_outputs=lambda stage, include_ineligible_downstream: 0,
        get_op_usage=lambda stage: stage.usage,
        _is_blocking_materializing_op=lambda stage: False,
    )
    ray_data: Any = ReservationOpResourceAllocator(manager, RESERVED, None, None)
    limits = ExecutionResources(cpu=cpus, object_store_memory=PLANNED * allocation.store_bytes)
    while decode.running < 1000:
        ray_data.update_budgets(limits=limits)
        if not ray_data.can_submit_new_task(decode):
            break
        decode.start_task()
    return decode.running


def on_gpus(cpus: int, gpus: int, store: int, nodes: int = 1) -> Allocation:
    return allocate(
        ComputeSpec(), [Node(cpus=cpus / nodes, gpus=gpus / nodes)] * nodes, store_bytes=store
    )


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes"), [(4, 1, 1), (16, 1, 1), (128, 8, 1), (64, 4, 4), (13, 1, 1)]
)
@pytest.mark.parametrize("size", [224, 384])
def test_all_cores_decode_beside_gpus(cpus: int, gpus: int, nodes: int, size: int) -> None:
    store = nodes * object_store_bytes(cpus // nodes, 256 * GIB, 128 * GIB)
    allocation = on_gpus(cpus, gpus, store, nodes)
    assert allocation.decode_tasks == cpus - gpus
    image_bytes = size * size * 3
    block = rows_per_block(images(10**6), None, image_bytes, allocation) * image_bytes
    assert GPU_BLOCK_BYTES / 3 < block <= GPU_BLOCK_BYTES
    found = running_at_a_time(allocation, cpus, block, allocation.write_tasks)
    assert found == allocation.decode_tasks


@pytest.mark.parametrize("store", [GIB // 4, GIB, 3 * GIB])
def test_in_a_small_store_blocks_are_small(store: int) -> None:
    allocation = on_gpus(16, 1, store)
    block = rows_per_block(images(10**6), None, 224 * 224 * 3, allocation) * 224 * 224 * 3
    assert running_at_a_time(allocation, 16, block, allocation.write_tasks) == 15


def test_what_would_happen_otherwise() -> None:
    """The figures that the allocation's documentation names."""
    large = on_gpus(16, 1, 64 * GIB)
    assert running_at_a_time(large, 16, 2**20, float("inf")) == 11
    assert running_at_a_time(on_gpus(16, 1, GIB), 16, 38e6, large.write_tasks) == 2


@pytest.mark.parametrize("cpus", [2, 4, 16, 64])
def test_on_cpus_the_room_is_used_too(cpus: int) -> None:
    allocation = allocate(ComputeSpec(), [Node(cpus=cpus)])
    block = rows_per_block(images(10**6), None, 224 * 224 * 3, allocation) * 224 * 224 * 3
    assert running_at_a_time(allocation, cpus, block, allocation.write_tasks) >= (
        allocation.decode_tasks
    )
