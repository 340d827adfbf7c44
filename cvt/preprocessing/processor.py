"""Preprocessing as the reference does it (transformers' ConvNextImageProcessor, PIL backend).

``crop.py`` has the rule for sizes. Resizing and cropping work in uint8; then the values are scaled
and normalised in float32.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from cvt.errors import ConfigError
from cvt.interface.sources import Source, display, open_source
from cvt.preprocessing.crop import Window
from cvt.preprocessing.decode import DEFAULT_MAX_PIXELS, decode_image
from cvt.preprocessing.fast.on_cpu import Decoded, decode_fast, has_filter
from cvt.preprocessing.resample import resize_window
from cvt.preprocessing.rgb import upright_rgb

logger = logging.getLogger(__name__)

CONFIG_NAME = "preprocessor_config.json"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_TYPES = (
    "ConvNextImageProcessor",
    "ConvNextImageProcessorFast",
    "ConvNextImageProcessorPil",
    "ConvNextFeatureExtractor",
)

ImageInput = Image.Image | bytes | npt.NDArray[np.uint8]
DecodeMode = Literal["exact", "fast", "draft"]


@dataclass(frozen=True, kw_only=True)
class CvtImageProcessor:
    """Image in, normalised tensor out. The defaults are those of every published CvT.

    They also replace keys that a preprocessor_config.json lacks, rather than the defaults of
    transformers' class (size 384, mean and standard deviation 0.5): no CvT was trained with those.
    """

    size: int = 224
    """Height and width of the result, S."""
    crop_pct: float = 0.875
    """Share of the resized short side that the crop keeps, in (0, 1]; unused from size 384 on."""
    resample: int = Image.Resampling.BICUBIC
    """Filter in Pillow's numbering, 0 to 5."""
    do_resize: bool = True
    """Resize and crop; otherwise images keep their size."""
    do_rescale: bool = True
    """Multiply by ``rescale_factor``."""
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    """Subtract ``image_mean``, divide by ``image_std``."""
    image_mean: tuple[float, float, float] = IMAGENET_MEAN
    image_std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"size must be 1 or more, got {self.size}")
        if not 0 < self.crop_pct <= 1:
            raise ConfigError(f"crop_pct must lie in (0, 1], got {self.crop_pct}")
        if self.resample not in range(6):
            raise ConfigError(
                f"resample must be one of Pillow's filters 0 to 5, got {self.resample}"
            )
        if len(self.image_mean) != 3 or len(self.image_std) != 3 or 0 in self.image_std:
            raise ConfigError("image_mean and image_std need three values; image_std must not be 0")

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
        config = _read_config(source, revision)
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
        kind = config.get("image_processor_type") or config.get("feature_extractor_type")
        if kind is not None and kind not in _TYPES:
            raise ConfigError(f"{CONFIG_NAME} is for {kind}; CvT needs ConvNextImageProcessor")
        names = {field.name for field in fields(cls)} - {"size"}
        values = {name: config[name] for name in names if config.get(name) is not None}
        for name in ("image_mean", "image_std"):
            if name in values:
                values[name] = _three(values[name])
        if config.get("size") is not None:
            values["size"] = _square(config["size"], "size")
        defaults = {"size", "image_mean", "image_std"} - values.keys()
        if defaults:
            logger.warning(
                "%s says nothing about %s: taking CvT's published values (size 224, ImageNet's "
                "mean and standard deviation)",
                CONFIG_NAME,
                ", ".join(sorted(defaults)),
            )
        try:
            processor = cls(**values)
        except TypeError as error:
            raise ConfigError(f"{CONFIG_NAME}: {error}") from error
        if config.get("do_center_crop") and config.get("crop_size") is not None:
            crop = _square(config["crop_size"], "crop_size")
            if crop != processor.size:
                raise ConfigError(f"crop_size {crop} differs from size {processor.size}")
        return processor

    def to_dict(self) -> dict[str, Any]:
        """The content of a preprocessor_config.json, which transformers reads as well."""
        values = asdict(self) | {
            "image_processor_type": _TYPES[0],
            "size": {"shortest_edge": self.size},
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "resample": int(self.resample),
        }
        return dict(sorted(values.items()))

    def save_pretrained(self, directory: str | Path) -> None:
        """Write preprocessor_config.json into ``directory``, which is created if needed."""
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        (path / CONFIG_NAME).write_text(json.dumps(self.to_dict(), indent=2) + "\n")

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

    def __call__(self, images: ImageInput | Sequence[ImageInput]) -> torch.Tensor:
        """Preprocess one image or a list of them: float32 (B, 3, S, S).

        An image is a PIL image, the bytes of a file, or a uint8 array (H, W, 3) in RGB order.

        Raises:
            ImageDecodeError: bytes cannot be decoded.
            TypeError, ValueError: an input is of another type or shape.
        """
        if isinstance(images, Image.Image | bytes | np.ndarray):
            images = [images]
        pixels = np.stack([self.pixels(_to_image(image)) for image in images])
        return self.normalize(pixels).contiguous()


def size_mismatch(size: int, config: Mapping[str, Any], name: str = "") -> str | None:
    """One line that says that preprocessing's size is not the checkpoint's; None if they agree.

    The checkpoint's is ``image_size`` in its config.json, as in older files, or in its name, such
    as microsoft/cvt-13-384-22k.
    """
    told = config.get("image_size")
    origin = "its config.json says"
    if told is None:
        match = re.search(r"(?<![0-9])(224|384)(?![0-9])", name.rstrip("/").rsplit("/", 1)[-1])
        if match is None:
            return None
        told, origin = int(match[1]), f"its name, {name}, says"
    if told == size:
        return None
    return f"images are resized to {size}, but the checkpoint is for {told} ({origin} so): set size"


def _to_image(image: ImageInput) -> Image.Image:
    if isinstance(image, bytes):
        return decode_image(image)
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, np.ndarray):
        raise TypeError(f"an image is a PIL image, bytes or a uint8 array, not {type(image)}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"an array must be uint8 of shape (H, W, 3), got {image.dtype} {image.shape}"
        )
    return Image.fromarray(image)


def _three(value: float | Sequence[float]) -> tuple[float, ...]:
    return (value,) * 3 if isinstance(value, int | float) else tuple(value)


def _square(size: Any, name: str) -> int:
    """The one number in any spelling of a square size."""
    if isinstance(size, Mapping):
        known = set(size) in ({"shortest_edge"}, {"height", "width"})
        numbers = list(size.values()) if known else []
    else:
        numbers = list(size) if isinstance(size, list | tuple) else [size]
    if len(set(numbers)) != 1 or not isinstance(numbers[0], int):
        raise ConfigError(f"{CONFIG_NAME}: {name} {size} is not one number for a square image")
    return numbers[0]


def _read_config(source: Source, revision: str | None) -> dict[str, Any] | None:
    """The preprocessor_config.json that belongs to ``source``; None if there is none."""
    with open_source(source, revision) as (fetch, name):
        is_itself = name is not None and name.endswith(".json") and name != "config.json"
        path = fetch(name if is_itself and name else CONFIG_NAME)
        if path is None and is_itself:
            raise ConfigError(f"{display(source)}: no such file")
        text = None if path is None else path.read_bytes()
    try:
        config = None if text is None else json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{display(source)}: {CONFIG_NAME} is not JSON: {error}") from error
    if not isinstance(config, dict | None):
        raise ConfigError(f"{display(source)}: {CONFIG_NAME} is not a JSON object")
    return config
