"""How the stages share a machine: whatever it has, everything that starts first leaves room."""

import math
from itertools import product

import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ComputeSpec
from pipeline.stages.allocation import WRITE_CPUS, Allocation, allocate, object_store_bytes


def fits(allocation: Allocation, cpus: float) -> bool:
    """Actors keep what they have; beside them decode and write tasks must find a place."""
    free = cpus - allocation.num_actors * allocation.actor_cpus
    tasks = allocation.decode_tasks
    return tasks >= 2 and 0 < tasks * allocation.decode_cpus <= free - WRITE_CPUS


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 16, 96])
def test_cpus_carry_all_stages(cpus: int) -> None:
    for threads, actors in product(range(1, 6), [None, *range(1, 9)]):
        compute = ComputeSpec(num_gpus=0, num_actors=actors, num_cpus_per_actor=threads)
        if threads * (actors or 1) > cpus:
            with pytest.raises(
                UsageError, match=r"lower compute\.num_actors or compute\.num_cpus_per_actor"
            ):
                allocate(compute, cpus=cpus, gpus=0)
            continue
        allocation = allocate(compute, cpus=cpus, gpus=0)
        assert fits(allocation, cpus), allocation
        assert not allocation.on_gpu
        assert allocation.num_actors == (actors or cpus // threads)
        assert allocation.actor_threads == threads
        assert allocation.num_actors * threads <= cpus


@pytest.mark.parametrize("cpus", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("gpus", [1, 2, 3, 8])
def test_gpus_carry_every_actor(cpus: int, gpus: int) -> None:
    """An actor lies on whole GPUs, or on one that it shares: no share may span two of them."""
    for wanted, actors in product([None, *range(1, gpus + 1)], [None, *range(1, 20)]):
        compute = ComputeSpec(num_gpus=wanted, num_actors=actors)
        allocation = allocate(compute, cpus=cpus, gpus=gpus)
        assert fits(allocation, cpus), allocation
        assert allocation.num_actors == (actors or wanted or gpus)
        share = allocation.actor_gpus
        if share >= 1:
            assert share == int(share)
            assert share * allocation.num_actors <= (wanted or gpus)
        else:
            per_gpu = math.floor(1 / share)
            assert per_gpu * (wanted or gpus) >= allocation.num_actors, allocation


@pytest.mark.parametrize(("wanted", "actors"), [(0.5, 1), (0.5, 2), (0.25, 1), (1.5, 1)])
def test_parts_of_a_gpu(wanted: float, actors: int) -> None:
    compute = ComputeSpec(num_gpus=wanted, num_actors=actors)
    allocation = allocate(compute, cpus=4, gpus=2)
    assert allocation.on_gpu
    assert 0 < allocation.actor_gpus * actors <= wanted


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(UsageError, match=r"compute\.num_gpus 2 is more than the 1 of the cluster"):
        allocate(ComputeSpec(num_gpus=2), cpus=8, gpus=1)


def test_gpus_are_used_when_there_are_any_and_not_when_unwanted() -> None:
    assert allocate(ComputeSpec(), cpus=8, gpus=1).on_gpu
    assert not allocate(ComputeSpec(num_gpus=0), cpus=8, gpus=1).on_gpu
    assert allocate(ComputeSpec(batch_size=7), cpus=8, gpus=1).batch_size == 7


def test_an_actor_on_a_gpu_has_the_next_batch_in_hand() -> None:
    assert allocate(ComputeSpec(), cpus=8, gpus=1).actor_calls == 2
    assert allocate(ComputeSpec(num_gpus=0), cpus=8, gpus=1).actor_calls == 1


@pytest.mark.parametrize(
    ("cpus", "memory", "shared", "expected"),
    [
        (16, 128, 64, 7.7),  # as much as blocks for all cores take
        (16, 16, 64, 4.8),  # three tenths of the memory
        (16, 128, 2, 1.8),  # what a container was given of /dev/shm
        (16, 128, 0, 1),  # Ray then takes a file
        (1, 1, 1, 1),
    ],
)
def test_object_store_of_a_machine_with_gpus(
    cpus: int, memory: int, shared: int, expected: float
) -> None:
    found = object_store_bytes(cpus, memory * 2**30, shared * 2**30)
    assert found / 2**30 == pytest.approx(expected, rel=0.01)
