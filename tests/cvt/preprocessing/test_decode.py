"""decode_image: what it accepts, and the kind of its refusal for everything else."""

import io
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cvt.errors import ImageDecodeError
from cvt.preprocessing.decode import decode_image

FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95},
    "JPEG progressive": {"progressive": True},
    "PNG": {},
    "WEBP": {},
    "WEBP lossless": {"lossless": True},
    "AVIF": {},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "TIFF jpeg": {"compression": "jpeg"},
    "JPEG2000": {},
    "PPM": {},
    "TGA": {},
    "ICO": {"sizes": [(128, 96)]},
    "QOI": {},
    "DDS": {},
    "PCX": {},
    "SGI": {},
}
SIGNED = [name for name in FORMATS if name != "TGA"]  # the others start with a signature


def encode(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name.split()[0], **FORMATS.get(name, {}) | options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Smooth enough that lossy formats keep it."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((128, 96), Image.Resampling.BICUBIC)
    return image.filter(ImageFilter.GaussianBlur(2))


@pytest.fixture(scope="module")
def files(photo: Image.Image) -> dict[str, bytes]:
    return {name: encode(photo, name) for name in FORMATS}


def code_of(data: bytes, **options: int) -> str:
    """The error's code, or "ok"; anything but an ImageDecodeError fails the test."""
    try:
        decode_image(data, **options)
    except ImageDecodeError as error:
        code, message = error.code, str(error)
    else:
        return "ok"
    assert message.isprintable()
    assert 5 < len(message) < 400
    return code


@pytest.mark.parametrize("name", FORMATS)
def test_decodes(name: str, photo: Image.Image, files: dict[str, bytes]) -> None:
    image = decode_image(files[name])
    assert (image.mode, image.size) == ("RGB", photo.size)
    difference = np.asarray(image, np.int16) - np.asarray(photo)
    assert np.abs(difference).mean() < (8 if name == "GIF" else 4)


def test_lossless_formats_keep_every_pixel(photo: Image.Image, files: dict[str, bytes]) -> None:
    for name in ("PNG", "WEBP lossless", "BMP", "TIFF", "TIFF lzw", "PPM", "TGA", "QOI", "SGI"):
        np.testing.assert_array_equal(decode_image(files[name]), photo, err_msg=name)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"hello world\n",
        b"Python is not a PPM file, though it starts with Py",
        b"#define GREETING 1\nint main() {}\n",
        b"<!DOCTYPE html><html><body>403 Forbidden</body></html>",
        b'{"error": "not found"}',
        b"PK\x03\x04" + bytes(100),
        bytes(1000),
        b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(100),
        np.random.default_rng(1).bytes(5000),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_not_an_image(data: bytes) -> None:
    assert code_of(data) == "not_an_image"


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
        b"\xff\x0a" + bytes(50),
        b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(50),
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b'<?xml version="1.0"?>\n<!-- drawn by hand -->\n<svg width="1"/>',
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"\xd7\xcd\xc6\x9a" + bytes(40),
        b"v/1\x01" + bytes(40),
        b"8BPB" + bytes(40),
        bytes(128) + b"DICM" + bytes(40),
        b"\x89HDF\r\n\x1a\n" + bytes(40),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_unsupported_format(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Pillow alone."""
    for package in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, package, None)
    assert code_of(data) == "unsupported_format"


def test_unsupported_variant_of_a_supported_format(files: dict[str, bytes]) -> None:
    header = bytearray(files["BMP"])
    header[30:34] = struct.pack("<I", 9)  # a compression that does not exist
    assert code_of(bytes(header)) == "unsupported_format"


def test_no_program_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **_: started.append(args))
    postscript = encode(Image.new("RGB", (8, 8)), "EPS")
    assert code_of(postscript) == "unsupported_format"
    assert code_of(iptc(postscript)) == "unsupported_format"
    assert not started


def iptc(picture: bytes) -> bytes:
    """A wire photo of news agencies, which may hold a file of any format."""

    def field(record: int, number: int, body: bytes) -> bytes:
        return struct.pack(">BBBH", 0x1C, record, number, len(body)) + body

    size = struct.pack(">H", 8)
    head = field(3, 60, b"\1\0") + field(3, 20, size) + field(3, 30, size) + field(3, 120, b"\5")
    parts = (picture[start : start + 30_000] for start in range(0, len(picture), 30_000))
    return head + b"".join(field(8, 10, part) for part in parts)


def test_empty_file() -> None:
    assert code_of(b"") == "empty_file"


@pytest.mark.parametrize("name", SIGNED)
def test_truncated(name: str, files: dict[str, bytes]) -> None:
    data = files[name]
    cuts = [200, *range(len(data) // 4, len(data) - 20, len(data) // 9)]
    codes = {cut: code_of(data[:cut]) for cut in cuts}
    assert set(codes.values()) == {"truncated"}, codes


@pytest.mark.parametrize("name", SIGNED)
def test_a_header_alone_is_no_surprise(name: str, files: dict[str, bytes]) -> None:
    codes = {code_of(files[name][:cut]) for cut in range(1, 200, 7)}
    assert codes <= {"truncated", "not_an_image"}


def test_corrupt(files: dict[str, bytes]) -> None:
    for name in ("PNG", "GIF", "TIFF lzw"):
        data = bytearray(files[name])
        middle = len(data) // 2
        data[middle : middle + 64] = np.random.default_rng(2).bytes(64)
        assert code_of(bytes(data)) == "corrupt", name
    jpeg = files["JPEG"]
    tables = jpeg.index(b"\xff\xdb")
    assert code_of(jpeg[: tables + 4] + bytes(300) + jpeg[tables + 304 :]) == "corrupt"


@pytest.mark.parametrize("name", FORMATS)
def test_noise_raises_nothing_else(name: str, files: dict[str, bytes]) -> None:
    """Broken in any place, a file decodes or ends in an ImageDecodeError."""
    random = np.random.default_rng(3)
    for _ in range(40):
        data = bytearray(files[name])
        start = int(random.integers(len(data))) // int(random.choice([1, 50]))
        data[start : start + 8] = random.bytes(len(data[start : start + 8]))
        code_of(bytes(data))


def png_header(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that claims any size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(100))
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (header, pixels, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_too_many_pixels(files: dict[str, bytes]) -> None:
    assert code_of(png_header(100_000, 100_000)) == "too_many_pixels"
    assert code_of(png_header(9460, 9459)) == "too_many_pixels"
    assert code_of(png_header(9459, 9459)) == "truncated"  # within the limit, so decoded
    bitmap = bytearray(files["BMP"])
    bitmap[18:26] = struct.pack("<ii", 1 << 20, 1 << 20)
    assert code_of(bytes(bitmap)) == "too_many_pixels"
    for name in FORMATS:
        assert code_of(files[name], max_pixels=128 * 96 - 1) == "too_many_pixels", name
        assert code_of(files[name], max_pixels=128 * 96) == "ok", name


def test_the_limit_is_not_pillows_and_leaves_it_alone(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("JPEG", "PNG", "GIF", "AVIF", "BMP"):
        assert code_of(files[name]) == "ok", name
    for name in ("WEBP", "TIFF"):  # where Pillow's plugin insists
        assert code_of(files[name]) == "too_many_pixels", name
    assert Image.MAX_IMAGE_PIXELS == 100


def test_errors_survive_the_way_between_processes() -> None:
    with pytest.raises(ImageDecodeError) as caught:
        decode_image(b"nothing")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.code, str(copy)) == (caught.value.code, str(caught.value))
    assert isinstance(copy, ValueError)


def test_pillows_warnings_stay_inside(photo: Image.Image) -> None:
    """In threads too, and whoever warns afterwards is heard as before."""
    palette = photo.convert("P")
    transparent = encode(palette, "PNG", transparency=bytes(range(256)))
    with pytest.warns(UserWarning, match="Transparency"):
        Image.open(io.BytesIO(transparent)).convert("RGB")
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff" + bytes(30)
    loud = [transparent, encode(photo, "JPEG", exif=exif), encode(photo, "TIFF")[:-40]]
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(code_of, loud * 40))
    assert codes == ["ok", "ok", "truncated"] * 40
    assert list(warnings.filters) == before
