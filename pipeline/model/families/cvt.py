"""CvT as the pipeline runs it: what its classes, errors and conventions mean here.

Decode tasks, which need its preprocessing alone, import this module too: the network is loaded when
it is first used.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import cvt
from cvt import CheckpointError, ConfigError, CvtImageProcessor, ImageDecodeError
from cvt.checkpoints.preprocessor import size_mismatch
from cvt.preprocessing.fast.on_cpu import has_filter
from cvt.preprocessing.fast.on_device import read_header, resize
from cvt.preprocessing.normalize import Normalize
from cvt.training.recipe import Recipe
from pipeline.contract.errors import DecodeError, UsageError, one_line
from pipeline.contract.spec import CpuDecodeMode, ModelSpec, Pooling, Scores
from pipeline.model.network import (
    DTYPES,
    Decoded,
    Floats,
    Form,
    JpegHeader,
    Network,
    Outputs,
    Pixels,
    Reference,
)
from pipeline.model.self_check import spectral_norm

if TYPE_CHECKING:
    from cvt import CvtConfig, CvtForImageClassification, CvtOutput
    from cvt.inference.openvino import OpenVinoCvt
    from cvt.training.trainee import Trainee

_OF_NORMALIZING = (
    "do_normalize", "do_rescale", "image_mean", "image_std", "rescale_factor",
    "image_processor_type",
)  # fmt: skip
"""What of a preprocessing happens beside the network."""

log = logging.getLogger(__name__)


def claims(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a CvT."""
    return config.get("model_type") == "cvt"


def load(spec: ModelSpec) -> CvtCheckpoint:
    """Read a CvT and its preprocessing.

    Raises:
        UsageError: they cannot be read, or the images would have different sizes.
    """
    try:
        model = cvt.CvtForImageClassification.from_pretrained(
            spec.source, activation=spec.activation, new_head=False
        )
        processor = CvtImageProcessor.from_pretrained(spec.source, size=spec.image_size)
        model.config.check_images(processor.size)
    except (CheckpointError, ConfigError, OSError) as error:
        raise UsageError(f"cannot load the model: {one_line(error)}") from error
    if complaint := size_mismatch(processor.size, model.config.to_dict(), spec.source):
        log.warning("%s with <model.image_size>", complaint)
    if not processor.do_resize:
        raise UsageError("the preprocessing does not resize; a batch needs images of one size")
    if spec.decode == "gpu" and not has_filter(processor.resample):
        raise UsageError(
            "<model.decode> gpu resizes bilinearly or bicubically, and the checkpoint's filter is "
            f"number {processor.resample} of Pillow's; use <model.decode> exact"
        )
    return CvtCheckpoint(model, processor)


@dataclass(frozen=True)
class CvtPreprocessing:
    """A ``DevicePreprocessing``."""

    processor: CvtImageProcessor

    @property
    def size(self) -> int:
        return self.processor.size

    def decode(self, data: bytes, *, mode: CpuDecodeMode, max_pixels: int) -> Decoded:
        try:
            found = self.processor.pixels_from_bytes(data, mode=mode, max_pixels=max_pixels)
        except ImageDecodeError as error:
            raise DecodeError(error.code, str(error)) from error
        return Decoded(*found)

    def header(self, data: bytes, *, max_pixels: int) -> JpegHeader | None:
        try:
            found = read_header(data, self.processor.window, max_pixels=max_pixels)
        except ImageDecodeError as error:
            raise DecodeError(error.code, str(error)) from error
        return None if found is None else JpegHeader(*found)

    def resize(self, image: torch.Tensor, orientation: int) -> torch.Tensor:
        return resize(image, self.processor.window, self.processor.resample, orientation)

    def to_dict(self) -> dict[str, Any]:
        return self.processor.to_dict()

    @property
    def of_pixels(self) -> dict[str, Any]:
        return {k: v for k, v in self.to_dict().items() if k not in _OF_NORMALIZING}


