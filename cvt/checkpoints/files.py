"""Read weights from files: safetensors, PyTorch pickles (tensors only) and Keras HDF5."""

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cvt.errors import CheckpointError
from cvt.interface.sources import Fetch

State = dict[str, Tensor]

# What a directory may hold, in order of preference.
FILE_NAMES: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
)


def read_weights(fetch: Fetch, name: str | None) -> State | None:
    """Read the file ``name``, or the first of FILE_NAMES that is there; None if there is none.

    Raises:
        CheckpointError: a file is missing, broken, or holds more than tensors.
    """
    for candidate in FILE_NAMES if name is None else (name,):
        if path := fetch(candidate):
            return _read_sharded(path, fetch) if path.suffix == ".json" else read_file(path)
    return None


def read_file(path: Path) -> State:
    """Read one file of weights, under its own names; HDF5 under those of Hugging Face."""
    reader = _READERS.get(path.suffix)
    if reader is None:
        known = ", ".join(_READERS)
        raise CheckpointError(f"{path.name}: weights are read from files ending in {known}")
    return reader(path)


def _read_sharded(index: Path, fetch: Fetch) -> State:
    try:
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index.name} is not an index of shards") from error
    state: State = {}
    for shard in shards:
        if Path(shard).name != shard or (path := fetch(shard)) is None:
            raise CheckpointError(f"{index.name} names {shard!r}, which is not beside it")
        state |= read_file(path)
    return state


def _read_safetensors(path: Path) -> State:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path.name} is not a complete safetensors file: {error}") from error


def _read_pickle(path: Path) -> State:
    """A state dict, or a training checkpoint that holds one beside other entries."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} holds more than tensors and is not opened, since unpickling it could run "
            "code: ask its author to save only the state dict"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{path.name} is not a complete PyTorch file") from error
    state = _state_dict(content)
    if state is None:
        raise CheckpointError(f"{path.name} does not hold a state dict")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _state_dict(content: Any) -> Mapping[str, Tensor] | None:
    """The state dict in a file's content; Microsoft's "model" entry is only a name."""
    if not isinstance(content, Mapping):
        return None
    for entry in (content.get("state_dict"), content.get("model"), content):
        if isinstance(entry, Mapping) and entry and all(map(torch.is_tensor, entry.values())):
            return entry
    return None


def _read_hdf5(path: Path) -> State:
    """A tf_model.h5, its names and axes turned into those of Hugging Face's PyTorch layout."""
    try:
        import h5py
    except ImportError as error:
        raise CheckpointError(
            f"reading {path.name} needs h5py: pip install 'cvt-batch[tensorflow]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            return {_torch_name(name): _torch_axes(array) for name, array in _datasets(file)}
    except OSError as error:
        raise CheckpointError(f"{path.name} is not a complete HDF5 file") from error


def _datasets(file: Any) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Every array in an HDF5 file. Keras' own lists of names are split up, and not needed."""
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
    return ((name, file[name][()]) for name in found)


_LEAVES: Final[Mapping[str, str]] = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _torch_name(dataset: str) -> str:
    """cvt/tf_cvt_for_image_classification/cvt/encoder/... /kernel:0 -> cvt.encoder. ... .weight.

    The first component is a layer's group, the second the model's scope, which the class token
    lacks. Dots inside a component are part of it.
    """
    _, _, variable = dataset.removesuffix(":0").partition("/")
    scope, slash, inner = variable.partition("/")
    *modules, leaf = (inner if slash else scope).replace("/", ".").split(".")
    return ".".join([*modules, _LEAVES.get(leaf, leaf)])


def _torch_axes(array: np.ndarray[Any, Any]) -> Tensor:
    """Keras' (in, out) and (height, width, in, out) -> (out, in) and (out, in, height, width)."""
    order = {2: (1, 0), 4: (3, 2, 0, 1)}.get(array.ndim)
    return torch.from_numpy(
        np.ascontiguousarray(array if order is None else array.transpose(order))
    )


_READERS: Final[Mapping[str, Callable[[Path], State]]] = {
    ".safetensors": _read_safetensors,
    ".bin": _read_pickle,
    ".pth": _read_pickle,
    ".pt": _read_pickle,
    ".h5": _read_hdf5,
}
