"""What a GPU does to a JPEG file's pixels, on tensors of the CPU, with Pillow as its decoder."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cvt.errors import CorruptImageError, TooManyPixelsError, UnsupportedFormatError
from cvt.preprocessing.decode import DEFAULT_MAX_PIXELS
from cvt.preprocessing.fast.on_device import JpegHeader, read_header, resize
from cvt.preprocessing.processor import CvtImageProcessor
from tests.support.inputs.images import encode, noise

PROCESSOR = CvtImageProcessor(size=64)


def stored(data: bytes) -> torch.Tensor:
    """The pixels (3, H, W) as they are in the file, as the decoder of a card gives them."""
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def header(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> JpegHeader | None:
    return read_header(data, PROCESSOR.window, max_pixels=max_pixels)


@pytest.mark.parametrize("size", [32, 224, 384])
@pytest.mark.parametrize("resample", [2, 3])
def test_resizing_is_pillows(size: int, resample: int) -> None:
    """Noise in black and white is the worst there is: between the passes it clips everywhere."""
    processor = CvtImageProcessor(size=size, resample=resample)
    random = np.random.default_rng(size + resample)
    differing = []
    for turn in range(1, 9):
        width, height = np.exp(random.uniform(3, 6.4, 2)).astype(int).tolist()
        pixels = random.choice(np.array([0, 255], np.uint8), (height, width, 3))
        data = encode(Image.fromarray(pixels), "JPEG", quality=95, exif=turned(turn))
        exact = processor.pixels_from_bytes(data)
        found = resize(stored(data), processor.window, resample, turn).numpy()
        assert found.shape == (size, size, 3)
        assert found.dtype == np.uint8
        difference = np.abs(found.astype(np.int16) - exact.pixels)
        assert difference.max() <= 1, (width, height, turn)
        differing.append((difference > 0).mean())
    assert np.mean(differing) < 0.01


def test_the_header_says_how_the_image_stands() -> None:
    data = encode(noise(60, 40), "JPEG", exif=turned(6))
    assert header(data) == JpegHeader(40, 60, 6)
    assert header(encode(noise(60, 40), "JPEG")) == JpegHeader(60, 40, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:2:0"},
        {"progressive": True},
        {"optimize": True, "restart_marker_rows": 1},
    ],
    ids=str,
)
def test_usual_files_are_for_the_card(options: dict[str, Any]) -> None:
    assert header(encode(noise(), "JPEG", **options)) is not None
    assert header(encode(noise().convert("L"), "JPEG")) is not None


def with_adobe(transform: int) -> bytes:
    data = encode(noise(), "JPEG")
    segment = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    return data[:20] + segment + data[20:]  # behind the segment of JFIF


@pytest.mark.parametrize(
    "data",
    [
        encode(noise(), "PNG"),
        encode(noise(), "WEBP"),
        encode(noise().convert("CMYK"), "JPEG"),
        encode(noise(), "JPEG", keep_rgb=True),
        encode(noise(), "JPEG")[:-2],
        encode(noise(), "JPEG").replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc9\x00\x11\x08"),
        encode(noise(), "JPEG").replace(b"\x01\x22\x00\x02\x11", b"\x01\x41\x00\x02\x11"),
        with_adobe(0),
        with_adobe(2),
        encode(noise(4000, 3), "JPEG"),
    ],
    ids=[
        "PNG", "WebP", "inks", "RGB", "no end", "arithmetic", "sampling of 4 to 1",
        "RGB by Adobe", "YCCK by Adobe", "a strip",
    ],
)  # fmt: skip
def test_anything_else_is_for_the_cpu(data: bytes) -> None:
    assert header(data) is None


def test_a_marker_of_adobes_may_say_what_is_usual() -> None:
    assert header(with_adobe(1)) == JpegHeader(40, 50, 1)


def test_the_header_is_checked_as_ever() -> None:
    data = encode(noise(), "JPEG")
    with pytest.raises(TooManyPixelsError):
        header(data, max_pixels=1999)
    with pytest.raises(CorruptImageError):
        header(data[:4] + b"\xff\xd9")
    scans = encode(noise(), "JPEG", progressive=True)
    start = scans.index(b"\xff\xda")
    with pytest.raises(UnsupportedFormatError, match="scans"):
        header(scans[:-2] + scans[start:-2] * 2000 + b"\xff\xd9", max_pixels=2000)