@dataclass(frozen=True)
class CvtCheckpoint:
    """A ``TrainableCheckpoint``."""

    model: CvtForImageClassification
    processor: CvtImageProcessor

    @property
    def config(self) -> CvtConfig:
        return self.model.config

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(label for _, label in sorted(self.config.id2label.items()))

    @property
    def default_scores(self) -> Scores:
        return cast(Scores, cvt.default_scores(self.config))

    @property
    def activation(self) -> str:
        return self.config.activation or "gelu"

    @cached_property
    def weights_sha256(self) -> str:
        return cvt.weights_hash(self.model)

    @cached_property
    def backbone_sha256(self) -> str:
        return cvt.weights_hash(self.model, head=False)

    @property
    def head(self) -> tuple[Floats, Floats]:
        if not self.classes:
            return np.zeros((0, self.config.embed_dim[-1]), np.float32), np.zeros(0, np.float32)
        return self.arrays["head.weight"], self.arrays["head.bias"]

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return self.model.state_arrays()

    @property
    def preprocessing(self) -> CvtPreprocessing:
        return CvtPreprocessing(self.processor)

    def embedding_width(self, pooling: Pooling) -> int:
        config = self.config
        if pooling == "cls" and not config.cls_token[-1]:
            raise UsageError(
                "<output.pooling> cls needs a class token, which this model does not have; "
                "use cls_norm"
            )
        if pooling == "mean" and config.num_stages < 2:
            raise UsageError(
                "<output.pooling> mean is over the last stage but one; this model has one stage"
            )
        return config.embed_dim[-2 if pooling == "mean" else -1]

    @torch.inference_mode()
    def reference(self, pixels: Pixels, pooling: Pooling) -> Reference:
        values = self.processor.normalize(pixels)
        out = self.model(values)
        head = self.model.head
        gain = spectral_norm(head.weight) if isinstance(head, nn.Linear) else 1.0
        scale = gain * out.embedding.norm(dim=1)
        embedding = out.embedding
        if pooling != "cls_norm":
            embedding = self.model.embed(values, pooling=pooling)
        return Reference(out.logits.numpy(), embedding.numpy(), scale.numpy())

    def with_head(
        self, weight: Floats, bias: Floats, classes: Sequence[str], *, multi_label: bool = False
    ) -> CvtCheckpoint:
        arrays = self.arrays | {"head.weight": weight, "head.bias": bias}
        problem = f"{'multi' if multi_label else 'single'}_label_classification"
        config = replace(self.config, labels=tuple(classes), problem_type=problem)
        model = cvt.CvtForImageClassification.from_state(config, arrays)
        return CvtCheckpoint(model, self.processor)

    def learner(
        self, recipe: Recipe, steps: int, device: torch.device, *, last_stage: bool
    ) -> Trainee:
        from cvt.training.learner import Learner
        from cvt.training.trainee import Trainee

        frozen = self.config.num_stages - 1 if last_stage else 0
        model = deepcopy(self.model).requires_grad_(True).to(device)
        learner = Learner(model, replace(recipe, frozen_stages=frozen), steps)
        return Trainee(learner, self.processor, device)

    def with_weights(self, weights: Mapping[str, torch.Tensor]) -> CvtCheckpoint:
        model = deepcopy(self.model)
        model.load_state_dict(dict(weights))
        return CvtCheckpoint(model.eval(), self.processor)

    def save(self, directory: Path) -> None:
        self.model.save_pretrained(directory)
        self.processor.save_pretrained(directory)

    def pack(self, form: Form) -> PackedCvt:
        packed = PackedCvt(self.config, self.arrays, self.processor, form)
        return packed.converted() if form.runtime == "openvino" else packed


@dataclass(frozen=True)
class PackedCvt:
    """A ``PackedNetwork``. Ray's object store shares the arrays between the actors of a node."""

    config: CvtConfig
    arrays: dict[str, npt.NDArray[Any]]
    processor: CvtImageProcessor
    form: Form
    graph: OpenVinoCvt | None = None
    """Takes the place of the arrays."""

    def converted(self) -> PackedCvt:
        """The same for the runtime openvino, so that no actor has to convert it."""
        graph = cast("OpenVinoCvt", self._optimized("cpu"))
        graph.convert((self.config.num_channels, self.processor.size, self.processor.size))
        return PackedCvt(self.config, {}, self.processor, self.form, graph)

    def build(self, device: torch.device, *, compile: bool = False) -> Network:
        module = self._optimized(device) if self.graph is None else self.graph
        dtype = DTYPES[self.form.dtype]
        if device.type == "cpu":
            return CvtNetwork(module, self.processor, dtype)
        whole = nn.Sequential(Normalize(self.processor, dtype), module).to(device)
        if compile:
            whole.compile(dynamic=False)
        return CvtFromPixels(whole)

    def _optimized(self, device: torch.device | str) -> nn.Module:
        model = cvt.CvtForImageClassification.from_state(self.config, self.arrays)  # no copies
        form = self.form
        return model.optimize(
            DTYPES[form.dtype], device, pooling=form.pooling, runtime=form.runtime
        )


@dataclass(frozen=True)
class CvtNetwork:
    """A ``Network``."""

    module: nn.Module
    """Takes normalised images (B, 3, S, S), and returns a CvtOutput."""
    processor: CvtImageProcessor
    dtype: torch.dtype

    def __call__(self, pixels: Pixels | torch.Tensor) -> Outputs:
        out: CvtOutput = self.module(self.processor.normalize(pixels).to(self.dtype))
        return Outputs(out.logits, out.embedding)


@dataclass(frozen=True)
class CvtFromPixels:
    """A ``Network`` that also normalises on the device."""

    module: nn.Module
    """Takes uint8 pixels (B, S, S, 3), and returns a CvtOutput."""

    def __call__(self, pixels: Pixels | torch.Tensor) -> Outputs:
        out: CvtOutput = self.module(torch.as_tensor(pixels))
        return Outputs(out.logits, out.embedding)
