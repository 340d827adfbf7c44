"""Files that are kept for training: small ones as they are, large ones upright and smaller."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cvt import CvtImageProcessor
from cvt.errors import ImageDecodeError
from cvt.training.pictures.smaller import smaller_picture
from tests.support.inputs.images import encode, gradients


def encoded(width: int, height: int, format: str, **options: Any) -> bytes:
    return encode(gradients(width, height, waves=5), format, **options)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_what_is_small_stays_byte_for_byte(format: str) -> None:
    data = encoded(400, 64, format)
    assert smaller_picture(data, 64) == data


@pytest.mark.parametrize(
    ("format", "kept"), [("JPEG", "JPEG"), ("PNG", "PNG"), ("BMP", "PNG"), ("WEBP", "JPEG")]
)
def test_what_is_large_shrinks_to_its_short_side(format: str, kept: str) -> None:
    found = Image.open(io.BytesIO(smaller_picture(encoded(400, 300, format), 64)))
    assert (found.format, found.size) == (kept, (85, 64))


def test_another_format_becomes_one_that_every_reader_has() -> None:
    data = encoded(40, 30, "BMP")
    found = Image.open(io.BytesIO(smaller_picture(data, 64)))
    assert found.format == "PNG"
    assert np.array_equal(np.asarray(found), np.asarray(Image.open(io.BytesIO(data))))


def test_it_is_upright() -> None:
    exif = Image.Exif()
    exif[274] = 6
    found = Image.open(io.BytesIO(smaller_picture(encoded(400, 300, "JPEG", exif=exif), 64)))
    assert found.size == (64, 85)
    assert 274 not in found.getexif()


def test_the_network_sees_nearly_the_same() -> None:
    processor = CvtImageProcessor(size=32)
    data = encoded(640, 480, "JPEG", quality=95)
    before = processor.pixels_from_bytes(data).pixels.astype(int)
    after = processor.pixels_from_bytes(smaller_picture(data, 64)).pixels
    assert np.abs(before - after).mean() < 2


def test_what_is_broken_says_so() -> None:
    with pytest.raises(ImageDecodeError):
        smaller_picture(encoded(400, 300, "JPEG")[:3000], 64)
