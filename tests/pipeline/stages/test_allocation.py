"""How the stages share a machine: whatever it has, everything that starts first leaves room."""

import math
from itertools import product

import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ComputeSpec
from pipeline.stages.allocation import (
    WRITE_CPUS,
    Allocation,
    allocate,
    bundles,
)
from pipeline.stages.cluster.own.object_store import object_store_bytes
from pipeline.stages.nodes import Node


def fits(allocation: Allocation, cpus: float) -> bool:
    """Actors keep what they have; beside them decode and write tasks must find a place."""
    free = cpus - allocation.num_actors * allocation.actor_cpus
    tasks = allocation.decode_tasks
    return tasks >= 2 and 0 < tasks * allocation.decode_cpus <= free - WRITE_CPUS


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 16, 96])
def test_cpus_carry_all_stages(cpus: int) -> None:
    for threads, actors in product(range(1, 6), [None, *range(1, 9)]):
        compute = ComputeSpec(num_gpus=0, num_actors=actors, num_cpus_per_actor=threads)
        if threads > cpus:
            alone = rf"fits on no node: .* has {cpus}; lower compute\.num_cpus_per_actor"
            with pytest.raises(UsageError, match=alone):
                allocate(compute, [Node(cpus=cpus)])
            continue
        if threads * (actors or 1) > cpus:
            with pytest.raises(
                UsageError, match=r"lower compute\.num_actors or compute\.num_cpus_per_actor"
            ):
                allocate(compute, [Node(cpus=cpus)])
            continue
        allocation = allocate(compute, [Node(cpus=cpus)])
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
        allocation = allocate(compute, [Node(cpus=cpus, gpus=gpus)])
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
    allocation = allocate(compute, [Node(cpus=4, gpus=2)])
    assert allocation.on_gpu
    assert 0 < allocation.actor_gpus * actors <= wanted


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(UsageError, match=r"compute\.num_gpus 2 is more than the 1 of the cluster"):
        allocate(ComputeSpec(num_gpus=2), [Node(cpus=8, gpus=1)])


def test_gpus_are_used_when_there_are_any_and_not_when_unwanted() -> None:
    assert allocate(ComputeSpec(), [Node(cpus=8, gpus=1)]).on_gpu
    assert not allocate(ComputeSpec(num_gpus=0), [Node(cpus=8, gpus=1)]).on_gpu
    assert allocate(ComputeSpec(batch_size=7), [Node(cpus=8, gpus=1)]).batch_size == 7


def test_an_actor_on_a_gpu_has_the_next_batch_in_hand() -> None:
    assert allocate(ComputeSpec(), [Node(cpus=8, gpus=1)]).actor_calls == 2
    assert allocate(ComputeSpec(num_gpus=0), [Node(cpus=8, gpus=1)]).actor_calls == 1


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


class TestNodes:
    """An actor lies on one node, whatever all of them have together."""

    small, large = Node(cpus=2, host="small"), Node(cpus=8, host="large")
    one, four = Node(cpus=8, gpus=1, host="one"), Node(cpus=8, gpus=4, host="four")

    def test_as_many_as_the_nodes_hold(self) -> None:
        compute = ComputeSpec(num_cpus_per_actor=4)
        found = allocate(compute, [self.small, self.large, self.small])
        assert found.num_actors == 2  # and not three of the twelve CPUs
        assert found.decode_tasks >= 2

    @pytest.mark.parametrize("actors", [None, 1, 5])
    def test_more_cpus_than_any_node_has(self, actors: int | None) -> None:
        compute = ComputeSpec(num_cpus_per_actor=9, num_actors=actors)
        with pytest.raises(
            UsageError, match=r"of 9 CPUs fits on no node: .*\(large\) has 8; lower"
        ):
            allocate(compute, [self.small, self.large, self.large])

    def test_more_actors_than_fit(self) -> None:
        compute = ComputeSpec(num_cpus_per_actor=4, num_actors=3)
        with pytest.raises(UsageError, match="hold 2 of them"):
            allocate(compute, [self.small, self.large, self.small])

    @pytest.mark.parametrize(("gpus", "share"), [(5, 5), (5.5, 5), (8, 8)])
    def test_more_gpus_than_any_node_has(self, gpus: float, share: int) -> None:
        compute = ComputeSpec(num_gpus=gpus, num_actors=1)
        expected = rf"with {share} GPUs fits on no node: the largest \(four\) has 4; lower"
        with pytest.raises(UsageError, match=expected):
            allocate(compute, [self.one, self.four, self.four])

    def test_more_gpu_actors_than_fit(self) -> None:
        compute = ComputeSpec(num_gpus=6, num_actors=2)
        with pytest.raises(UsageError, match=r"with 3 GPUs each .* hold 1 of them"):
            allocate(compute, [self.one, self.four, self.one])

    @pytest.mark.parametrize(("wanted", "share"), [(0.25, 0.25), (0.3, 0.25), (0.75, 0.5)])
    def test_parts_of_gpus_lie_on_one(self, wanted: float, share: float) -> None:
        compute = ComputeSpec(num_gpus=wanted)
        found = allocate(compute, [self.one, self.one])
        assert (found.num_actors, found.actor_gpus) == (1, share)
        pieces = [Node(cpus=4, gpus=share - 0.1)] * 5
        with pytest.raises(UsageError, match=rf"with {share} GPUs fits on no node"):
            allocate(compute, pieces)

    def test_more_actors_than_ray_can_give_a_part_of_a_gpu(self) -> None:
        assert allocate(ComputeSpec(num_actors=10_000), [self.one]).on_gpu
        with pytest.raises(UsageError, match="more than 10000 to a GPU"):
            allocate(ComputeSpec(num_actors=10_001), [self.one])

    @pytest.mark.parametrize("cpus", [0, 1, 3])
    def test_a_node_with_gpus_and_few_cpus_holds_its_actors(self, cpus: int) -> None:
        found = allocate(ComputeSpec(), [Node(cpus=cpus, gpus=4), Node(cpus=64)])
        assert found.num_actors == 4
        assert 4 * found.actor_cpus <= cpus

    def test_a_network_larger_than_the_memory_of_any_node(self) -> None:
        nodes = [Node(cpus=4, memory=2**30, host="a"), Node(cpus=4, memory=2**31, host="b")]
        assert allocate(ComputeSpec(), nodes, weights_bytes=2**31)
        with pytest.raises(UsageError, match=r"takes 3 GiB .* \(b\) has 2 GiB"):
            allocate(ComputeSpec(), nodes, weights_bytes=3 * 2**30)

    @pytest.mark.parametrize("nodes", [[], [Node()], [Node(gpus=1)]])
    def test_none_with_cpus(self, nodes: list[Node]) -> None:
        with pytest.raises(UsageError, match="the cluster has no CPUs to compute on; start"):
            allocate(ComputeSpec(), nodes)


