"""Linear maps with their neighbours fused: activation before, or residual after, the next step."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final, Self, cast

import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
from torch import Tensor, nn

ACTIVATIONS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {"gelu": F.gelu, "swish": F.silu}

# As Linux names them: those of Intel and AMD, ARM's last.
_FLAGS: Final[Mapping[torch.dtype, frozenset[str]]] = {
    torch.bfloat16: frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    torch.float16: frozenset({"avx512_fp16", "amx_fp16", "asimdhp"}),
}


def cpu_has(dtype: torch.dtype) -> bool:
    """Whether this CPU itself multiplies in torch.bfloat16 or torch.float16.

    What it lacks is emulated, several times slower than float32. Without a /proc/cpuinfo it counts
    as having neither.
    """
    return not _FLAGS[dtype].isdisjoint(cpu_flags())


@cache
def cpu_flags() -> frozenset[str]:
    """What the first processor can do, according to /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    said = (line.partition(":") for line in lines)
    flags = (words for name, _, words in said if name.strip() in ("flags", "Features"))
    return frozenset(next(flags, "").split())


class FusedLinear(nn.Module):
    """activation(x W^T + b), or x W^T + b + residual, with PyTorch's ordinary operators."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.activation = activation

    @classmethod
    def of(cls, linear: nn.Linear, *, scale: float = 1.0, activation: str | None = None) -> Self:
        """A copy of a linear layer, with its result scaled by ``scale`` before the activation."""
        bias = None if linear.bias is None else linear.bias * scale
        return cls(linear.weight * scale, bias, activation)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(..., in) -> (..., out); the residual has the result's shape."""
        x = F.linear(x, self.weight, self.bias)
        if self.activation is not None:
            x = ACTIVATIONS[self.activation](x)
        return x if residual is None else x + residual


class OneDnnLinear(nn.Module):
    """A FusedLinear in one call of oneDNN, its weight in the layout that the CPU reads fastest.

    These are the operators that torch.compile's freezing emits. The packed weight is not an
    ordinary tensor: the layer cannot be moved, cast, copied or exported.
    """

    def __init__(self, linear: FusedLinear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.activation = linear.activation

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(..., in) -> (..., out); the residual has the result's shape."""
        ops = torch.ops.mkldnn
        if residual is not None:
            y = ops._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
        else:
            kind = self.activation or "none"
            y = ops._linear_pointwise(x, self.weight, self.bias, kind, [], "none")
        return cast(Tensor, y)


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN accepts this weight on this machine."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def pack(module: nn.Module) -> None:
    """Replace every FusedLinear in a module with a OneDnnLinear, where the machine supports it."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, FusedLinear) and can_pack(child.weight):
                setattr(parent, name, OneDnnLinear(child))
