"""HEIC and JPEG XL: right pixels with the packages that decode them, a hint without."""

import io
import random
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cvt.errors import ImageDecodeError
from cvt.preprocessing.containers.frames.heif import is_heif
from cvt.preprocessing.containers.frames.hevc import frame_size
from cvt.preprocessing.containers.frames.jxl import is_jxl
from cvt.preprocessing.decode import decode_image
from tests.support.pictures.extras import deep_heic, gradient, heic, jxl
from tests.support.pictures.outcome import code_of, pixels

SIZE = (128, 64)
# Headers of 8 x 8 pixels in JPEG XL, bit by bit.
ANIMATED = "1 00000 100  0 1 000 0 0 1"
INKS = "1 00000 100  0 0  0 00  1  10  0 01 0100  0 00  00  00  0"


def near(data: bytes, wanted: Image.Image, tolerance: float) -> bool:
    found, expected = pixels(data), np.asarray(wanted.convert("RGB"), np.int16)
    return found.shape == expected.shape and float(np.abs(found - expected).max()) <= tolerance


def on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image.convert("RGBA"))


class TestHeif:
    @pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
    def test_pixels(self, mode: str) -> None:
        image = gradient(SIZE, mode)
        assert near(heic(image), on_white(image), 3)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_its_own_turns_count_and_those_of_exif_do_not(self, orientation: int) -> None:
        image = gradient(SIZE)
        exif = image.getexif()
        exif[274] = orientation
        data = heic(image, exif=exif.tobytes())
        assert near(data, ImageOps.exif_transpose(image), 3)

    def test_a_picture_of_tiles(self) -> None:
        data = heic(gradient((300, 200)), tile_size=128)
        assert b"grid" in data
        assert near(data, gradient((300, 200)), 3)
        assert code_of(data, max_pixels=300 * 200 - 1) == "too_many_pixels"

    def test_more_than_8_bits_stay_as_bright(self) -> None:
        values = np.asarray(gradient(SIZE), np.uint16) * 257
        assert near(deep_heic(values), gradient(SIZE), 3)

    def test_the_limit_is_asked_of_what_the_boxes_say(self) -> None:
        data = heic(gradient(SIZE))
        assert code_of(data, max_pixels=128 * 64) == "ok"
        assert code_of(data, max_pixels=128 * 64 - 1) == "too_many_pixels"
        size = struct.pack(">II", *SIZE)
        assert data.count(size) == 1
        assert code_of(data.replace(size, struct.pack(">II", 60_000, 60_000))) == "too_many_pixels"

    def test_the_limit_is_asked_of_the_frames_whatever_the_boxes_say(self) -> None:
        data = heic(Image.new("RGB", (1024, 1024)))
        small = data.replace(struct.pack(">II", 1024, 1024), struct.pack(">II", 8, 8))
        assert small != data
        assert code_of(small, max_pixels=1024 * 1024 - 1) == "too_many_pixels"

    def test_frames_say_how_large_they_are(self) -> None:
        data = heic(gradient((128, 72)))
        place = data.index(b"hvcC")
        found = [size for at in range(place, place + 400) for size in _size_at(data, at)]
        assert (128, 72) in found

    def test_without_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = heic(gradient(SIZE))
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        assert code_of(data) == "unsupported_format"
        with pytest.raises(ImageDecodeError, match="extra heif: pip install pillow-heif"):
            decode_image(data)

    def test_damage(self) -> None:
        check_damage(heic(gradient(SIZE)))


def _size_at(data: bytes, place: int) -> list[tuple[int, int]]:
    try:
        return list(frame_size(data[place : place + 200]))
    except IndexError:
        return []


