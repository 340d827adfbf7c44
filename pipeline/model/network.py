"""What the pipeline asks of a network, whatever its family.

    Checkpoint       on the driver: what was read, and what its reference computes for a batch
    Preprocessing    in the decode tasks: bytes to pixels
    PackedNetwork    on the way to the actors: plain data
    Network          in an actor: pixels to logits and embeddings

A family implements these four, as ``families/cvt.py`` does, and has a line in
``families/registry.py``. Decoding, inference, the self-check and the bundle know nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cvt.training.recipe import Portion, Recipe
from pipeline.contract.spec import CpuDecodeMode, Dtype, Pooling, Runtime, Scores

DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""Of weights and activations; what tf32 rounds, the device does."""

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Form:
    """How the actors compute: the same for all of them, and, except for the runtime, a part of the
    numbers' identity."""

    dtype: Dtype
    runtime: Runtime
    pooling: Pooling


class Decoded(NamedTuple):
    """An image as the network takes it, and its original size."""

    pixels: Pixels
    """(S, S, 3)."""
    width: int
    """Of the upright image, before it was resized."""
    height: int


class JpegHeader(NamedTuple):
    """What must be known of a JPEG file to have a GPU decode it."""

    width: int
    """Of the upright image."""
    height: int
    orientation: int
    """How the pixels are stored, as in EXIF: 1 to 8."""


class Outputs(NamedTuple):
    """The results of a network for a batch, on its own device, one row per image."""

    logits: Tensor
    """(B, N) float32; for a network without classes (B, 0) or anything else, as nobody reads it."""
    embedding: Tensor
    """(B, C) float32, in the pooling of its form."""


class Reference(NamedTuple):
    """The results of the reference, float32 on the CPU, and how large its logits may get."""

    logits: Floats
    """(B, N)."""
    embedding: Floats
    """(B, C)."""
    logit_scale: Floats
    """(B,): the largest logits that the head can make of an input as long as this image's, that is
    the norm of its weights times that of the input; the unit of deviations."""


class Preprocessing(Protocol):
    """From the bytes of an image to pixels. Small: it travels with every decode task."""

    @property
    def size(self) -> int:
        """Height and width of the pixels, S."""

    def decode(self, data: bytes, *, mode: CpuDecodeMode, max_pixels: int) -> Decoded:
        """Decode, turn upright, resize and crop.

        Raises:
            DecodeError: the bytes are not an image of at most ``max_pixels`` that can be decoded.
        """

    def to_dict(self) -> dict[str, Any]:
        """Everything that changes the numbers, as JSON types: a part of the fingerprint."""

    @property
    def of_pixels(self) -> Mapping[str, Any]:
        """What of it changes the pixels; where all of this agrees, two networks can be given the
        same ones, though each may normalise them in its own way."""


@runtime_checkable
class DevicePreprocessing(Preprocessing, Protocol):
    """A ``Preprocessing`` that also works where the pixels are, for files that a GPU decodes."""

    def header(self, data: bytes, *, max_pixels: int) -> JpegHeader | None:
        """Read the header of a file; None if only ``decode`` can be trusted with it.

        Raises:
            DecodeError: the bytes are not an image of at most ``max_pixels``.
        """

    def resize(self, image: Tensor, orientation: int) -> Tensor:
        """Do what ``decode`` does beyond decoding: uint8 (3, H, W), as stored, to (S, S, 3)."""


class Network(Protocol):
    """A network on its device, ready to be called again and again."""

    def __call__(self, pixels: Pixels | Tensor) -> Outputs:
        """Normalise uint8 pixels (B, S, S, 3), a tensor on the network's device or, on the CPU, an
        array (which may be read-only), and compute."""


class PackedNetwork(Protocol):
    """A network as plain data, which an actor receives instead of reading the checkpoint."""

    def build(self, device: torch.device, *, compile: bool = False) -> Network:
        """Place it on a device; on a CPU it uses as many threads as PyTorch has at that moment.

        On a GPU its calls can be captured in a CUDA graph: they allocate nothing on the host, and
        depend on nothing but the pixels. With ``compile``, ``torch.compile`` fuses it, including
        normalisation, in the first call of each shape.
        """


class Checkpoint(Protocol):
    """Weights and preprocessing as they were read, on the driver."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by ``label_id``; empty for a backbone without a head."""

    @property
    def default_scores(self) -> Scores:
        """The scores that the logits were trained for."""

    @property
    def activation(self) -> str:
        """The activation function of its layers: a part of the fingerprint."""

    @property
    def weights_sha256(self) -> str:
        """Of the weights, whatever their file format: a part of the fingerprint."""

    @property
    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """The weights by name."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing that this network needs."""

    def embedding_width(self, pooling: Pooling) -> int:
        """How many numbers an embedding has.

        Raises:
            UsageError: the network has no such pooling.
        """

    def reference(self, pixels: Pixels, pooling: Pooling) -> Reference:
        """The results of the unoptimised network for pixels (B, S, S, 3), in float32 on the CPU."""

    def pack(self, form: Form) -> PackedNetwork:
        """The network in one form, after all work that need not be repeated in every actor."""


class Learner(Protocol):
    """A network that is being trained, in a worker, on its device."""

    def share(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        """From now on call what ``wrap`` makes of the module: gradients are averaged there."""

    def look(self, data: bytes, number: int, epoch: int | None) -> Pixels:
        """What an epoch shows of image ``number``, (S, S, 3); without an epoch, what inference
        does. Safe to call from several threads.

        Raises:
            ValueError: it cannot be decoded.
        """

    def step(
        self, pixels: Pixels, targets: npt.NDArray[np.int64], portion: Portion | None = None
    ) -> float:
        """Learn from images (B, S, S, 3) of classes (B,); returns their mean loss.

        Args:
            portion: what these images are of those of the step, unless they are all.
        """

    @property
    def statistics(self) -> Sequence[Tensor]:
        """What each worker finds out by itself, to be overwritten in place."""

    def answer(self, pixels: Pixels) -> Floats:
        """Logits (B, N) of images, learning nothing."""

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain Python."""

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state``."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """By name, as ``TrainableCheckpoint.with_weights`` takes them."""

    def take_weights(self, values: Mapping[str, Tensor]) -> None:
        """Answer with these from now on."""


@runtime_checkable
class TrainableCheckpoint(Checkpoint, Protocol):
    """A ``Checkpoint`` that can learn other classes, and be written."""

    @property
    def backbone_sha256(self) -> str:
        """Of the weights without the classifier: checkpoints in which it is the same, and the
        activation, give equal pixels equal embeddings in the pooling cls_norm."""

    @property
    def head(self) -> tuple[Floats, Floats]:
        """The classifier on embeddings in that pooling: weight (N, C) and bias (N,),
        empty for a backbone without one."""

    def with_head(
        self, weight: Floats, bias: Floats, classes: Sequence[str], *, multi_label: bool = False
    ) -> Self:
        """The same backbone and preprocessing with another classifier.

        Args:
            multi_label: whether an image may be of any number of its classes, and not of one.
        """

    def learner(
        self, recipe: Recipe, steps: int, device: torch.device, *, last_stage: bool
    ) -> Learner:
        """A copy to be trained.

        Args:
            steps: of the whole training.
            last_stage: whether the last stage and what follows it are all that learns.
        """

    def with_weights(self, weights: Mapping[str, Tensor]) -> Self:
        """The same network with what a ``Learner`` has learned."""

    def save(self, directory: Path) -> None:
        """Write it, so that whatever loads such checkpoints loads this one."""
