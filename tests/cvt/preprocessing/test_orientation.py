"""decode_image: images are turned upright, and of several frames the first one counts."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cvt.preprocessing.decode import decode_image
from cvt.preprocessing.rgb import upright_rgb
from tests.support.inputs.images import encode
from tests.support.inputs.pixels import BLUE, RED, decoded

# What the eight orientations mean (EXIF 2.3, tag 274): how the stored rows and columns are shown.
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
PICTURE = (
    np.random.default_rng(0).integers(0, 256, (5, 3, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
)


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_exif_orientation(name: str, orientation: int) -> None:
    best: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": "4:4:4"},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    data = encode(
        Image.fromarray(PICTURE), name, exif=with_orientation(orientation), **best.get(name, {})
    )
    shown = SHOWN[orientation](PICTURE)
    pixels = decoded(data)
    assert pixels.shape == shown.shape
    tolerance = 3 if name in ("JPEG", "AVIF") else 0
    assert np.abs(pixels.astype(int) - shown).max() <= tolerance


def test_orientation_is_applied_once() -> None:
    data = encode(Image.fromarray(PICTURE), "PNG", exif=with_orientation(6))
    upright = decode_image(data)
    again = upright_rgb(upright)
    at_once = upright_rgb(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(again), SHOWN[6](PICTURE))
    assert np.array_equal(np.asarray(at_once), SHOWN[6](PICTURE))


def test_orientation_in_xmp() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x xmlns:tiff="t" tiff:Orientation="3"/>')
    data = encode(Image.fromarray(PICTURE), "PNG", pnginfo=text)
    assert np.array_equal(decoded(data), SHOWN[3](PICTURE))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\x00\x00",
        b"Exif\x00\x00garbage, no byte order here",
        b"Exif\x00\x00II*\x00\xff\xff\xff\xff",
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x02\x00\x00\x00\x05\x00\x00\x00\x40",
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x63\x00\x00",
    ],
)
def test_broken_exif_counts_as_none(exif: bytes) -> None:
    plain = encode(Image.fromarray(PICTURE), "JPEG", quality=100)
    broken = encode(Image.fromarray(PICTURE), "JPEG", quality=100, exif=exif)
    assert np.array_equal(decoded(broken), decoded(plain))


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_of_many(name: str) -> None:
    red, blue = Image.new("RGB", (32, 32), RED), Image.new("RGB", (32, 32), BLUE)
    data = encode(red, name, save_all=True, append_images=[blue])
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 2
    assert np.abs(decoded(data).astype(int) - RED).max() <= 6
