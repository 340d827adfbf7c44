"""Which errors of a GPU are which, and how an actor leaves a lost one."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.stages.infer import actor as module
from pipeline.stages.infer.faults import EXIT_STATUS, is_lost_device, is_out_of_memory
from tests.support.models.inference import PIXELS, batch, predictor, prepare
from tests.support.models.oracle import Oracle

LOST = [
    "CUDA error: device-side assert triggered",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: unspecified launch failure",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA driver error: unknown error",
    "CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasLtMatmul`",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
]
NO_MEMORY = [
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
]


@pytest.mark.parametrize("text", LOST)
def test_a_lost_device(text: str) -> None:
    assert is_lost_device(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError(text))


@pytest.mark.parametrize("text", NO_MEMORY)
def test_too_little_memory(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))
    assert not is_lost_device(RuntimeError(text))


def test_torch_says_it_by_class() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("whatever"))
    assert is_lost_device(torch.AcceleratorError("whatever"))


@pytest.mark.parametrize("error", [RuntimeError("shape [2] is invalid"), ValueError("CUDA error")])
def test_a_fault_of_our_own_is_neither(error: Exception) -> None:
    assert not is_lost_device(error)
    assert not is_out_of_memory(error)


def test_leaving_ends_the_process_at_once() -> None:
    code = (
        "import atexit; atexit.register(print, 'not at once')\n"
        "from pipeline.stages.infer.faults import leave\n"
        "from pipeline.stages.watching.progress import Reporter\n"
        "leave(RuntimeError('CUDA error: x'), 'the GPU', Reporter())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == EXIT_STATUS
    assert done.stdout == ""


@pytest.mark.usefixtures("without_ray")
def test_an_actor_leaves_a_lost_gpu_and_raises_what_a_cpu_says(
    checkpoint: tuple[Oracle, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a failed row: the image has no part in it."""

    class Left(Exception):  # noqa: N818, it stands for the end of the process
        pass

    def leave(error: BaseException, *rest: object) -> None:
        raise Left(str(error))

    def lose(pixels: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(module, "leave", leave)
    actor = predictor(prepare(checkpoint[1]))
    monkeypatch.setattr(actor.device, "run", lose)
    with pytest.raises(RuntimeError, match="device-side"):
        actor(batch(list(PIXELS[:2])))
    monkeypatch.setattr(actor, "settings", replace(actor.settings, gpus=1.0))
    with pytest.raises(Left, match="device-side"):
        actor(batch(list(PIXELS[:2])))
