"""The fast form of a classifier for a device, a dtype and a runtime."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from cvt.inference.linear import pack
from cvt.inference.network import Classifier, InferenceCvt

RUNTIMES: Final = ("torch", "openvino")


def optimize(
    model: Classifier,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    compile: bool = False,
    *,
    pooling: str = "cls_norm",
    runtime: str = "torch",
    calibration: Tensor | None = None,
) -> nn.Module:
    """A form of the model that runs fast, on its device and ready; the model is not changed.

    An ``InferenceCvt``, a ``CudaGraphCvt`` around one, or an ``OpenVinoCvt``: all have the same
    call, and the same outputs.

    Args:
        model: Best in float32, as folding rounds.
        dtype: torch.float32, torch.bfloat16 or torch.float16; with the runtime openvino float32,
            bfloat16 or int8. ``cvt.inference.int8`` says what int8 changes.
        device: Where it goes; the model's own by default. The runtime openvino has only the CPU.
        compile: Compile it with torch.compile on the first call, for long runs at a fixed size on
            a GPU, there inside a CUDA graph. On a CPU the packed weights, which exclude it, are
            faster.
        pooling: What ``embedding`` is: "cls_norm", "cls" or "mean" (of the last stage but one).
        runtime: "torch", or "openvino" for the same on a CPU.
        calibration: For int8, a few hundred normalised images (N, 3, H, W) like those to come.

    Raises:
        ImportError: the extra of the runtime openvino is not installed.
        ValueError: the model does not have the pooling, the runtime is unknown or does not have
            the dtype, or one of int8 and calibration images comes without the other.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, not {runtime!r}")
    if calibration is not None and dtype != torch.int8:
        raise ValueError(f"calibration= is for dtype=torch.int8, not {dtype}")
    fast = InferenceCvt(model, pooling)
    if runtime == "openvino":
        return _in_openvino(fast, dtype, device, calibration)
    if dtype == torch.int8:
        raise ValueError('dtype=torch.int8 needs runtime="openvino"')
    fast = fast.to(device=device, dtype=dtype)
    if not compile:
        pack(fast)
        return fast
    if fast.norm.weight.is_cuda:
        return _in_cuda_graph(fast)
    fast.compile()
    return fast


def _in_openvino(
    network: InferenceCvt,
    dtype: torch.dtype,
    device: torch.device | str | None,
    calibration: Tensor | None,
) -> nn.Module:
    from cvt.inference.openvino import OpenVinoCvt

    if device is not None and torch.device(device).type != "cpu":
        raise ValueError(f'runtime="openvino" computes on the CPU, not on {device}')
    return OpenVinoCvt(network.to("cpu", torch.float32), dtype, calibration)


def _in_cuda_graph(network: InferenceCvt) -> nn.Module:
    from cvt.inference.cuda_graph import CudaGraphCvt

    network.compile(dynamic=False)  # the graph fixes the shape anyway
    return CudaGraphCvt(network)
