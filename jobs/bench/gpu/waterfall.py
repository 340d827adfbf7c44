"""The network alone, in every form: what each step from transformers' to ours gives on the card."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cvt import CvtConfig, CvtForImageClassification
from cvt.inference.cuda_graph import CudaGraphCvt
from cvt.inference.network import InferenceCvt
from jobs.bench.components.network_peers import TransformersCvt
from jobs.bench.gpu.card import DEVICE, DTYPES, ON_GPU, set_tf32, time_call
from jobs.bench.synthetic.models import SMALL, SMALL_SIZE

Form = Callable[[CvtForImageClassification, torch.dtype], nn.Module]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One form, dtype and batch."""

    form: str
    dtype: str
    batch: int
    images_per_second: float
    milliseconds: float
    """Of a batch."""
    first_seconds: float
    share_of_peak: float
    """Of what large products in bfloat16 reach."""
    peak_mib: float


def compiled(network: nn.Module) -> nn.Module:
    """The network behind torch.compile, which forgets what it compiled before."""
    torch._dynamo.reset()
    network.compile(dynamic=False)
    return network


def _plain(model: CvtForImageClassification, dtype: torch.dtype) -> nn.Module:
    return InferenceCvt(model).to(device=DEVICE, dtype=dtype)


EAGER: dict[str, Form] = {
    "transformers": lambda model, dtype: TransformersCvt(model).to(DEVICE, dtype),
    "model.py": lambda model, dtype: copy.deepcopy(model).to(DEVICE, dtype),
    "optimize()": _plain,
}
CAPTURED: dict[str, Form] = {
    "optimize(), CUDA graph": lambda model, dtype: CudaGraphCvt(_plain(model, dtype)),
}
COMPILED: dict[str, Form] = {
    "transformers, compiled": lambda model, dtype: compiled(
        TransformersCvt(model).to(DEVICE, dtype)
    ),
    "optimize(), compiled": lambda model, dtype: compiled(_plain(model, dtype)),
    "optimize(), compiled, CUDA graph": lambda model, dtype: CudaGraphCvt(
        compiled(_plain(model, dtype))
    ),
}


def plan() -> Iterator[tuple[str, Form, str, bool, tuple[int, ...]]]:
    """Form, dtype, TF32 and batches, what matters most first."""
    if not ON_GPU:  # CUDA graphs need CUDA, and a CPU's compiler takes minutes
        yield from ((name, form, "float32", False, (2, 4)) for name, form in EAGER.items())
        return
    for name, form in (EAGER | CAPTURED).items():
        yield name, form, "bfloat16", False, (32, 64, 128, 256, 512)
    for name, form in COMPILED.items():
        yield name, form, "bfloat16", False, (256,)
    for dtype, tf32 in (("float16", False), ("float32", True), ("float32", False)):
        for name, form in (EAGER | CAPTURED).items():
            yield name, form, dtype, tf32, (256,)


def waterfall() -> Iterator[Row]:
    """Measure every form of the plan."""
    torch.manual_seed(0)
    config = CvtConfig.from_preset("cvt-13") if ON_GPU else SMALL
    model = CvtForImageClassification(config).eval().requires_grad_(False)
    size = 224 if ON_GPU else SMALL_SIZE
    gigaflop = _gigaflop(model, size)
    peak = peak_teraflops()
    for name, form, dtype, tf32, batches in plan():
        set_tf32(tf32)
        network = form(model, DTYPES[dtype])
        for batch in batches:
            timing = time_call(network, _images(batch, size, DTYPES[dtype]))
            rate = 1000 * batch / timing.milliseconds
            yield Row(
                form=name,
                dtype="tf32" if tf32 else dtype,
                batch=batch,
                images_per_second=rate,
                milliseconds=timing.milliseconds,
                first_seconds=timing.first_seconds,
                share_of_peak=rate * gigaflop / 1000 / peak,
                peak_mib=timing.peak_mib,
            )
        del network
    set_tf32(False)


def _images(batch: int, size: int, dtype: torch.dtype) -> list[Tensor]:
    """Two batches of noise in the layout of decoded pixels."""
    layout: Any = torch.channels_last
    noise = [torch.randn(batch, 3, size, size, device=DEVICE) for _ in range(2)]
    return [images.to(dtype).to(memory_format=layout) for images in noise]


def _gigaflop(model: nn.Module, size: int) -> float:
    """Of one image, by PyTorch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.randn(1, 3, size, size))
    return float(counter.get_total_flops()) / 1e9


def peak_teraflops() -> float:
    """What the product of two large random matrices in bfloat16 reaches."""
    side = 8192 if ON_GPU else 256
    left, right = (torch.randn(side, side, device=DEVICE).bfloat16() for _ in range(2))
    timing = time_call(lambda matrix: matrix @ right, [left])
    return 2 * side**3 / timing.milliseconds / 1e9
