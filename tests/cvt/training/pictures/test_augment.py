"""Views of images: what is cut out, that it is the same for everybody, and never another part."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cvt import CvtImageProcessor
from cvt.training.pictures.augment import SMALLEST, pixels_of, random_window, view
from tests.support.inputs.images import encode, gradients

PROCESSOR = CvtImageProcessor(size=32)


def encoded(width: int, height: int, orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return encode(gradients(width, height), "JPEG", exif=exif, quality=95, **options)


@pytest.mark.parametrize("size", [(500, 375), (33, 900), (32, 32), (7, 5), (4000, 3)])
@pytest.mark.parametrize("augment", ["light", "strong"])
def test_a_crop_is_a_square_within_the_image(size: tuple[int, int], augment: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        window = random_window(*size, 32, SMALLEST[augment], rng.random((10, 4)))
        left, top, right, bottom = window.box
        assert right - left == bottom - top == 32
        assert 0 <= left <= right <= window.size[0]
        assert 0 <= top <= bottom <= window.size[1]


def test_crops_have_the_areas_and_shapes_that_were_asked_for() -> None:
    rng = np.random.default_rng(0)
    areas, shapes, corners = [], [], set()
    for _ in range(500):
        window = random_window(800, 600, 64, 0.6, rng.random((10, 4)))
        across, down = 64 / window.size[0], 64 / window.size[1]
        areas.append(across * down)
        shapes.append((800 * across) / (600 * down))
        corners.add(window.box[:2])
    assert 0.59 < min(areas) < 0.63
    assert max(areas) <= 1
    assert 0.73 < min(shapes) < max(shapes) < 1.36
    assert len(corners) > 200


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_view_is_a_crop_of_pillows_upright_resize(orientation: int) -> None:
    """Resized by Pillow to the same size, turned upright before, cut and mirrored after."""
    data = encoded(160, 120, orientation)
    upright = Image.open(io.BytesIO(data)).convert("RGB")
    if orientation == 6:
        upright = upright.transpose(Image.Transpose.ROTATE_270)
    for number in range(8):
        seen = view(PROCESSOR, "light", 1, 2, number)
        window = seen.window(*upright.size)
        expected = upright.resize(window.size, Image.Resampling.BICUBIC).crop(window.box)
        if seen.is_mirrored:
            expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        found = pixels_of(data, seen, PROCESSOR)
        assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 2


def test_without_augmentation_it_is_what_inference_sees() -> None:
    data = encoded(160, 120, 8)
    seen = view(PROCESSOR, "none", 0, 3, 1)
    expected = PROCESSOR.pixels_from_bytes(data, mode="fast").pixels
    assert np.array_equal(pixels_of(data, seen, PROCESSOR), expected)


def test_a_filter_that_only_pillow_has() -> None:
    processor = CvtImageProcessor(size=32, resample=Image.Resampling.LANCZOS)
    data = encoded(160, 120)
    seen = view(processor, "none", 0, 0, 0)
    expected = processor.pixels_from_bytes(data).pixels
    assert np.array_equal(pixels_of(data, seen, processor), expected)


def test_seed_epoch_and_number_decide_alone() -> None:
    data = encoded(160, 120)

    def seen(seed: int, epoch: int, number: int) -> bytes:
        return pixels_of(data, view(PROCESSOR, "light", seed, epoch, number), PROCESSOR).tobytes()

    assert seen(1, 2, 3) == seen(1, 2, 3)
    assert len({seen(1, 2, 3), seen(2, 2, 3), seen(1, 3, 3), seen(1, 2, 4), seen(1, 3, 2)}) == 5


def test_half_of_them_are_mirrored() -> None:
    mirrored = sum(view(PROCESSOR, "light", 0, 0, number).is_mirrored for number in range(400))
    assert 160 < mirrored < 240