def check_damage(good: bytes) -> None:
    """Whatever is wrong with a file, it has a code; where its end is missing, that one."""
    assert code_of(good[: len(good) // 2]) == "truncated"
    draw = random.Random(0)
    for _ in range(60):
        data = bytearray(good[: draw.randrange(16, len(good))] if draw.random() < 0.3 else good)
        for _ in range(draw.choice([1, 5])):
            data[draw.randrange(12, len(data))] = draw.randrange(256)
        code_of(bytes(data), max_pixels=10**6)


def box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def heif_of(properties: bytes, items: bytes = b"") -> bytes:
    """Boxes around a picture that is not there."""
    inside = (
        *(bytes(4), box(b"pitm", b"\0\0\0\0\0\1"), box(b"iloc", bytes(8))),
        *(box(b"iinf", bytes(6) + items), box(b"iprp", properties)),
    )
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", b"".join(inside))


@pytest.mark.parametrize(
    "properties",
    [
        b"",
        box(b"ipma", bytes(4) + struct.pack(">I", 2**32 - 1) + bytes(60)),
        box(b"ipco", box(b"hvcC", bytes(22) + b"\xff" + bytes(2**20))),
        box(b"ipco", box(b"free") * 20_000),
    ],
    ids=["nothing", "associations", "streams", "properties"],
)
def test_work_is_bounded_before_it_begins(properties: bytes) -> None:
    assert code_of(heif_of(properties, box(b"free") * 100_000)) == "corrupt"


@pytest.mark.parametrize(
    ("head", "is_one"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", True),
        (b"\0\0\0\x18ftypmiaf\0\0\0\0miafheix", True),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", False),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomiso2", False),
        (b"", False),
    ],
)
def test_what_says_to_be_heif(head: bytes, is_one: bool) -> None:
    assert is_heif(head) is is_one


def test_avif_under_a_brand_of_heif_is_decoded() -> None:
    buffer = io.BytesIO()
    gradient(SIZE).save(buffer, "AVIF")
    data = buffer.getvalue().replace(b"ftypavif", b"ftypmif1", 1)
    assert is_heif(data)
    assert code_of(data) == "ok"


class TestJxl:
    @pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
    @pytest.mark.parametrize("use_container", [False, True])
    def test_pixels(self, mode: str, use_container: bool) -> None:
        image = gradient(SIZE, mode)
        data = jxl(image, use_container=use_container)
        assert is_jxl(data)
        assert near(data, on_white(image), 1)

    def test_more_than_8_bits_stay_as_bright(self) -> None:
        values = np.asarray(gradient(SIZE, "L"), np.uint16) * 257
        assert near(jxl(Image.fromarray(values)), gradient(SIZE, "L"), 1)

    @pytest.mark.parametrize("size", [(64, 48), (1, 1), (3000, 3), (8, 800), (257, 513)])
    def test_the_limit_is_asked_of_what_the_header_says(self, size: tuple[int, int]) -> None:
        data = jxl(Image.new("RGB", size))
        assert code_of(data, max_pixels=size[0] * size[1]) == "ok"
        if size != (1, 1):
            assert code_of(data, max_pixels=size[0] * size[1] - 1) == "too_many_pixels"

    def test_an_orientation_in_exif_was_applied_already(self) -> None:
        image = gradient(SIZE)
        image.getexif()[274] = 6
        assert near(jxl(image, exif=image.getexif().tobytes(), use_container=True), image, 1)

    def test_a_recompressed_jpeg_looks_as_that_jpeg(self, tmp_path: Path) -> None:
        image = gradient(SIZE)
        image.getexif()[274] = 6
        image.save(tmp_path / "a.jpg", exif=image.getexif(), quality=95)
        jpeg = (tmp_path / "a.jpg").read_bytes()
        with Image.open(tmp_path / "a.jpg") as opened:
            data = jxl(opened, lossless_jpeg=True)
        assert b"jbrd" in data
        found, wanted = pixels(data), pixels(jpeg)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).mean() < 1

    @pytest.mark.parametrize("bits", [ANIMATED, INKS], ids=["animated", "inks"])
    def test_what_would_give_wrong_pictures_is_refused(self, bits: str) -> None:
        pytest.importorskip("pillow_jxl")
        value = int("".join(bits.split())[::-1], 2)
        data = b"\xff\x0a" + value.to_bytes(64, "little")
        assert code_of(data) == "unsupported_format"
        assert code_of(data, max_pixels=63) == "too_many_pixels"

    def test_without_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = jxl(gradient(SIZE))
        monkeypatch.setitem(sys.modules, "pillow_jxl", None)
        assert code_of(data) == "unsupported_format"
        with pytest.raises(ImageDecodeError, match="extra jxl: pip install pillow-jxl-plugin"):
            decode_image(data)

    def test_damage(self) -> None:
        check_damage(jxl(gradient(SIZE), use_container=True))
