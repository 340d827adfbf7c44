"""Calling a processor as transformers' image processors are called."""

import dataclasses
import json
import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Self, cast, get_args, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cvt.interface.inputs import ImageInput, Layout, each_image, holds_floats
from cvt.interface.outputs import Output

_LAYOUTS: Final = get_args(Layout)


class ImageBatch(Output):
    """What a processor returns for ``return_tensors``; ``model(**batch)`` takes it."""

    pixel_values: Any
    """float32 (B, 3, S, S), a tensor or an array."""

    def to(self, *args: Any, **options: Any) -> Self:
        """The tensors on another device, or of another dtype."""
        return type(self)({name: value.to(*args, **options) for name, value in self.items()})


class AsImageProcessor:
    """A dataclass of settings that has the steps of preprocessing, made callable."""

    model_input_names: ClassVar[list[str]] = ["pixel_values"]
    do_convert_rgb: ClassVar[bool] = True
    size: int
    do_rescale: bool

    @abstractmethod
    def pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Resize and crop: uint8 (S, S, 3)."""

    @abstractmethod
    def decode(self, data: bytes) -> Image.Image:
        """The image in a file."""

    @abstractmethod
    def normalize(self, pixels: npt.NDArray[np.uint8] | Tensor) -> Tensor:
        """Turn uint8 (B, S, S, 3) into float32 (B, 3, S, S)."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The content of a preprocessor_config.json."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build from the content of a preprocessor_config.json."""

    @overload
    def __call__(
        self, images: ImageInput | Iterable[ImageInput], return_tensors: None = None, **options: Any
    ) -> Tensor: ...
    @overload
    def __call__(
        self, images: ImageInput | Iterable[ImageInput], return_tensors: str, **options: Any
    ) -> ImageBatch: ...
    def __call__(
        self,
        images: ImageInput | Iterable[ImageInput],
        return_tensors: str | None = None,
        *,
        data_format: Layout = "channels_first",
        input_data_format: Layout | None = None,
        do_convert_rgb: bool | None = True,
        device: torch.device | str | None = None,
        **changes: Any,
    ) -> Tensor | ImageBatch:
        """Preprocess one image or several: float32 (B, 3, S, S), for no images too.

        Args:
            images: PIL images, files (their bytes, or opened in binary mode), uint8 arrays or
                tensors (H, W, 3) or (3, H, W), batches of these, or any nesting of lists. See
                ``cvt.interface.inputs.each_image`` for the rules. Floats from 0 to 1 are taken
                with ``do_rescale=False``, which says that they are scaled already.
            return_tensors: "pt" or "np" for a mapping with ``pixel_values``, as in transformers;
                by default the result is the tensor itself.
            data_format: "channels_last" makes the result (B, S, S, 3).
            input_data_format: Where arrays have their channels, if their shape leaves it open.
            do_convert_rgb: Taken for transformers' sake: every image becomes RGB.
            device: Where the tensor goes.
            changes: Settings for this call alone, such as ``size=384``.

        Raises:
            ConfigError: a setting has a value that it cannot have.
            ImageDecodeError: bytes cannot be decoded.
            TypeError, ValueError: an input is of another type, shape or range.
        """
        if return_tensors not in (None, "pt", "np"):
            raise ValueError(f'return_tensors must be "pt" or "np", not {return_tensors!r}')
        if data_format not in _LAYOUTS or input_data_format not in (None, *_LAYOUTS):
            raise ValueError(f"a data format is one of {', '.join(_LAYOUTS)}")
        processor = dataclasses.replace(cast(Any, self), **changes) if changes else self
        values = processor.tensor(images, input_data_format).to(device)
        values = (values.movedim(1, -1) if data_format == "channels_last" else values).contiguous()
        if return_tensors is None:
            return values
        return ImageBatch(pixel_values=values.numpy() if return_tensors == "np" else values)

    preprocess = __call__

    def tensor(self, images: Any, layout: Layout | None) -> Tensor:
        """Images in any form as float32 (B, 3, S, S)."""
        scaled = not self.do_rescale and holds_floats(images)
        found = each_image(images, layout, floats=scaled)
        each = [self.pixels(self.decode(i) if isinstance(i, bytes) else i) for i in found]
        pixels = np.stack(each) if each else np.empty((0, self.size, self.size, 3), np.uint8)
        if not scaled:
            return self.normalize(pixels)
        rescaling = {"do_rescale": True, "rescale_factor": 1 / 255}  # undoes the rounding to levels
        values: Tensor = dataclasses.replace(cast(Any, self), **rescaling).normalize(pixels)
        return values

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], **changes: Any) -> Self:
        """``from_config``, with some of its keys changed."""
        return cls.from_config({**config, **changes})

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> Self:
        """``from_config`` with the content of a file."""
        return cls.from_config(json.loads(Path(path).read_text()))

    def to_json_string(self) -> str:
        """The content of a preprocessor_config.json, as text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_json_file(self, path: str | os.PathLike[str]) -> None:
        """Write ``to_json_string`` to a file."""
        Path(path).write_text(self.to_json_string())
