"""Two kinds of GPU failure, told apart: too little memory, which smaller batches cure, and a device
that is lost to this process, which only a new process cures."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import torch

from pipeline.contract.errors import one_line
from pipeline.stages.watching.progress import Reporter

_NO_MEMORY = ("out of memory", "_ALLOC_FAILED", "cudaErrorMemoryAllocation")
_LOST = (
    "CUDA error",
    "CUDA driver error",
    "cudaError",
    "device-side assert",
    "CUBLAS_STATUS_",
    "CUDNN_STATUS_",
    "cuDNN error",
    "NVML",
)
EXIT_STATUS = 70
"""EX_SOFTWARE of sysexits.h; Ray restarts the actor whatever the status."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether smaller batches would help."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def is_lost_device(error: BaseException) -> bool:
    """Whether CUDA will not work again in this process: after an Xid error or a device-side
    assertion, or with the driver gone, every later call fails as well."""
    if is_out_of_memory(error):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST)


def leave(error: BaseException, device: str, reporter: Reporter) -> NoReturn:
    """End this process at once, so that Ray starts the actor in a new one and retries its task.

    Raising would do neither: to Ray Data, an exception is the end of the run.
    """
    reporter.say(f"lost {device}: {one_line(error)}; restarting its actor")
    sys.stderr.flush()
    os._exit(EXIT_STATUS)
