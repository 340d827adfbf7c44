"""Images in every form that a notebook has them in are the same image to the processor."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cvt import CvtImageProcessor
from cvt.errors import EmptyFileError

PROCESSOR = CvtImageProcessor(size=32)
RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
GREY = RGB[..., 0]
ALPHA = np.dstack([RGB, GREY])
EXPECTED = PROCESSOR(Image.fromarray(RGB))


def file(mode: str = "rb") -> io.IOBase:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG")
    buffer.seek(0)
    return buffer if mode == "rb" else io.StringIO("text")


def first(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.moveaxis(array, -1, 0)


@pytest.mark.parametrize(
    "given",
    [
        RGB,
        first(RGB),
        RGB[None],
        first(RGB)[None],
        RGB.astype(np.int64),
        first(RGB).astype(np.int32),
        RGB[:, ::-1][:, ::-1],
        torch.tensor(RGB),
        torch.tensor(first(RGB)),
        torch.tensor(first(RGB))[None],
        torch.tensor(RGB).permute(2, 0, 1),
        torch.tensor(RGB, dtype=torch.int64),
        [torch.tensor(first(RGB))],
        [[RGB]],
        (Image.fromarray(RGB),),
        (Image.fromarray(RGB) for _ in range(1)),
        np.array([file().read()], dtype=object),
        file().read(),
        bytearray(file().read()),
        memoryview(file().read()),
        [file().read()],
        file(),
        [file()],
    ],
    ids=lambda given: f"{type(given).__name__} {tuple(getattr(given, 'shape', ()))}",
)
def test_every_layout_and_kind_is_the_same_image(given: Any) -> None:
    assert torch.equal(PROCESSOR(given), EXPECTED)


@pytest.mark.parametrize(
    "given", [GREY, GREY[..., None], GREY[None], torch.tensor(GREY), torch.tensor(GREY)[None]]
)
def test_grey(given: Any) -> None:
    assert torch.equal(PROCESSOR(given), PROCESSOR(Image.fromarray(GREY)))


@pytest.mark.parametrize("given", [ALPHA, first(ALPHA), torch.tensor(first(ALPHA))[None]])
def test_transparency(given: Any) -> None:
    assert torch.equal(PROCESSOR(given), PROCESSOR(Image.fromarray(ALPHA)))


def test_truth_values_are_black_and_white() -> None:
    mask = GREY > 128
    assert torch.equal(PROCESSOR(mask), PROCESSOR(Image.fromarray(mask)))


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_batches_and_lists_of_them_come_in_order(kind: Callable[..., Any]) -> None:
    images = [np.roll(RGB, step, axis=0) for step in range(4)]
    expected = PROCESSOR([Image.fromarray(image) for image in images])
    batch = np.stack(images)
    assert torch.equal(PROCESSOR(kind(batch)), expected)
    assert torch.equal(PROCESSOR(kind(np.moveaxis(batch, -1, 1))), expected)
    assert torch.equal(PROCESSOR([kind(batch[:3]), kind(images[3])]), expected)


def test_a_shape_that_leaves_the_channels_open() -> None:
    """Tensors have them first, arrays last, unless ``input_data_format`` says otherwise."""
    image = RGB[:3, :3]
    expected, turned = (
        PROCESSOR(Image.fromarray(np.ascontiguousarray(pixels)))
        for pixels in (image, np.moveaxis(image, 0, -1))
    )
    assert torch.equal(PROCESSOR(image), expected)
    assert torch.equal(PROCESSOR(torch.tensor(image)), turned)
    assert torch.equal(PROCESSOR(image, input_data_format="channels_first"), turned)
    assert torch.equal(PROCESSOR(torch.tensor(image), input_data_format="channels_last"), expected)


def test_floats_say_that_they_are_scaled_already() -> None:
    """As torchvision makes them; transformers scales them twice without ``do_rescale=False``."""
    floats = torch.tensor(first(RGB)).float() / 255
    for given in (floats, floats.double(), floats.numpy(), [floats], floats[None]):
        assert torch.equal(PROCESSOR(given, do_rescale=False), EXPECTED)
        with pytest.raises(ValueError, match="do_rescale=False, of floats from 0 to 1"):
            PROCESSOR(given)
    for wrong in (floats * 255, floats - 0.5, floats * torch.nan):
        with pytest.raises(ValueError, match="of floats from 0 to 1; not float32"):
            PROCESSOR(wrong, do_rescale=False)
    with pytest.raises(ValueError, match="must be uint8"):
        PROCESSOR([floats, torch.tensor(RGB)], do_rescale=False)


def test_no_images_are_an_empty_batch() -> None:
    nothing: list[Any] = [[], (), np.empty((0, 40, 50, 3), np.uint8), [[]]]
    for given in nothing:
        assert PROCESSOR(given).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    "shape", [(4,), (5, 40, 50), (40, 50, 2), (1, 2, 3, 40, 50), (0, 50, 3), (40, 0, 3)]
)
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    for given in (np.zeros(shape, np.uint8), torch.zeros(shape, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="must be uint8 of shape"):
            PROCESSOR(given)


@pytest.mark.parametrize(
    "values", [np.full((4, 4, 3), 256), np.full((4, 4, 3), -1), np.zeros((4, 4, 3), complex)]
)
def test_other_values_are_refused(values: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ValueError, match="must be uint8 of shape"):
        PROCESSOR(values)


@pytest.mark.parametrize(
    "given", ["photo.jpg", ["photo.jpg"], None, 3, {"image": RGB}, {1, 2}, [[1, 2], [3, 4]]]
)
def test_what_is_no_image_is_refused_by_its_type(given: Any) -> None:
    with pytest.raises(TypeError, match="PIL image, bytes or a uint8 array"):
        PROCESSOR(given)


def test_files_in_text_mode_or_at_their_end_are_named() -> None:
    with pytest.raises(TypeError, match="binary mode"):
        PROCESSOR(file("r"))
    read = file()
    read.read()
    with pytest.raises(EmptyFileError):
        PROCESSOR(read)
