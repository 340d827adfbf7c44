"""Every kind of pixel becomes RGB that looks as a person would expect."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from cvt.preprocessing.rgb import upright_rgb
from tests.support.inputs.images import encode
from tests.support.inputs.pixels import BLUE, GREEN, RAMP, RED, WHITE, decoded, grey


def test_grey() -> None:
    assert np.array_equal(grey(encode(Image.fromarray(RAMP), "PNG")), RAMP)


def test_one_bit() -> None:
    image = Image.fromarray(RAMP > 99)
    assert np.array_equal(grey(encode(image, "PNG")), np.where(RAMP > 99, 255, 0))


@pytest.mark.parametrize("factor", [256, 257])
def test_16_bit_grey(factor: int) -> None:
    """Whether white was stored as 255 * 256 or as 65535."""
    wide = Image.fromarray(RAMP.astype(np.uint16) * np.uint16(factor))
    assert wide.mode == "I;16"
    for name in ("PNG", "TIFF", "JPEG2000"):
        options = {"irreversible": False} if name == "JPEG2000" else {}
        assert np.array_equal(grey(encode(wide, name, **options)), RAMP), name


def test_16_bit_grey_in_other_guises() -> None:
    values = RAMP.astype(np.uint16) * np.uint16(257)
    big_endian = encode(Image.fromarray(values.astype(">u2")), "TIFF")
    assert Image.open(io.BytesIO(big_endian)).mode == "I;16B"
    portable = b"P5 16 16 65535\n" + values.astype(">u2").tobytes()
    assert Image.open(io.BytesIO(portable)).mode == "I"
    for data in (big_endian, portable):
        assert np.array_equal(grey(data), RAMP)


def test_dark_16_bit_grey_stays_dark() -> None:
    """Its range is known, so it is not stretched."""
    dark = np.full((4, 4), 255, np.uint16)
    portable = b"P5 4 4 65535\n" + dark.astype(">u2").tobytes()
    for data in (encode(Image.fromarray(dark), "PNG"), portable):
        assert not grey(data).any()


def tiff(values: npt.NDArray[Any], bits: int, photometric: int) -> bytes:
    """An uncompressed grey TIFF, little-endian, of any depth."""
    pixels = values.tobytes()
    height, width = values.shape[0], values.shape[1] * values.itemsize * 8 // bits
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric}
    tags |= {273: 8, 277: 1, 278: height, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\x00" + struct.pack("<I", 8 + len(pixels)) + pixels + directory


def test_12_bit_grey() -> None:
    white_black = np.array([[0xFF, 0xF0, 0x00]], np.uint8)  # 4095, 0 in three bytes
    assert grey(tiff(white_black, 12, photometric=1)).tolist() == [[255, 0]]


def test_grey_whose_white_is_zero() -> None:
    values = RAMP.astype("<u2") * np.uint16(257)
    assert np.array_equal(grey(tiff(values, 16, photometric=0)), 255 - RAMP)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 256, 65535], [0, 1, 255]),
        ([-100, 20, 100], [0, 153, 255]),
        ([0, 1_000_000, 2_000_000], [0, 128, 255]),
        ([70_000, 70_000, 70_000], [0, 0, 0]),
    ],
)
def test_32_bit_integers(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.int32))
    assert image.mode == "I"
    assert grey(encode(image, "TIFF")).tolist() == [expected]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.4, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 3.0], [0, 64, 255]),
        ([0.0, 1.0, float("nan")], [0, 255, 0]),
        ([-2.0, 2.0, float("inf")], [0, 255, 0]),
        ([300.0, 300.0, 300.0], [0, 0, 0]),
        ([float("nan")] * 3, [0, 0, 0]),
    ],
)
def test_floats(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    assert image.mode == "F"
    assert grey(encode(image, "TIFF")).tolist() == [expected]


def test_grey_in_strips_is_grey_in_one_piece() -> None:
    values = np.random.default_rng(0).integers(0, 1 << 16, (600, 3)).astype(np.uint16)
    assert np.array_equal(grey(encode(Image.fromarray(values), "PNG")), values >> 8)


TRANSLUCENT = (255, 0, 0, 128)  # over white: 255, 127, 127


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "AVIF", "TGA", "ICO"])
def test_transparency_lies_on_white(name: str) -> None:
    image = Image.new("RGBA", (32, 16), TRANSLUCENT)
    image.paste((0, 0, 0, 0), (0, 0, 16, 16))
    options = (
        {"lossless": True} if name == "WEBP" else {"sizes": [(32, 16)]} if name == "ICO" else {}
    )
    pixels = decoded(encode(image, name, **options)).astype(int)
    assert np.abs(pixels[8, 4] - WHITE).max() <= 2
    assert np.abs(pixels[8, 28] - (255, 127, 127)).max() <= 2


def test_transparent_grey() -> None:
    image = Image.new("LA", (2, 1), (0, 0))
    image.putpixel((1, 0), (100, 255))
    assert grey(encode(image, "PNG")).tolist() == [[255, 100]]


def test_transparent_palette() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    by_index = encode(image, "PNG", transparency=1)
    by_alpha = encode(image, "PNG", transparency=bytes([255, 0, 128]))
    gif = encode(image, "GIF", transparency=1)
    assert (
        decoded(by_index).tolist()
        == decoded(gif).tolist()
        == [[list(RED), list(WHITE), list(BLUE)]]
    )
    assert decoded(by_alpha).tolist() == [[list(RED), list(WHITE), [127, 127, 255]]]


def test_transparent_colour_key() -> None:
    colour = Image.new("RGB", (2, 1), RED)
    colour.putpixel((1, 0), BLUE)
    assert decoded(encode(colour, "PNG", transparency=RED)).tolist() == [[list(WHITE), list(BLUE)]]
    shade = Image.fromarray(np.array([[7, 9]], np.uint8))
    assert grey(encode(shade, "PNG", transparency=7)).tolist() == [[255, 9]]


@pytest.mark.parametrize("mode", ["PA", "La", "RGBa", "RGBX"])
def test_modes_that_only_pillow_knows(mode: str) -> None:
    source = {"PA": "P", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB"}[mode]
    image = Image.new("RGB", (2, 2), (102, 102, 102)).convert(source).convert(mode)
    assert np.asarray(upright_rgb(image)).tolist() == [[[102] * 3] * 2] * 2


def test_cmyk() -> None:
    """As a TIFF, and as the JPEG that Adobe's programs write, with its values inverted."""
    image = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    jpeg = encode(image, "JPEG", quality=95)
    assert b"Adobe" in jpeg
    for data in (jpeg, encode(image, "TIFF")):
        assert np.abs(decoded(data).astype(int) - RED).max() <= 3


def test_other_colour_spaces() -> None:
    colours = Image.fromarray(
        np.array([[(60, 90, 120), (200, 120, 30), (30, 160, 90), (128,) * 3]], np.uint8)
    )
    lab = ImageCms.createProfile("LAB")
    srgb = ImageCms.createProfile("sRGB")
    to_lab = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
    in_lab = ImageCms.applyTransform(colours, to_lab)
    assert in_lab is not None
    images = {"YCbCr": colours.convert("YCbCr"), "HSV": colours.convert("HSV"), "LAB": in_lab}
    for mode, image in images.items():
        pixels = np.asarray(upright_rgb(image), np.int16)
        assert np.abs(pixels - np.asarray(colours)).max() <= 8, mode
    assert np.abs(decoded(encode(in_lab, "TIFF")).astype(int) - np.asarray(colours)).max() <= 8


def test_colour_profiles_are_ignored() -> None:
    image = Image.fromarray(np.array([[RED, (10, 20, 30)]], np.uint8))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (lab, b"no profile at all"):
        data = encode(image, "PNG", icc_profile=profile)
        assert np.array_equal(decoded(data), np.asarray(image))


def test_images_from_other_places_convert_too(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(RAMP).save(path)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(upright_rgb(image))[..., 0], RAMP)
