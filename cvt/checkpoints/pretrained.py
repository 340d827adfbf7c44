"""Models out of checkpoints and back: every published layout in, Hugging Face's out."""

import dataclasses
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import safetensors.torch
import torch
from torch import nn

from cvt.checkpoints.assembly import assemble, module_of
from cvt.checkpoints.files import FILE_NAMES, State, read_weights
from cvt.checkpoints.layouts import Layout, detect, translate
from cvt.checkpoints.mismatch import Anatomy
from cvt.checkpoints.unwrap import unwrapped
from cvt.config import PRESETS, CvtConfig
from cvt.errors import CheckpointError, ConfigError
from cvt.interface.as_in_transformers import AsInTransformers
from cvt.interface.fields import class_names, read_object
from cvt.interface.sources import Fetch, Source, display, open_source

logger = logging.getLogger(__name__)

_NAMES: Final = ("labels", "id2label", "label2id")
_HEAD = "classifier."
_COUNTER = "num_batches_tracked"  # of BatchNorm; unused at the fixed momentum, absent in some files


class Pretrained(AsInTransformers):
    """What the backbone and the classifier have in common: loading, saving and sharing."""

    def __init__(self, config: CvtConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_pretrained(
        cls,
        source: Source,
        *,
        config: CvtConfig | str | None = None,
        activation: str | None = None,
        num_labels: int | None = None,
        new_head: bool = True,
        ignore_mismatched_sizes: bool = False,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        revision: str | None = None,
        **changes: Any,
    ) -> Self:
        """Load a checkpoint, in eval mode and float32.

        Args:
            source: A directory in Hugging Face layout (safetensors, .bin, sharded or not, or
                tf_model.h5); one file (.safetensors, .bin, .pth, .h5; also Microsoft's); either of
                them behind any fsspec URI; or a hub name.
            config: The architecture, in place of the directory's config.json: a CvtConfig, a
                preset's name, or the location of a config.json. Without any of these, published
                models are recognised by their widths and depths.
            activation: "gelu" or "quick_gelu". By default that of the configuration, else that of
                the code base whose layout the weights have: "quick_gelu" for Microsoft's.
            num_labels: A number of classes that is not the checkpoint's gives a new head to train.
            new_head: Whether weights without a head, those of a saved backbone, get a new one to
                train; otherwise the model has no classes then.
            ignore_mismatched_sizes: Whether weights of another size than the configuration's are
                replaced by new ones to train, rather than refused.
            dtype: Of the weights; float32 by default. Also by name, or "auto": the checkpoint's.
            torch_dtype: The older name of ``dtype`` in transformers.
            device: Where the weights go; by default PyTorch's default device, which is the CPU.
            revision: Branch, tag or commit of a hub name.
            changes: Fields of the configuration, such as ``id2label``, ``label2id``,
                ``problem_type`` or ``drop_path_rate``.

        Raises:
            CheckpointError: the weights cannot be found, read, trusted or fitted.
            ConfigError: the configuration does not describe a CvT.
            RuntimeError: the default device is "meta", which holds no weights.
            TypeError: the configuration has no field of this name.
        """
        name, device = display(source), device or torch.get_default_device()
        if str(device) == "meta":
            raise RuntimeError("the default device is meta, which holds no weights: name another")
        with torch.device("cpu"), open_source(source, revision) as (fetch, file):
            if config is None and file is None:
                config = read_config(fetch)
            state, layout = _read_state(fetch, file, name)
            activation = activation or changes.pop("hidden_act", None)
            chosen = _choose_config(config, activation, Anatomy.of(state), layout, name)
            are_named = not changes.keys().isdisjoint(_NAMES)
            if num_labels is not None and (are_named or num_labels != chosen.num_labels):
                changes["num_labels"] = num_labels
            chosen = chosen.changed(**changes)
            if num_labels is not None or are_named:
                state = _without_other_head(state, chosen.num_labels)
            if not new_head and "head" not in map(module_of, state):
                chosen = dataclasses.replace(chosen, labels=())
            kind = _dtype(dtype or torch_dtype or torch.float32, state)
            model = assemble(cls, chosen, state, layout, name, renew=ignore_mismatched_sizes)
        return model.to(device=device, dtype=kind).eval()

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors in Hugging Face's layout.

        transformers loads them unchanged; it ignores the recorded activation and uses exact GELU.

        Raises:
            ValueError: the head is for another number of classes than the configuration names.
        """
        self._check_head()
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        state = reference_state(self)
        config = self.config.to_dict() | {"architectures": [type(self).__name__]}
        _replace(folder / "config.json", json.dumps(config, indent=2).encode())
        _replace(folder / "model.safetensors", safetensors.torch.save(state, {"format": "pt"}))

    def _check_head(self) -> None:
        head, count = getattr(self, "head", None), self.config.num_labels
        if isinstance(head, nn.Linear) and head.out_features != count:
            raise ValueError(
                f"the head has {head.out_features} outputs and the configuration {count} labels: "
                "set config.id2label or config.num_labels"
            )

    @classmethod
    def from_state(cls, config: CvtConfig, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """A model in eval mode around the arrays of ``state_arrays``, without copying them.

        The arrays may be read-only, like those from Ray's object store: the result is for
        inference, not for training.
        """
        with torch.device("meta"):
            model = cls(config)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            state = {name: torch.from_numpy(array) for name, array in arrays.items()}
        model.load_state_dict(state, assign=True)
        return model.requires_grad_(False).eval()

    def state_arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """The float32 weights as arrays that share their memory, for ``from_state``."""
        return {name: tensor.cpu().numpy() for name, tensor in self.state_dict().items()}


def read_config(fetch: Fetch, name: str = "config.json") -> CvtConfig | None:
    """The configuration in a checkpoint's config.json; None if there is no such file.

    Raises:
        ConfigError: the file is not a JSON object, or does not describe a CvT.
    """
    if (path := fetch(name)) is None:
        return None
    values = read_object(path)
    try:
        return CvtConfig.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error


def reference_state(model: nn.Module) -> State:
    """A model's weights under Hugging Face's names; a base model's without their "cvt." prefix."""
    state = translate(model.state_dict(), "ours", "hugging_face")
    if "layernorm.weight" not in state:
        state = {name.removeprefix("cvt."): tensor for name, tensor in state.items()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def weights_hash(model: nn.Module, *, head: bool = True) -> str:
    """SHA-256 (hex) over names, dtypes, shapes and bytes of the weights, in the reference layout.

    It does not depend on the layout or the files that they came from. BatchNorm's counters, which
    no computation reads, are left out; so is the classifier without ``head``, and then models of
    the same hash give an image the same embedding.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(reference_state(model).items()):
        if not name.endswith(_COUNTER) and (head or not name.startswith(_HEAD)):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_state(fetch: Fetch, file: str | None, source: str) -> tuple[State, Layout]:
    """Weights under our names, and the layout that they had."""
    read = read_weights(fetch, file)
    if read is None:
        raise CheckpointError(f"{source} holds no weights: expected one of {', '.join(FILE_NAMES)}")
    state = unwrapped(read, source)
    if (layout := detect(state)) is None:
        names = ", ".join(sorted(state)[:3])
        raise CheckpointError(f"{source} is not a CvT: its weights are named {names}, ...")
    means = (name for name in state if name.endswith("running_mean"))
    counters = {n.replace("running_mean", _COUNTER): torch.tensor(0) for n in means}
    return translate(counters | state, layout, "ours"), layout


def _choose_config(
    config: CvtConfig | str | None,
    activation: str | None,
    anatomy: Anatomy,
    layout: Layout,
    source: str,
) -> CvtConfig:
    """The given configuration, or the preset that fits the weights; with the activation decided."""
    if isinstance(config, str) and config not in PRESETS:
        with open_source(config) as (fetch, file):
            config = read_config(fetch, file or "config.json")
        if config is None:
            raise ConfigError("config must be a CvtConfig, a preset's name or a config.json's path")
    if not isinstance(config, CvtConfig):
        preset = CvtConfig.from_preset(config) if config else recognise(anatomy, source)
        count = preset.num_labels if anatomy.num_labels is None else anatomy.num_labels
        config = dataclasses.replace(preset, labels=class_names({"num_labels": count}))
    activation = activation or config.activation
    if activation is None and layout == "ours":
        logger.warning("%s: nothing says which activation, taking gelu: pass config=", source)
    native = "quick_gelu" if layout == "microsoft" else "gelu"
    return dataclasses.replace(config, activation=activation or native)


def recognise(anatomy: Anatomy, source: str) -> CvtConfig:
    """The published model with these widths and depths.

    Raises:
        CheckpointError: there is none; the message names ``source``.
    """
    for preset in map(CvtConfig.from_preset, PRESETS):
        if (preset.embed_dim, preset.depth) == (anatomy.embed_dim, anatomy.depth):
            return preset
    raise CheckpointError(
        f"{source} has no configuration, and no published CvT has embed_dim "
        f"{anatomy.embed_dim} and depth {anatomy.depth}: pass config="
    )


def _without_other_head(state: State, count: int) -> State:
    """The weights, without a head for another number of classes."""
    if Anatomy.of(state).num_labels == count:
        return state
    return {name: tensor for name, tensor in state.items() if module_of(name) != "head"}


def _dtype(dtype: torch.dtype | str, state: State) -> torch.dtype:
    """A dtype by itself, by name, or for "auto" the one that most of the weights have.

    Raises:
        ValueError: it is no floating dtype.
    """
    found: Any = dtype
    if dtype == "auto":
        kinds = [tensor.dtype for tensor in state.values() if tensor.is_floating_point()]
        found = max(kinds, key=kinds.count)
    elif isinstance(dtype, str):
        found = getattr(torch, dtype.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f'dtype must be "auto" or a floating one such as float16, not {dtype!r}')
    return found


def _replace(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader, or a model mapped from it, never sees half of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
