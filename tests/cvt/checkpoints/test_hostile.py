"""Checkpoints that want memory, other files, or to be taken for what they are not."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch

from cvt import (
    CheckpointError,
    ConfigError,
    CvtConfig,
    CvtForImageClassification,
)
from cvt.checkpoints.files import read_file
from tests.support.models.layout_writers import tensorflow_datasets, write_hdf5
from tests.support.models.oracle import Oracle, images

load = CvtForImageClassification.from_pretrained
X = images(1, 32, 32)

# In a process of its own, whose peak of memory is its own as well.
GREEDY = """
import json, resource, sys, time
from pathlib import Path
from cvt import CheckpointError, ConfigError, CvtForImageClassification
folder, changes = Path(sys.argv[1]), json.load(sys.stdin)
config = json.loads((folder / "config.json").read_text())
CvtForImageClassification.from_pretrained(folder)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for change in changes:
    values = config | change
    if "num_labels" in change:
        del values["id2label"]
    (folder / "config.json").write_text(json.dumps(values))
    started = time.process_time()
    for new_head in (True, False):
        try:
            CvtForImageClassification.from_pretrained(folder, new_head=new_head)
            print("accepted", change)
        except (CheckpointError, ConfigError):
            pass
    if time.process_time() - started > 5:
        print("slow", change)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, "MiB")
"""


def test_a_configuration_asks_for_no_more_than_the_weights_have(
    small_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_dir, tmp_path, dirs_exist_ok=True)
    changes: list[dict[str, Any]] = [
        {name: [value] * 3}
        for name, values in {
            "embed_dim": (10**9, 65_520, 4800),
            "depth": (10**9, 4096, 101),
            "mlp_ratio": (1e9, 256.0),
            "num_heads": (10**9,),
            "patch_sizes": (10**9, 255),
            "patch_stride": (10**9,),
            "patch_padding": (10**9, 255),
            "kernel_qkv": (10**9, 255),
            "padding_kv": (10**9, 255),
        }.items()
        for value in values
    ]
    changes += [{"num_channels": n} for n in (10**9, 4096)]
    changes += [{"num_labels": n} for n in (10**9, 100_000)]
    changes += [{name: [1] * 10**6} for name in ("depth", "embed_dim")]
    done = subprocess.run(
        [sys.executable, "-c", GREEDY, str(tmp_path)],
        input=json.dumps(changes),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    (line,) = done.stdout.splitlines()
    assert int(line.split()[0]) < 100


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_weights_that_repeat_a_number_are_not_unfolded(
    zipped: bool, small_dir: Path, tmp_path: Path
) -> None:
    """Some 2 GB in a file of less than a megabyte, which fits its configuration."""
    values = json.loads((small_dir / "config.json").read_text())
    values |= {"embed_dim": [4096] * 3, "num_heads": [1] * 3}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with torch.device("meta"):
        wide = CvtForImageClassification(CvtConfig.from_dict(values)).state_dict()
    state = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in wide.items()}
    path = tmp_path / "pytorch_model.bin"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert path.stat().st_size < 10**6
    with pytest.raises(CheckpointError, match="larger than what is stored of them"):
        load(tmp_path)


def test_weights_without_numbers_ask_for_no_names(tmp_path: Path) -> None:
    """A billion classes of no width take no byte in a file, nor do their names in memory."""
    preset = CvtConfig.from_preset("cvt-13")
    stages = "cvt.encoder.stages"
    state = {"classifier.weight": torch.empty(10**9, 0)}
    for s, (width, depth) in enumerate(zip(preset.embed_dim, preset.depth, strict=True)):
        embedding = f"{stages}.{s}.embedding.convolution_embeddings.projection.bias"
        state[embedding] = torch.zeros(width)
        for i in range(depth):
            state[f"{stages}.{s}.layers.{i}.layernorm_before.bias"] = torch.zeros(1)
    safetensors.torch.save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match="num_labels must be a whole number"):
        load(tmp_path / "m.safetensors")


def test_an_archive_that_is_packed(small: Oracle, small_dir: Path, tmp_path: Path) -> None:
    """PyTorch unpacks what it never packs itself: a gigabyte of zeros out of a megabyte."""
    shutil.copy(small_dir / "config.json", tmp_path)
    torch.save(small.state_dict(), tmp_path / "plain.bin")
    with (
        zipfile.ZipFile(tmp_path / "plain.bin") as plain,
        zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for record in plain.infolist():
            packed.writestr(record.filename, plain.read(record))
        packed.writestr("archive/data/999", bytes(10**7))
    with pytest.raises(CheckpointError, match="would be larger unpacked than it is"):
        load(tmp_path)


def replaced(path: Path, name: str, make: Callable[[h5py.File, str], None]) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        make(file, name)


def external_storage(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (7,), "f4", external=[("/etc/passwd", 0, 28)])


def virtual(file: h5py.File, name: str) -> None:
    layout = h5py.VirtualLayout((7,), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (7,))
    file.create_virtual_dataset(name, layout)


HDF5: dict[str, tuple[Callable[[h5py.File, str], None], str]] = {
    "external link": (
        lambda file, name: file.update({name: h5py.ExternalLink("secret.h5", "x")}),
        "lies elsewhere and is not read",
    ),
    "soft link": (
        lambda file, name: file.update({name: h5py.SoftLink("/cvt")}),
        "lies elsewhere and is not read",
    ),
    "link to nothing": (
        lambda file, name: file.update({name: h5py.SoftLink("/nothing")}),
        "lies elsewhere and is not read",
    ),
    "external storage": (external_storage, "lies elsewhere and is not read"),
    "virtual": (virtual, "lies elsewhere and is not read"),
    "a terabyte of nothing": (
        lambda file, name: file.create_dataset(name, (10**6, 10**6), "f4", chunks=(1000, 1000)),
        "far larger than the file",
    ),
    "packed zeros": (
        lambda file, name: file.create_dataset(
            name, data=np.zeros(10**7, "f4"), compression="gzip"
        ),
        "far larger than the file",
    ),
    "texts": (lambda file, name: file.update({name: ["a", "b"]}), "is no array of numbers"),
}


@pytest.mark.parametrize("kind", HDF5)
def test_hdf5_is_read_from_its_own_file_alone(
    kind: str, small: Oracle, small_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, message = HDF5[kind]
    monkeypatch.chdir(tmp_path)
    with h5py.File("secret.h5", "w") as file:
        file["x"] = np.ones(7, "f4")
    shutil.copy(small_dir / "config.json", tmp_path)
    path = tmp_path / "tf_model.h5"
    datasets = tensorflow_datasets(small, "tf_cvt_for_image_classification")
    write_hdf5(path, datasets)
    load(tmp_path)
    replaced(path, next(name for name in datasets if name.endswith("classifier/bias:0")), make)
    (tmp_path / "secret.h5").chmod(0)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


def test_hdf5_of_any_shape_takes_no_time(tmp_path: Path) -> None:
    """HDF5's own walk would take a minute for these groups within groups; and there are circles."""
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file["layer/model/x"] = np.ones(7, "f4")
        file["layer/again"], file["layer/model/again"] = file["/"], file["layer"]
    assert list(read_file(tmp_path / "tf_model.h5")) == ["x"]
    with h5py.File(tmp_path / "tf_model.h5", "r+") as file:
        group = file
        for _ in range(2000):
            group = group.create_group("g")
    with pytest.raises(CheckpointError, match="nested too deeply"):
        read_file(tmp_path / "tf_model.h5")


