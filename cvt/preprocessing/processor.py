"""Preprocessing as the reference does it (transformers' ConvNextImageProcessor, PIL backend).

``crop.py`` has the rule for sizes. Resizing and cropping work in uint8; then the values are scaled
and normalised in float32.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from cvt.checkpoints.preprocessor import (
    CONFIG_NAME,
    PROCESSOR_TYPES,
    check_crop,
    find_preprocessor,
    spelled_as,
    square,
)
from cvt.errors import ConfigError
from cvt.interface.as_image_processor import AsImageProcessor
from cvt.interface.fields import FLAG, Field, is_number, real, whole
from cvt.interface.sources import Source, display
from cvt.preprocessing.crop import Window
from cvt.preprocessing.decode import DEFAULT_MAX_PIXELS, decode_image
from cvt.preprocessing.fast.on_cpu import Decoded, decode_fast, has_filter
from cvt.preprocessing.resample import resize_window
from cvt.preprocessing.rgb import upright_rgb

logger = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

DecodeMode = Literal["exact", "fast", "draft"]


@dataclass(frozen=True, kw_only=True)
class CvtImageProcessor(AsImageProcessor):
    """Image in, normalised tensor out. The defaults are those of every published CvT.

    They also replace keys that a preprocessor_config.json lacks, rather than the defaults of
    transformers' class (size 384, mean and standard deviation 0.5): no CvT was trained with those.
    """

    size: int = 224
    """Height and width of the result, S."""
    crop_pct: float = 0.875
    """Share of the resized short side that the crop keeps, 0.01 to 1; unused from size 384 on."""
    resample: int = Image.Resampling.BICUBIC
    """Filter in Pillow's numbering, 0 to 5; or its name, such as "bicubic"."""
    do_resize: bool = True
    """Resize and crop; otherwise images keep their size."""
    do_rescale: bool = True
    """Multiply by ``rescale_factor``."""
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    """Subtract ``image_mean``, divide by ``image_std``."""
    image_mean: tuple[float, float, float] = IMAGENET_MEAN
    image_std: tuple[float, float, float] = IMAGENET_STD
    """Of red, green and blue; one number stands for all three."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", square(self.size, "size"))
        for name, field in _FIELDS.items():
            object.__setattr__(self, name, field.read(name, getattr(self, name)))

    @classmethod
    def from_pretrained(
        cls, source: Source, *, size: int | None = None, revision: str | None = None
    ) -> Self:
        """Read the preprocessor_config.json that belongs to a model.

        Args:
            source: A directory, a .json file or a file beside it, any of them behind an fsspec URI,
                or a hub name. Without such a file, the published CvT's values are used.
            size: Overrides the file's size; 224 without either.
            revision: Branch, tag or commit of a hub name.

        Raises:
            ConfigError: the file describes another kind of preprocessing.
        """
        config = find_preprocessor(source, revision)
        if config is None:
            logger.info("no %s for %s: using ImageNet's values", CONFIG_NAME, display(source))
        processor = cls() if config is None else cls.from_config(config)
        return processor if size is None else replace(processor, size=size)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build from the content of a preprocessor_config.json, of any version of transformers.

        Keys that are absent or null take the defaults of this class.

        Raises:
            ConfigError: the content describes anything other than what this class does.
        """
        try:
            values = spelled_as(frozenset(_FIELDS), config)
            processor = cls(**values)
            check_crop(config, processor.size)
        except ConfigError as error:
            raise ConfigError(f"{CONFIG_NAME}: {error}") from error
        defaults = {"size", "image_mean", "image_std"} - values.keys()
        if defaults:
            logger.warning(
                "%s says nothing about %s: taking CvT's published values (size 224, ImageNet's "
                "mean and standard deviation)",
                CONFIG_NAME,
                ", ".join(sorted(defaults)),
            )
        return processor

    def to_dict(self) -> dict[str, Any]:
        """The content of a preprocessor_config.json, which transformers reads as well."""
        values = asdict(self) | {
            "image_processor_type": PROCESSOR_TYPES[0],
            "size": {"shortest_edge": self.size},
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "resample": int(self.resample),
        }
        return dict(sorted(values.items()))

    def save_pretrained(self, directory: str | Path) -> list[str]:
        """Write preprocessor_config.json into ``directory``, which is created if needed.

        Returns:
            The path of the file.
        """
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        self.to_json_file(path / CONFIG_NAME)
        return [str(path / CONFIG_NAME)]

    def decode(self, data: bytes) -> Image.Image:
        """The image in a file.

        Raises:
            ImageDecodeError: it cannot be decoded.
        """
        return decode_image(data)

    def pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Resize and crop: uint8 (S, S, 3), bit-equal to the reference for RGB images.

        Memory depends on the image and S, not on the resized image, which is huge for long strips.
        """
        image = upright_rgb(image)
        if not self.do_resize:
            return np.asarray(image)
        window = self.window(image.width, image.height)
        if window.is_small_part:
            return resize_window(image, window.size, window.box, self.resample)
        return np.asarray(image.resize(window.size, self.resample).crop(window.box))

    def pixels_from_bytes(
        self,
        data: bytes,
        *,
        mode: DecodeMode = "exact",
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Decoded:
        """Decode an image file and do what ``pixels`` does: (pixels, width, height).

        "exact" is bit-equal to the reference; "fast" is within two grey levels of it (one, on
        photographs), in less than half the time for JPEG files; "draft" is fast and also decodes
        large JPEG photos (at S = 224 from a short side of 2560 on) at half their size: within two
        grey levels on photographs, but thin lines in strong colours may differ by thirty.

        Raises:
            ImageDecodeError: it cannot be decoded.
        """
        if mode == "exact" or not (self.do_resize and has_filter(self.resample)):
            image = decode_image(data, max_pixels=max_pixels)
            return Decoded(self.pixels(image), image.width, image.height)
        draft = mode == "draft"
        return decode_fast(data, self.window, self.resample, max_pixels=max_pixels, draft=draft)

    def window(self, width: int, height: int) -> Window:
        """The size and the part of an upright image, of this size, that ``pixels`` keeps."""
        return Window.centre(width, height, self.size, self.crop_pct)

    def normalize(self, pixels: npt.NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
        """Turn uint8 (B, S, S, 3) into float32 (B, 3, S, S), on the device where the pixels are.

        Bit-equal to the reference's arithmetic on the CPU and on CUDA (whose division is IEEE's).
        The result is a view: in memory the channels stay last, as convolutions prefer.
        """
        if isinstance(pixels, np.ndarray):  # may be read-only, at which torch.from_numpy warns
            values = torch.from_numpy(pixels.astype(np.float32, order="C"))
        else:
            values = pixels.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        if self.do_rescale:
            values = self.rescale(values)
        if self.do_normalize:
            width = values.shape[2]  # whole rows at once: inner loops of three would be slow
            mean, std = (
                torch.tensor(three, device=values.device).repeat(width)
                for three in (self.image_mean, self.image_std)
            )
            values.view(-1, 3 * width).sub_(mean).div_(std)
        return values.movedim(-1, 1)

    def rescale(self, values: torch.Tensor) -> torch.Tensor:
        """Multiply float32 values, maybe in place, as the reference does: rounded from float64."""
        if self.rescale_factor == 1 / 255:  # the quotient is the same for all 256 values, and fast
            return values.div_(255)
        return (values.double() * self.rescale_factor).float()


def _three(low: float, high: float) -> Field:
    """A number for each channel, or one for all of them."""
    number = real(low, high)

    def threefold(value: Any) -> list[Any]:
        return [value] * 3 if is_number(value) else value

    def accepts(value: Any) -> bool:
        if not (isinstance(value, list | tuple) or is_number(value)):
            return False
        return len(threefold(value)) == 3 and all(map(number.accepts, threefold(value)))

    rule = f"be three values, or one for all, each {number.rule.removeprefix('be ')}"
    return Field(rule, accepts, lambda value: tuple(map(number.convert, threefold(value))))


def _filter_number(value: Any) -> int | None:
    """Pillow's number of a filter, or of a filter's name such as "bicubic" or "Image.BICUBIC"."""
    if isinstance(value, str):
        return _FILTERS.get(value.rpartition(".")[2].upper())
    return int(value) if whole(0, 5).accepts(value) else None


_FILTERS: Final = {resampling.name: int(resampling) for resampling in Image.Resampling}
_FIELDS: Final[Mapping[str, Field]] = {
    "size": whole(1, 4096),
    "crop_pct": real(0.01, 1),
    "resample": Field(
        f"be one of Pillow's filters 0 to 5, or {', '.join(_FILTERS).lower()}",
        lambda value: _filter_number(value) is not None,
        _filter_number,
    ),
    "do_resize": FLAG,
    "do_rescale": FLAG,
    "rescale_factor": real(0, 255, open_low=True, rule="be a number above 0 and at most 255"),
    "do_normalize": FLAG,
    "image_mean": _three(-1000, 1000),
    "image_std": _three(1e-6, 1000),
}
