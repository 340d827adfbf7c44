"""Checkpoints in every published layout, written from their description, not by our code."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import torch

from tests.support.models.oracle import Oracle

# Microsoft's names for transformers' modules, by the order in which the replacements apply.
TO_MICROSOFT = {
    r"cvt\.encoder\.stages\.(\d)\.": r"stage\1.",
    r"embedding\.convolution_embeddings\.projection": "patch_embed.proj",
    r"embedding\.convolution_embeddings\.normalization": "patch_embed.norm",
    r"\.layers\.": ".blocks.",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"attention\.attention\.convolution_projection_(.)\w*": r"attn.conv_proj_\1",
    r"(conv_proj_.)\.convolution_projection\.convolution": r"\1.conv",
    r"(conv_proj_.)\.convolution_projection\.normalization": r"\1.bn",
    r"attention\.attention\.projection_(.)\w*": r"attn.proj_\1",
    r"attention\.output\.dense": "attn.proj",
    r"intermediate\.dense": "mlp.fc1",
    r"output\.dense": "mlp.fc2",
    r"^layernorm": "norm",
    r"^classifier": "head",
}


def microsoft_state(model: Oracle) -> dict[str, torch.Tensor]:
    def rename(name: str) -> str:
        for pattern, replacement in TO_MICROSOFT.items():
            name = re.sub(pattern, replacement, name)
        return name

    return {rename(name): tensor for name, tensor in model.state_dict().items()}


def training_checkpoint(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Microsoft's checkpoint.pth of a distributed run: its "model" is a name."""
    weights = {f"module.{name}": tensor for name, tensor in state.items()}
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    return {
        "epoch": 300,
        "model": "cls_cvt",
        "state_dict": weights,
        "perf": 81.6,
        "optimizer": optimizer.state_dict(),
    }


def tensorflow_datasets(model: Oracle, scope: str) -> dict[str, Any]:
    """Names and arrays of a tf_model.h5, as TFCvt of transformers 4.37 writes it."""
    leaves = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    datasets = {}
    for name, tensor in model.state_dict().items():
        *modules, leaf = name.split(".")
        group = modules[0]
        if leaf == "num_batches_tracked":
            continue
        if leaf == "cls_token":
            datasets[f"{group}/{name}:0"] = tensor.numpy()
            continue
        if leaf == "weight":
            leaf = "kernel" if tensor.ndim > 1 else "gamma"
        elif leaf == "bias" and ("norm" in modules[-1]):
            leaf = "beta"
        path = re.sub(r"(stages|layers)/(\d)", r"\1.\2", "/".join(modules))
        axes = {2: (1, 0), 4: (2, 3, 1, 0)}.get(tensor.ndim, tuple(range(tensor.ndim)))
        datasets[f"{group}/{scope}/{path}/{leaves.get(leaf, leaf)}:0"] = tensor.permute(
            axes
        ).numpy()
    return datasets


def write_hdf5(path: Path, datasets: Mapping[str, Any]) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["cvt", "layernorm", "classifier"]
        file.create_group("top_level_model_weights")
        for name, array in datasets.items():
            file[name] = array
        names = [name.encode() for name in datasets if name.startswith("cvt/")]
        file["cvt"].attrs["weight_names0"] = names[: len(names) // 2]
        file["cvt"].attrs["weight_names1"] = names[len(names) // 2 :]


def save_as_bin(model: Oracle, folder: Path) -> None:
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def save_as_sharded_bin(model: Oracle, folder: Path) -> None:
    model.config.save_pretrained(folder)
    state = model.state_dict()
    names = sorted(state)
    shards = {"a.bin": names[::2], "b.bin": names[1::2]}
    for file, members in shards.items():
        torch.save({name: state[name] for name in members}, folder / file)
    index = {"weight_map": {name: file for file, members in shards.items() for name in members}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def save_as_sharded_safetensors(model: Oracle, folder: Path) -> None:
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    model.save_pretrained(folder, max_shard_size=weights // 3)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