class TestPools:
    """A pool that changes its size begins with what there must be room for."""

    two, eight = Node(cpus=2), Node(cpus=8, gpus=4)

    def test_most_is_a_wish(self) -> None:
        found = allocate(ComputeSpec(num_actors="1:9"), [self.two] * 3)
        assert (found.least_actors, found.num_actors, found.growth) == (1, 6, 1)
        assert found.describe() == "1 to 6 actors with 1 CPU thread each, batches of 8"

    @pytest.mark.parametrize("cpus", [1, 2, 3, 4, 9, 10, 64])
    @pytest.mark.parametrize("can_grow", [False, True])
    def test_there_is_room_to_decode_beside_the_largest(self, cpus: int, can_grow: bool) -> None:
        found = allocate(ComputeSpec(num_actors="1:500"), [Node(cpus=cpus)], can_grow=can_grow)
        assert found.num_actors == (500 if can_grow else cpus)
        crowd = min(int(cpus / found.actor_cpus + 1e-6), found.num_actors)
        left = cpus - crowd * found.actor_cpus - found.write_tasks * WRITE_CPUS
        assert 0 < found.decode_cpus <= left + 1e-9

    def test_a_cluster_that_grows(self) -> None:
        found = allocate(ComputeSpec(num_actors="2:9"), [Node(), self.two], can_grow=True)
        assert (found.least_actors, found.num_actors, found.growth) == (2, 9, 5)

    def test_the_least_has_to_fit(self) -> None:
        with pytest.raises(UsageError, match=r"3 actors of 1 CPUs do not fit .* hold 2 of them"):
            allocate(ComputeSpec(num_actors="3:9"), [self.two], can_grow=True)

    @pytest.mark.parametrize(
        ("gpus", "actors", "can_grow", "least", "most", "share"),
        [
            (None, "1:9", False, 1, 4, 1),
            (None, "1:9", True, 1, 9, 1),
            (3, "1:9", True, 1, 3, 1),
            (8, "1:8", True, 1, 8, 1),  # more than there are yet
            (8, "1:8", False, 1, 4, 1),
            (2, "4:9", False, 4, 4, 0.5),
            (0.5, "1:2", False, 1, 1, 0.5),
        ],
    )
    def test_on_gpus(
        self, gpus: float, actors: str, can_grow: bool, least: int, most: int, share: float
    ) -> None:
        compute = ComputeSpec(num_gpus=gpus, num_actors=actors)
        found = allocate(compute, [self.eight], can_grow=can_grow)
        assert (found.least_actors, found.num_actors, found.actor_gpus) == (least, most, share)
        assert min(most, 4 / share) * found.actor_cpus <= 4

    def test_a_short_wave_needs_few(self) -> None:
        found = allocate(ComputeSpec(num_actors="2:9"), [Node(cpus=16)])
        assert (found.limited(3).least_actors, found.limited(3).num_actors) == (2, 3)
        assert (found.limited(1).least_actors, found.limited(1).num_actors) == (1, 1)


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (ComputeSpec(), [{"CPU": 1}]),
        (ComputeSpec(num_actors="2:9", num_cpus_per_actor=3), [{"CPU": 3}] * 2),
        (ComputeSpec(num_gpus=8, num_actors="1:8"), [{"GPU": 1, "CPU": 1}]),
        (ComputeSpec(num_actors=2, num_cpus_per_actor=3), [{"CPU": 3}] * 2),
        (ComputeSpec(num_gpus=2), [{"GPU": 1, "CPU": 1}] * 2),
        (ComputeSpec(num_gpus=4, num_actors=2), [{"GPU": 2, "CPU": 1}] * 2),
        (ComputeSpec(num_gpus=1, num_actors=2), [{"GPU": 0.5, "CPU": 1}] * 2),
    ],
)
def test_what_a_run_needs(compute: ComputeSpec, expected: list[dict[str, float]]) -> None:
    assert bundles(compute) == expected
    assert allocate(compute, [Node(cpus=item["CPU"], gpus=item.get("GPU", 0)) for item in expected])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_what_a_lost_node_had_decoded_finds_room_beside_its_actors(threads: int) -> None:
    for cpus in range(threads, 129):
        nodes = [Node(cpus=cpus)] * 2
        found = allocate(ComputeSpec(num_gpus=0, num_cpus_per_actor=threads), nodes)
        crowd = min(int(cpus / found.actor_cpus + 1e-6), found.num_actors)
        left = cpus - crowd * found.actor_cpus - found.write_tasks / 2 * WRITE_CPUS
        assert 0 < found.decode_cpus <= left + 1e-9, cpus
