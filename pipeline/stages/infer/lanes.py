"""Batches in hand: as many lanes as an actor has concurrent calls, of a size that fits in memory.

While the device computes the batch of one lane, another one is filled, and the results of a third
become rows. Nothing here knows what a device is; ``cuda.py`` does.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

import torch
from torch import Tensor

from pipeline.contract.errors import RunError
from pipeline.model.network import Outputs, Pixels
from pipeline.stages.infer.faults import is_out_of_memory

SIZES = (32, 64, 128, 256, 512)
"""Batch sizes to choose from."""
GOOD_ENOUGH = 0.95
"""Share of the best rate: larger batches need more memory, and take longer to fill."""


class Lane(Protocol):
    """Buffers for one batch, and the network over them."""

    @property
    def batch_size(self) -> int:
        """The most images that it takes."""

    def run(self, pixels: Pixels | Tensor) -> Outputs:
        """The outputs, on the host, for pixels (B, S, S, 3), with B up to ``batch_size``."""

    def seconds(self) -> float:
        """How long the device takes for a whole batch."""


class Lanes:
    """Lanes of one size, each for one thread at a time.

    When they do not fit in memory, all are halved, and ``say`` is told.
    """

    def __init__(
        self,
        make: Callable[[int], Lane],
        batch_size: int,
        number: int,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.batch_size = batch_size
        self._make, self._number, self._say = make, number, say
        self._free: SimpleQueue[Lane] = SimpleQueue()
        self._resizing = threading.Lock()
        self._fill()

    def run(self, pixels: Pixels | Tensor) -> Outputs:
        """The outputs for pixels (B, S, S, 3), with any B from 1 on."""
        parts: list[Outputs] = []
        done = 0
        while done < len(pixels):
            part, size = self._attempt(pixels[done:])
            if part is None:
                self._halve(size)
            else:
                parts.append(part)
                done += len(part.logits)
        if len(parts) == 1:
            return parts[0]
        return Outputs(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def _attempt(self, pixels: Pixels | Tensor) -> tuple[Outputs | None, int]:
        """A lane's outputs for the first images, None if memory ran out; and the lane's size."""
        lane = self._free.get()
        try:
            return lane.run(pixels[: lane.batch_size]), lane.batch_size
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None, lane.batch_size
        finally:
            self._free.put(lane)

    def _halve(self, size: int) -> None:
        """Make lanes smaller than ``size``, unless another thread has already done so."""
        with self._resizing:
            if self.batch_size < size:
                return
            for _ in range(self._number):  # waits for the batches that other threads have in hand
                self._free.get()
            self._shrink()
            self._fill()

    def _fill(self) -> None:
        while (lanes := self._made()) is None:
            self._shrink()
        for lane in lanes:
            self._free.put(lane)

    def _made(self) -> list[Lane] | None:
        """All lanes; None if they do not fit in memory."""
        try:
            return [self._make(self.batch_size) for _ in range(self._number)]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _shrink(self) -> None:
        if self.batch_size == 1:
            raise RunError(
                "the GPU has too little memory for a single image; use a smaller model, "
                "<model.dtype> bfloat16, or a GPU that nobody else uses"
            )
        self.batch_size //= 2
        _free_memory()
        self._say(f"out of GPU memory: continuing with batches of {self.batch_size}")


def best_batch_size(make: Callable[[int], Lane], most: int) -> int:
    """The smallest size up to ``most`` that is nearly as fast as the fastest."""
    rates: dict[int, float] = {}
    for size in [size for size in SIZES if size < most] + [most]:
        try:
            rates[size] = size / make(size).seconds()
        except RuntimeError as error:
            if not is_out_of_memory(error) or not rates:
                raise
            break
        finally:
            _free_memory()
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= GOOD_ENOUGH * best)


def _free_memory() -> None:
    """Release unreferenced memory, so that the next lane finds it in one piece."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
