"""A linear classifier on stored embeddings: logits = embedding @ weight.T + bias."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pipeline.contract.errors import UsageError, one_line
from pipeline.model.checkpoint_files import CheckpointFiles, open_checkpoint
from pipeline.output.identity import short_hash
from pipeline.storage.filesystems import STORAGE_ERRORS, filesystem
from pipeline.storage.uris import split_uri

_PREFIXES = ("", "classifier.", "head.")
_SCORES = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "logits",
}
_BROKEN = (*STORAGE_ERRORS, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Head:
    """The layer that turns an embedding into logits."""

    weight: npt.NDArray[np.float32]
    """(N, C)."""
    bias: npt.NDArray[np.float32]
    """(N,)."""
    classes: tuple[str, ...]
    scores: str | None = None
    """The scores that its logits were trained for, if its configuration says."""

    @classmethod
    def load(cls, source: str) -> Self:
        """Read a head.

        Args:
            source: an .npz file with ``weight`` (N, C), ``bias`` (N,) and ``labels`` (N,), and
                maybe ``problem_type``, as in a config.json; or weights in the form of a checkpoint
                (a directory, a .safetensors, .bin or .pth file) with tensors named ``weight`` and
                ``bias``, alone or after "classifier." or "head.".
                The names of the classes are then beside it: ``id2label`` in config.json, or a list
                in labels.json.

        Raises:
            UsageError: the file cannot be read, or does not hold a head.
        """
        try:
            head = cls(**(_read_npz(source) if source.endswith(".npz") else _read(source)))
        except _BROKEN as error:
            raise UsageError(f"cannot read <relabel.head> {source}: {one_line(error)}") from error
        head._check(source)
        return head

    @property
    def fingerprint(self) -> str:
        """Short hash over the numbers and the names."""
        names = json.dumps(self.classes).encode()
        return short_hash(self.weight.tobytes() + self.bias.tobytes() + names)

    def logits(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(B, N) of embeddings (B, C)."""
        return embeddings @ self.weight.T + self.bias

    def _check(self, source: str) -> None:
        shape = self.weight.shape
        if len(shape) != 2 or self.bias.shape != shape[:1] or len(self.classes) != shape[0]:
            raise UsageError(
                f"<relabel.head> {source} is inconsistent: weight {shape}, "
                f"bias {self.bias.shape}, {len(self.classes)} labels; they must be (N, C), (N,) "
                "and N"
            )
        if len(set(self.classes)) < len(self.classes):
            raise UsageError(f"<relabel.head> {source} has two classes with the same name")
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise UsageError(f"<relabel.head> {source} holds NaN or infinity")


def _read_npz(source: str) -> dict[str, Any]:
    protocol, path = split_uri(source)
    with np.load(io.BytesIO(filesystem(protocol).cat_file(path)), allow_pickle=False) as arrays:
        scores = _SCORES.get(str(arrays["problem_type"])) if "problem_type" in arrays else None
        return _layer(arrays) | {"classes": tuple(map(str, arrays["labels"])), "scores": scores}


def _read(source: str) -> dict[str, Any]:
    with open_checkpoint(source) as files:
        return _layer(files.weights()) | _names(files)


def _layer(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Weight and bias under any of their usual names; without a bias, zeros."""
    prefix = next((p for p in _PREFIXES if f"{p}weight" in arrays), None)
    if prefix is None:
        raise ValueError("there is no tensor named weight, classifier.weight or head.weight")
    weight = np.ascontiguousarray(arrays[f"{prefix}weight"], np.float32)
    zeros = np.zeros(len(weight), np.float32)
    bias = arrays.get(f"{prefix}bias", zeros)
    return {"weight": weight, "bias": np.ascontiguousarray(bias, np.float32)}


def _names(files: CheckpointFiles) -> dict[str, Any]:
    if not (classes := files.class_names()):
        raise ValueError(
            "there are no class names: put labels.json (a list) or config.json (id2label) beside it"
        )
    config = files.json("config.json")
    problem = config.get("problem_type") if isinstance(config, dict) else None
    return {"classes": classes, "scores": _SCORES.get(str(problem))}
