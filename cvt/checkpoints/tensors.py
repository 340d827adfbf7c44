"""Other people's tensors: which can be weights, and which of their numbers can be computed with."""

from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor

from cvt.errors import CheckpointError

_FLOATS: Final = frozenset(
    {
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
    }
)
_COUNTER: Final = "num_batches_tracked"  # of BatchNorm
_SLACK: Final = 2**20
"""In bytes: a shared scalar here or there is nothing."""


def check_stored(state: Mapping[str, Tensor], source: str) -> None:
    """Check that tensors are plain arrays of floats, and that all their numbers are in the file.

    Raises:
        CheckpointError: one is not, such as quantised weights without what scales them; or one
            repeats a few numbers, so that it would be far larger in memory.
    """
    for name, tensor in state.items():
        is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not is_plain or tensor.is_quantized:
            raise CheckpointError(f"{source}: {name} is not a dense array of numbers")
        if tensor.dtype not in _FLOATS and not name.endswith(_COUNTER):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{source}: {name} is {kind}, and nothing says what scales it: quantised weights "
                "are not read; save them as float32, float16 or bfloat16"
            )
    if sum(tensor.nbytes for tensor in state.values()) > _stored(state.values()) + _SLACK:
        raise CheckpointError(f"{source}: the weights are larger than what is stored of them")


def _stored(tensors: Iterable[Tensor]) -> int:
    storages = {storage.data_ptr(): storage for storage in map(Tensor.untyped_storage, tensors)}
    return sum(storage.nbytes() for storage in storages.values())


def check_numbers(state: Mapping[str, Tensor], source: str) -> None:
    """Check that weights can be computed with.

    Raises:
        CheckpointError: one holds NaN or infinity, a variance is negative, or a matrix or a scale
            is all zeros, as at the end of a download that was cut short.
    """
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{source}: {name} holds NaN or infinity")
        if name.endswith("running_var") and (tensor < 0).any():
            raise CheckpointError(f"{source}: {name} holds a negative variance")
        if name.endswith(".weight") and not tensor.any():
            raise CheckpointError(
                f"{source}: {name} holds nothing but zeros: it was never trained, or not all of "
                "the file was downloaded"
            )
