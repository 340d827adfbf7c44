"""The card, or the CPU that stands in for it at tiny sizes: what it is, and clocks for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TIMED_SECONDS = 0.35
MOST_CALLS = 60
LEAST_CALLS = 6
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Of one call."""

    first_seconds: float
    """Of the first one, which compiles or captures."""
    milliseconds: float
    """Median of the later ones, on the device's own clock."""
    peak_mib: float
    """Memory that it holds at most; 0 on a CPU."""


def synchronize() -> None:
    """Wait for the device."""
    if ON_GPU:
        torch.cuda.synchronize()


def set_tf32(on: bool) -> None:
    """Whether float32 products and convolutions may round to TF32."""
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


@torch.inference_mode()
def time_call(function: Callable[[Tensor], Any], inputs: Sequence[Tensor]) -> Timing:
    """Time a function of one tensor; several inputs take turns, so that no cache holds them all."""
    if ON_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    synchronize()
    started = time.perf_counter()
    function(inputs[0])
    synchronize()
    first = time.perf_counter() - started
    for number in range(3):
        function(inputs[number % len(inputs)])
    milliseconds = _on_gpu(function, inputs) if ON_GPU else _on_cpu(function, inputs)
    peak = torch.cuda.max_memory_allocated() / _MIB if ON_GPU else 0.0
    return Timing(first_seconds=first, milliseconds=milliseconds, peak_mib=peak)


def _on_gpu(function: Callable[[Tensor], Any], inputs: Sequence[Tensor]) -> float:
    synchronize()
    started = time.perf_counter()
    function(inputs[0])
    synchronize()
    calls = int(TIMED_SECONDS / (time.perf_counter() - started))
    calls = min(max(calls, LEAST_CALLS), MOST_CALLS)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
    marks[0].record()
    for number, mark in enumerate(marks[1:]):
        function(inputs[number % len(inputs)])
        mark.record()
    synchronize()
    return statistics.median([float(a.elapsed_time(b)) for a, b in pairwise(marks)])


def _on_cpu(function: Callable[[Tensor], Any], inputs: Sequence[Tensor]) -> float:
    taken = []
    for number in range(LEAST_CALLS):
        started = time.perf_counter()
        function(inputs[number % len(inputs)])
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def describe() -> dict[str, Any]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name() if ON_GPU else "no GPU: the CPU, at tiny sizes"
    return {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}