@pytest.mark.parametrize(
    "shard",
    [
        *("..", ".", "", "../model.bin", "/etc/passwd", "a/b.bin", "..%2fx.bin", "%2e%2e", "x?y"),
        *("x#y", "s3::x", "~/x.bin", "a\\b.bin", "\0.bin", "a\n.bin", 7, None, ["x.bin"], {}),
    ],
    ids=repr,
)
def test_an_index_names_neighbours_alone(shard: Any, small_dir: Path, tmp_path: Path) -> None:
    shutil.copy(small_dir / "config.json", tmp_path)
    index = {"weight_map": {"cvt.encoder.x": shard}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"is not beside it|is not an index of shards"):
        load(tmp_path)


@pytest.mark.parametrize("index", [b"", b"[]", b"{}", b'{"weight_map": []}', b"[" * 10**5])
def test_an_index_that_is_none(index: bytes, small_dir: Path, tmp_path: Path) -> None:
    shutil.copy(small_dir / "config.json", tmp_path)
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    with pytest.raises((CheckpointError, ConfigError), match=r"model\.safetensors\.index\.json"):
        load(tmp_path)


class Call:
    """A function that unpickling would call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "call",
    [
        Call(os.system, "touch went-off"),
        Call(exec, "open('went-off', 'w')"),
        Call(open, "went-off", "w"),
        Call(Path.touch, Path("went-off")),
        Call(np.save, "went-off.npy", 1),
        Call(torch.load, "went-off"),
        Call(getattr, 1, "real"),
    ],
    ids=lambda call: call.call[0].__name__,
)
def test_pickles_call_nothing(
    call: Call, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is let in for the sake of training loops opens no door for others."""
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": {"stage0.x": torch.ones(1)}, "args": call}
    torch.save(content, "m.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        load("m.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["m.pth"]
