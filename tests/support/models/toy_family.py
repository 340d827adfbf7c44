"""A family of networks that is no CvT: it answers with the mean colour of an image."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pipeline.contract.errors import DecodeError, UsageError
from pipeline.contract.spec import CpuDecodeMode, ModelSpec, Pooling, Scores
from pipeline.model.families.registry import Family
from pipeline.model.network import DTYPES, Decoded, Floats, Form, Outputs, Pixels, Reference

COLOURS = ("red", "green", "blue")


def write_toy(directory: Path, size: int = 8) -> Path:
    """A checkpoint whose weights are the identity: the class is the strongest colour."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"model_type": "toy", "size": size}))
    return directory


def load(spec: ModelSpec) -> "ToyCheckpoint":
    config = json.loads((Path(spec.source) / "config.json").read_text())
    weight = np.eye(3, dtype=np.float32)
    return ToyCheckpoint({"weight": weight}, ToyPreprocessing(config["size"]))


def claims(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "toy"


TOY = Family("toy", load, claims)


@dataclass(frozen=True)
class ToyPreprocessing:
    size: int

    def decode(self, data: bytes, *, mode: CpuDecodeMode, max_pixels: int) -> Decoded:
        try:
            image = Image.open(io.BytesIO(data)).convert("RGB")
        except UnidentifiedImageError as error:
            raise DecodeError("not_an_image", str(error)) from error
        pixels = np.asarray(image.resize((self.size, self.size)))
        return Decoded(pixels, image.width, image.height)

    def to_dict(self) -> dict[str, Any]:
        return {"size": self.size}

    @property
    def of_pixels(self) -> dict[str, Any]:
        return {"family": "toy", "size": self.size}


@dataclass(frozen=True)
class ToyNetwork:
    weight: Tensor
    dtype: torch.dtype

    def __call__(self, pixels: Pixels | Tensor) -> Outputs:
        values = torch.as_tensor(np.array(pixels)).to(self.dtype) / 255
        embedding = values.mean(dim=(1, 2))
        return Outputs((embedding @ self.weight.T).float(), embedding.float())


@dataclass(frozen=True)
class PackedToy:
    weight: Floats
    form: Form

    def build(self, device: torch.device, *, compile: bool = False) -> ToyNetwork:
        dtype = DTYPES[self.form.dtype]
        return ToyNetwork(torch.tensor(self.weight, dtype=dtype, device=device), dtype)


@dataclass(frozen=True)
class ToyCheckpoint:
    arrays: dict[str, Floats]
    preprocessing: ToyPreprocessing
    classes: tuple[str, ...] = COLOURS
    default_scores: Scores = "logits"
    activation: str = "none"
    weights_sha256: str = "toy"

    def embedding_width(self, pooling: Pooling) -> int:
        if pooling != "mean":
            raise UsageError(f"this network has the pooling mean alone, not {pooling}")
        return 3

    def reference(self, pixels: Pixels, pooling: Pooling) -> Reference:
        embedding = (pixels / np.float32(255)).mean(axis=(1, 2))
        logits = embedding @ self.arrays["weight"].T
        return Reference(logits, embedding, np.linalg.norm(embedding, axis=1))

    def pack(self, form: Form) -> PackedToy:
        return PackedToy(self.arrays["weight"], form)
