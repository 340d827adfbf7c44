"""Batches in hand, with lanes that need no GPU: sizes, threads, and memory that is not enough."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.contract.errors import RunError
from pipeline.model.network import Outputs, Pixels
from pipeline.stages.infer.lanes import Lanes, best_batch_size


def images(number: int) -> Pixels:
    """Pixels that tell which image they are."""
    return np.arange(number, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=3)


@dataclass
class Memory:
    """A device that holds so many images; what was asked of it."""

    holds: int = 1_000
    made: list[int] = field(default_factory=list)
    ran: Counter[int] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)

    def lane(self, size: int) -> "FakeLane":
        self.made.append(size)
        if size > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return FakeLane(size, self)

    def lanes(self, size: int, number: int = 1) -> Lanes:
        return Lanes(self.lane, size, number, self.said.append)


@dataclass
class FakeLane:
    batch_size: int
    memory: Memory
    busy: threading.Lock = field(default_factory=threading.Lock)

    def run(self, pixels: Pixels | Tensor) -> Outputs:
        assert self.busy.acquire(blocking=False), "two threads share a lane"
        try:
            if self.batch_size > self.memory.holds:
                raise torch.OutOfMemoryError("CUDA out of memory")
            assert len(pixels) <= self.batch_size
            self.memory.ran[len(pixels)] += 1
            numbers = torch.as_tensor(pixels)[:, 0, 0, :].float()
            return Outputs(numbers, numbers + 0.5)
        finally:
            self.busy.release()

    def seconds(self) -> float:
        return 1.0


def numbers(out: Outputs) -> list[float]:
    assert (out.embedding == out.logits + 0.5).all()
    return out.logits[:, 0].tolist()


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
def test_any_number_of_images_in_batches_of_one_size(count: int) -> None:
    memory = Memory()
    assert numbers(memory.lanes(4).run(images(count))) == list(range(count))
    assert memory.made == [4]
    whole, rest = divmod(count, 4)
    assert memory.ran == Counter({4: whole, rest: 1} if rest and whole else {rest or 4: whole or 1})


def test_threads_never_share_a_lane() -> None:
    lanes = Memory().lanes(4, number=2)
    with ThreadPoolExecutor(6) as threads:
        for out in threads.map(lanes.run, [images(9)] * 60):
            assert numbers(out) == list(range(9))


def test_too_little_memory_at_the_start_halves_the_batch() -> None:
    memory = Memory(holds=10)
    lanes = memory.lanes(64, number=2)
    assert lanes.batch_size == 8
    assert numbers(lanes.run(images(20))) == list(range(20))
    assert memory.said == [
        f"out of GPU memory: continuing with batches of {n}" for n in (32, 16, 8)
    ]


def test_memory_that_goes_in_between_halves_the_batch_of_all_lanes() -> None:
    memory = Memory()
    lanes = memory.lanes(16, number=2)
    assert numbers(lanes.run(images(40))) == list(range(40))
    memory.holds = 5
    with ThreadPoolExecutor(4) as threads:
        for out in threads.map(lanes.run, [images(40)] * 20):
            assert numbers(out) == list(range(40))
    assert lanes.batch_size == 4
    assert memory.said[-1] == "out of GPU memory: continuing with batches of 4"
    assert memory.made[-2:] == [4, 4]


def test_no_memory_at_all_is_one_line() -> None:
    with pytest.raises(RunError, match="too little memory for a single image"):
        Memory(holds=0).lanes(4)


def test_other_errors_are_raised_and_the_lane_is_free_again() -> None:
    memory = Memory()
    lanes = memory.lanes(4)

    class Broken(FakeLane):
        def run(self, pixels: Pixels | Tensor) -> Outputs:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    lanes._free.get()
    lanes._free.put(Broken(4, memory))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="illegal memory access"):
            lanes.run(images(1))


def timed(seconds: dict[int, float]) -> Callable[[int], FakeLane]:
    @dataclass
    class Timed(FakeLane):
        def seconds(self) -> float:
            return seconds[self.batch_size]

    def make(size: int) -> FakeLane:
        if size not in seconds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Timed(size, Memory())

    return make


class TestBatchSize:
    def test_the_smallest_that_is_nearly_as_fast_as_the_fastest(self) -> None:
        """The rates of CvT-13 in bfloat16, as CUDA graphs on an H100."""
        seconds = {32: 3.157, 64: 5.627, 128: 10.677, 256: 20.908}
        assert best_batch_size(timed(seconds), 256) == 128
        assert best_batch_size(timed(seconds), 64) == 64

    def test_no_larger_than_what_is_handed_over(self) -> None:
        assert best_batch_size(timed({32: 1.0, 48: 1.1}), 48) == 48
        assert best_batch_size(timed({8: 1.0}), 8) == 8

    def test_sizes_that_the_memory_does_not_hold_do_not_count(self) -> None:
        assert best_batch_size(timed({32: 2.0, 64: 2.0}), 256) == 64
