"""Linear heads of seeded weights, in every form that relabelling reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch


def linear(seed: int = 0, width: int = 12) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(width, 5)


HEAD_CLASSES = [f"new {number}" for number in range(5)]


def save_head(layer: torch.nn.Linear, folder: Path, form: str, **config: Any) -> Path:
    """The layer in one of the forms that Head.load reads."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().clone() for name, value in layer.state_dict().items()}
    if form == "npz":
        np.savez(folder / "head.npz", labels=np.array(HEAD_CLASSES), **state)
        return folder / "head.npz"
    named = {str(number): name for number, name in enumerate(HEAD_CLASSES)}
    (folder / "config.json").write_text(json.dumps({"id2label": named} | config))
    if form == "directory":
        full = {f"classifier.{name}": value for name, value in state.items()}
        full["cvt.encoder.weight"] = torch.zeros(3)
        safetensors.torch.save_file(full, folder / "model.safetensors")
        return folder
    torch.save({f"head.{name}": value for name, value in state.items()}, folder / "head.pth")
    return folder / "head.pth"
