"""Images in whatever form they are at hand, as PIL images or as the bytes of files."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

Layout: TypeAlias = Literal["channels_first", "channels_last"]
ImageInput: TypeAlias = (
    Image.Image | bytes | bytearray | memoryview | BinaryIO | npt.NDArray[Any] | torch.Tensor
)
_NOT_SEVERAL: Final = (str, Mapping, set, frozenset)  # iterable, but no images in order


def holds_floats(given: Any) -> bool:
    """Whether the first image is an array or tensor of floats."""
    while isinstance(given, list | tuple) and given:
        given = given[0]
    if isinstance(given, torch.Tensor):
        return given.is_floating_point()
    return isinstance(given, np.ndarray) and given.dtype.kind == "f"


def each_image(
    given: Any, layout: Layout | None = None, *, floats: bool = False
) -> Iterator[Image.Image | bytes]:
    """One image, or any nesting of lists and batches of them, one after the other.

    Args:
        given: Images as PIL images; files as bytes, or opened in binary mode; arrays or tensors
            with values 0 to 255 as (H, W), (H, W, C) or (C, H, W) for 1 channel (grey), 3 (RGB)
            or 4 (with transparency), or a batch of those.
        layout: Where arrays have their channels. Without it, the axis of length 3, else 4, else 1
            is theirs; if two are, the first one in tensors and the last one in arrays.
        floats: Whether arrays and tensors hold floats from 0 to 1 instead, which are rounded to
            the 256 levels that files have.

    Raises:
        TypeError: something is none of these.
        ValueError: an array has another shape, or other values.
    """
    if isinstance(given, Image.Image):
        yield given
    elif isinstance(given, bytes | bytearray | memoryview):
        yield bytes(given)
    elif hasattr(given, "read"):
        yield _content(given)
    elif (array := _array(given)) is not None:
        first: Layout = "channels_first" if isinstance(given, torch.Tensor) else "channels_last"
        yield from _pictures(array, layout or _layout(array.shape[-3:], first), floats)
    elif isinstance(given, Iterable) and not isinstance(given, _NOT_SEVERAL):
        for item in given:
            yield from each_image(item, layout, floats=floats)
    else:
        raise TypeError(
            "an image is a PIL image, bytes or a uint8 array or tensor, or a file opened in binary "
            f"mode, not {type(given)}"
        )


def _array(given: Any) -> npt.NDArray[Any] | None:
    """An array of numbers; None for anything else, arrays of objects among it."""
    if isinstance(given, torch.Tensor):
        values = given.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()
    array = np.asarray(given) if hasattr(given, "__array__") else None
    return array if array is not None and array.dtype.kind in "biufc" else None


def _content(file: Any) -> bytes:
    content = file.read()
    if not isinstance(content, bytes):
        raise TypeError(f"files of images must be opened in binary mode ('rb'), not {file!r}")
    return content


def _layout(shape: tuple[int, ...], first: Layout) -> Layout:
    """Where the channels are in an image's shape; ``first`` if that is open."""
    if len(shape) == 3:
        for channels in (3, 4, 1):
            if (shape[0] == channels) != (shape[2] == channels):
                return "channels_first" if shape[0] == channels else "channels_last"
            if shape[0] == channels:
                break
    return first


def _pictures(array: npt.NDArray[Any], layout: Layout, floats: bool) -> Iterator[Image.Image]:
    images = array[..., None] if array.ndim == 2 else array
    images = images[None] if images.ndim == 3 else images
    if images.ndim == 4 and array.ndim > 2 and layout == "channels_first":
        images = np.moveaxis(images, 1, -1)
    fits = images.ndim == 4 and images.shape[3] in (1, 3, 4) and 0 not in images.shape[1:]
    levels = _levels(images, floats) if fits else None
    if levels is None:
        raise ValueError(
            "an array or tensor of images must be uint8 of shape (H, W, 3) or (3, H, W), or with 1 "
            "or 4 channels, or a batch of these; or, with do_rescale=False, of floats from 0 to 1; "
            f"not {array.dtype} {array.shape}"
        )
    for image in np.ascontiguousarray(levels):
        yield Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _levels(values: npt.NDArray[Any], floats: bool) -> npt.NDArray[np.uint8] | None:
    """Values from 0 to 255 as uint8; None if they are anything else."""
    kind = values.dtype.kind
    if (kind == "f") != floats or kind not in "biuf":
        return None
    if values.dtype == np.uint8:
        return values
    top = 255 if kind in "iu" else 1
    if values.size and not (values.min() >= 0 and values.max() <= top):
        return None
    levels: npt.NDArray[np.uint8] = np.rint(values * (255 / top)).astype(np.uint8)
    return levels
