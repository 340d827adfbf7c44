"""Read weights from files: safetensors, PyTorch pickles (tensors only) and Keras HDF5."""

import argparse
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cvt.checkpoints.unwrap import flattened
from cvt.errors import CheckpointError
from cvt.interface.fields import read_object
from cvt.interface.sources import Fetch

State = dict[str, Tensor]

# What beside weights stands in the checkpoints of training loops; making one runs no code.
_NUMPY_SCALAR: Final = np.float64(0).__reduce__()[0]
_NUMPY_ARRAY: Final = np.zeros(0).__reduce__()[0]
_HARMLESS: Final[list[Any]] = [
    argparse.Namespace,
    pathlib.PosixPath,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("bool", "u1", "i4", "u4", "i8", "f4", "f8")),
    np.ndarray,
    _NUMPY_SCALAR,
    _NUMPY_ARRAY,
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),  # as NumPy 1 called them
    (_NUMPY_ARRAY, "numpy.core.multiarray._reconstruct"),
]
_NEIGHBOUR: Final = re.compile(r"\w[\w .+=@()-]*")
_MOST_UNPACKED: Final = 4
"""How much larger than its file the arrays of an HDF5 file may be; Keras packs nothing."""
_MOST_NAME: Final = 1000
"""Characters of the whole name of an array in an HDF5 file; Keras' have about a hundred."""

_BROKEN: Final = "Unsupported operand"  # PyTorch's words for bytes that are no pickle

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
    """Read one file of weights, under its own names; HDF5 under those of Hugging Face.

    Raises:
        CheckpointError: it is broken, or holds more than tensors.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        known = ", ".join(_READERS)
        raise CheckpointError(f"{path.name}: weights are read from files ending in {known}")
    _refuse_placeholder(path)
    return reader(path)


def _read_sharded(index: Path, fetch: Fetch) -> State:
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(s, str) for s in places.values()):
        raise CheckpointError(f"{index.name} is not an index of shards")
    state: State = {}
    for shard in sorted(set(places.values())):
        if not _NEIGHBOUR.fullmatch(shard) or (path := fetch(shard)) is None:
            raise CheckpointError(f"{index.name} names {shard!r}, which is not beside it")
        state |= read_file(path)
    return state


def _refuse_placeholder(path: Path) -> None:
    """Name what is often found in place of a file."""
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path.name} is a pointer of Git LFS and not the file: fetch it with git lfs pull"
        )
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(
            f"{path.name} is a web page, such as that of an error or a login: download it again"
        )


def _read_safetensors(path: Path) -> State:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path.name} is not a complete safetensors file: {reason}"
        ) from error


def _read_pickle(path: Path) -> State:
    """A state dict, or a training checkpoint that holds one beside other entries.

    Its tensors have the names of the entries that they lie in before their own.
    """
    _check_archive(path)
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever PyTorch makes of a broken file
        is_code = isinstance(error, pickle.UnpicklingError) and _BROKEN not in str(error)
        what = (
            "holds more than tensors and is not opened, since unpickling it could run code: ask "
            "its author to save only the state dict"
        )
        raise CheckpointError(
            f"{path.name} {what if is_code else 'is not a complete PyTorch file'}"
        ) from error
    state = flattened(content)
    if not state:
        raise CheckpointError(f"{path.name} does not hold a state dict{_list_of_tensors(content)}")
    return state


def _list_of_tensors(content: Any) -> str:
    """A moving average, as some libraries keep it."""
    entries = content.items() if isinstance(content, Mapping) else ()
    for key, value in entries:
        if isinstance(value, list | tuple) and value and all(map(torch.is_tensor, value)):
            return f": the tensors in {key} have no names; copy them to the model and save that"
    return ""


def _check_archive(path: Path) -> None:
    """Refuse archives that PyTorch does not write, before anything in them is unpacked."""
    try:
        if not zipfile.is_zipfile(path):
            return  # the format before 1.6, or broken
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise CheckpointError(f"{path.name} is not a complete PyTorch file") from error
    if sum(record.file_size for record in records) > path.stat().st_size:
        raise CheckpointError(
            f"{path.name} would be larger unpacked than it is: PyTorch does not compress"
        )
    if any(record.filename.endswith("/constants.pkl") for record in records):
        raise CheckpointError(
            f"{path.name} is a program of TorchScript: save the model's state dict instead"
        )


def _read_hdf5(path: Path) -> State:
    """A tf_model.h5, its names and axes turned into those of Hugging Face's PyTorch layout."""
    try:
        import h5py
    except ImportError as error:
        raise CheckpointError(f"reading {path.name} needs h5py: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            datasets = _datasets(file, path)
            return {_torch_name(name): _torch_axes(data[()]) for name, data in datasets.items()}
    except CheckpointError:
        raise
    except Exception as error:  # whatever HDF5 makes of a broken file
        raise CheckpointError(f"{path.name} is not a complete HDF5 file") from error


def _datasets(file: Any, path: Path) -> dict[str, Any]:
    """Every array in an HDF5 file, none of them read yet, nor much larger than the file.

    Keras' own lists of names are split up, and not needed.

    Raises:
        CheckpointError: something is a link, lies in another file, or is no array of numbers.
    """
    found = dict(_walk(file, path))
    outside = [name for name, data in found.items() if data.is_virtual or data.external]
    if outside:
        raise _elsewhere(path, outside[0])
    if odd := [name for name, data in found.items() if data.dtype.kind not in "fiu"]:
        raise CheckpointError(f"{path.name}: {odd[0]} is no array of numbers")
    if sum(data.nbytes for data in found.values()) > _MOST_UNPACKED * path.stat().st_size:
        raise CheckpointError(f"{path.name} claims arrays that are far larger than the file")
    return found


def _walk(file: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """The arrays of an HDF5 file by their names, each once. HDF5's own walk takes time that grows
    with the square of the depth, and more."""
    import h5py

    groups, seen = [("", file)], set()
    while groups:
        above, group = groups.pop()
        for name in group:
            full = f"{above}/{name}" if above else name
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise _elsewhere(path, full)
            if len(full) > _MOST_NAME:
                raise CheckpointError(f"{path.name} is nested too deeply")
            item = group[name]
            place = h5py.h5o.get_info(item.id).addr
            if place in seen:
                continue
            seen.add(place)
            if isinstance(item, h5py.Group):
                groups.append((full, item))
            elif isinstance(item, h5py.Dataset):
                yield full, item


def _elsewhere(path: Path, name: str) -> CheckpointError:
    return CheckpointError(f"{path.name}: {name} lies elsewhere and is not read: copy it there")


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
