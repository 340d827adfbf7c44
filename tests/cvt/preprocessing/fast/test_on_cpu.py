"""pixels_from_bytes: the exact mode is exact, the others stay within their bounds of it."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
import torch
from PIL import Image
from torch.nn.functional import interpolate

from cvt.errors import ImageDecodeError
from cvt.preprocessing.decode import decode_image
from cvt.preprocessing.processor import CvtImageProcessor, DecodeMode


def encode(image: Image.Image, name: str, orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    buffer = io.BytesIO()
    image.save(buffer, name, exif=exif, **options)
    return buffer.getvalue()


def cloud(width: int, height: int, seed: int = 0) -> Image.Image:
    """Detail of every size, the finer the weaker, as in photographs."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 11):
        noise = random.integers(0, 256, (2**octave, 2**octave, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        total += (np.asarray(layer, np.float32) - 127.5) * 0.6**octave
    return Image.fromarray((127.5 + total).clip(0, 255).astype(np.uint8))


def difference(
    processor: CvtImageProcessor, data: bytes, mode: DecodeMode
) -> npt.NDArray[np.int16]:
    """Absolute difference from the exact pixels, once everything else agrees."""
    exact = processor.pixels_from_bytes(data)
    other = processor.pixels_from_bytes(data, mode=mode)
    assert (other.width, other.height) == (exact.width, exact.height)
    assert other.pixels.dtype == np.uint8
    assert other.pixels.shape == (processor.size, processor.size, 3)
    assert other.pixels.flags.c_contiguous
    values: npt.NDArray[np.int16] = np.abs(other.pixels.astype(np.int16) - exact.pixels)
    return values


def test_exact_is_decoding_then_pixels() -> None:
    processor = CvtImageProcessor(size=64)
    data = encode(cloud(90, 50), "JPEG", orientation=6)
    pixels, width, height = processor.pixels_from_bytes(data)
    assert (width, height) == (50, 90)
    assert np.array_equal(pixels, processor.pixels(decode_image(data)))


@pytest.mark.parametrize("size", [32, 224, 384])
@pytest.mark.parametrize("resample", [2, 3])
def test_fast_is_within_two_grey_levels_on_any_image(size: int, resample: int) -> None:
    """Noise in black and white is the worst there is: between the passes it clips everywhere."""
    processor = CvtImageProcessor(size=size, resample=resample)
    random = np.random.default_rng(size + resample)
    differing = []
    for i in range(24):
        width, height = np.exp(random.uniform(0, 6.6, 2)).astype(int).tolist()
        levels = np.array([0, 255], np.uint8) if i % 3 else np.arange(256, dtype=np.uint8)
        image = Image.fromarray(random.choice(levels, (height, width, 3)))
        data = encode(image, "PNG", orientation=1 + i % 8, compress_level=1)
        values = difference(processor, data, "fast")
        assert values.max() <= 2, (width, height, 1 + i % 8)
        differing.append((values > 0).mean())
    assert np.mean(differing) < 0.02


def of_transformers_fast_backend(data: bytes, size: int) -> npt.NDArray[np.uint8]:
    """What ConvNextImageProcessor's torchvision backend computes, in the order of its source:
    Pillow decodes, torchvision resizes by this one call, then the centre is cut out."""
    stored = torch.from_numpy(np.array(decode_image(data)))
    height, width = stored.shape[:2]
    short = int(size / 0.875)
    scaled = [int(short * side / min(height, width)) for side in (height, width)]
    planes = stored.permute(2, 0, 1).contiguous()[None]
    resized = interpolate(planes, size=scaled, mode="bicubic", antialias=True)
    top, left = ((side - size) // 2 for side in scaled)
    pixels: npt.NDArray[np.uint8] = resized[0].permute(1, 2, 0).numpy()
    return pixels[top : top + size, left : left + size]


def test_fast_is_no_further_off_than_transformers_own_fast_backend() -> None:
    """Which torch's kernel stands in for, as torchvision calls it and is not installed."""
    processor = CvtImageProcessor()
    ours, theirs = [], []
    for seed, shape in enumerate([(500, 375), (375, 500), (640, 480), (1024, 768), (300, 1200)]):
        data = encode(cloud(*shape, seed), "JPEG", quality=92)
        exact = processor.pixels_from_bytes(data, mode="exact").pixels.astype(np.int16)
        ours.append(difference(processor, data, "fast"))
        theirs.append(np.abs(of_transformers_fast_backend(data, 224) - exact))
    assert 0 < np.max(ours) <= np.max(theirs)
    assert np.mean(ours) <= np.mean(theirs)


JPEGS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("RGB", {}),
    "progressive": ("RGB", {"progressive": True}),
    "4:4:4": ("RGB", {"subsampling": 0}),
    "rgb": ("RGB", {"keep_rgb": True}),
    "grey": ("L", {}),
    "cmyk": ("CMYK", {}),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_fast_decodes_every_jpeg(kind: str) -> None:
    mode, options = JPEGS[kind]
    processor = CvtImageProcessor()
    for orientation in (1, 3, 6):
        image = cloud(500, 375).convert(mode)
        data = encode(image, "JPEG", orientation, quality=95, **options)
        assert difference(processor, data, "fast").max() <= 2


def test_fast_decodes_other_formats() -> None:
    image = cloud(300, 200)
    images = {"PNG": image.convert("RGBA"), "WEBP": image, "TIFF": image, "GIF": image.convert("P")}
    for name, source in images.items():
        orientation = 1 if name == "GIF" else 8
        data = encode(source, name, orientation) if name != "GIF" else gif(source)
        assert difference(CvtImageProcessor(), data, "fast").max() <= 2, name


def gif(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "GIF")
    return buffer.getvalue()


def test_errors_are_the_same() -> None:
    data = encode(cloud(200, 150), "JPEG", quality=95)
    tables = data.index(b"\xff\xdb")
    broken = {
        "empty_file": b"",
        "not_an_image": b"no image",
        "truncated": data[: len(data) // 2],
        "corrupt": data[: tables + 4] + bytes(200) + data[tables + 204 :],
        "too_many_pixels": data,
    }
    modes: tuple[DecodeMode, ...] = ("exact", "fast", "draft")
    for code, case in broken.items():
        for mode in modes:
            limit = 1000 if case is data else 10**6
            with pytest.raises(ImageDecodeError) as caught:
                CvtImageProcessor().pixels_from_bytes(case, mode=mode, max_pixels=limit)
            assert caught.value.code == code, mode


def test_what_pillow_forgives_is_forgiven() -> None:
    """Bytes between two segments, at which libjpeg warns and simplejpeg refuses."""
    data = encode(cloud(200, 150), "JPEG", quality=95)
    tables = data.index(b"\xff\xdb")
    odd = data[:tables] + b"\x00\x00\x00" + data[tables:]
    assert difference(CvtImageProcessor(), odd, "fast").max() <= 2


@pytest.mark.parametrize("orientation", [1, 2, 5, 8])
def test_strips_are_exact(orientation: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 4000, 3), dtype=np.uint8)
    for image in (Image.fromarray(noise), Image.fromarray(noise.swapaxes(0, 1))):
        data = encode(image, "JPEG", orientation, quality=95)
        assert difference(CvtImageProcessor(), data, "fast").max() == 0


@pytest.mark.parametrize(
    "options", [{"resample": 0}, {"resample": 1}, {"do_resize": False}], ids=str
)
def test_what_pytorch_lacks_is_exact(options: dict[str, Any]) -> None:
    processor = CvtImageProcessor(size=64, **options)
    data = encode(cloud(64, 64), "JPEG")
    assert difference(processor, data, "fast").max() == 0


def test_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos come in at half their size, if that is large and even enough."""
    shapes = []
    decode_jpeg = simplejpeg.decode_jpeg

    def decode(data: bytes, **options: Any) -> npt.NDArray[np.uint8]:
        pixels: npt.NDArray[np.uint8] = decode_jpeg(data, **options)
        shapes.append(pixels.shape[:2])
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode)
    processor = CvtImageProcessor(size=64)
    photo = cloud(1000, 760)
    assert difference(processor, encode(photo, "JPEG", 6, quality=92), "draft").max() <= 2
    difference(processor, encode(photo.crop((0, 0, 999, 760)), "JPEG"), "draft")  # an odd width
    difference(
        processor, encode(photo.crop((0, 0, 1000, 720)), "JPEG"), "draft"
    )  # 720 < 2 * 5 * 73
    difference(processor, encode(photo.resize((3000, 2280)), "JPEG"), "draft")
    assert shapes == [(380, 500), (760, 999), (720, 1000), (570, 750)]
