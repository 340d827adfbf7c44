"""What can happen to a GPU, told apart: too little memory, which smaller batches mend, and a device
that is lost to this process, which only another process can replace."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import torch

from pipeline.contract.errors import one_line
from pipeline.stages.progress import Reporter

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
"""EX_SOFTWARE of sysexits.h; whatever it is, Ray starts the actor again."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether smaller batches would help."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def is_lost_device(error: BaseException) -> bool:
    """Whether CUDA will not work again in this process: after an Xid, a device-side assertion or
    with the driver gone, every later call fails as well."""
    if is_out_of_memory(error):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST)


def leave(error: BaseException, device: str, reporter: Reporter) -> NoReturn:
    """End this process at once, so that Ray starts the actor elsewhere, and tries its task there.

    Raising would do neither: to Ray Data, an exception is the end of the run.
    """
    reporter.say(f"lost {device}: {one_line(error)}; starting its actor again")
    sys.stderr.flush()
    os._exit(EXIT_STATUS)
