"""PNG: no chunk that the pixels do not need costs an image, and every transparent colour is one."""

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cvt.preprocessing.decode import decode_image
from cvt.preprocessing.processor import DecodeMode
from tests.support.pictures.outcome import MODES, code_of, mean_colour, pixels
from tests.support.pictures.png import GREY, PALETTE, RGB, chunk, png

RAMP = np.arange(256).reshape(16, 16)
LARGE = zlib.compress(bytes(3_000_000))
PLAIN = png(RAMP, 8, GREY)


def broken(kind: bytes, body: bytes) -> bytes:
    """A chunk whose checksum is wrong."""
    return chunk(kind, body)[:-4] + b"\0\0\0\0"


IRRELEVANT = {
    "zTXt that inflates to 3 MB": chunk(b"zTXt", b"workflow\0\0" + LARGE),
    "iTXt that inflates to 3 MB": chunk(b"iTXt", b"prompt\0\1\0\0\0" + LARGE),
    "XMP that inflates to 3 MB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
    "EXIF as text of 3 MB": chunk(b"zTXt", b"Raw profile type exif\0\0" + LARGE),
    "iCCP that inflates to 3 MB": chunk(b"iCCP", b"profile\0\0" + LARGE),
    "70 MB of tEXt": b"".join(chunk(b"tEXt", b"%d\0" % i + bytes(7_000_000)) for i in range(10)),
    "text of an unknown compression": chunk(b"zTXt", b"a\0\7" + LARGE[:50]),
    "XMP of an unknown compression": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\7\0\0" + LARGE[:9]),
    "XMP without its fields": chunk(b"iTXt", b"XML:com.adobe.xmp\0"),
    "profile of an unknown compression": chunk(b"iCCP", b"a\0\7" + LARGE[:50]),
    "text that names Pillow's own keys": b"".join(
        chunk(b"tEXt", key + b"\0text") for key in (b"transparency", b"interlace", b"bbox", b"exif")
    ),
    "wrong checksums": b"".join(
        broken(kind, b"x" * 32)
        for kind in (b"tEXt", b"eXIf", b"iCCP", b"tRNS", b"gAMA", b"cHRM", b"abCd")
    ),
    "chunks too short": b"".join(
        chunk(kind, b"")
        for kind in (b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"acTL", b"fcTL", b"fdAT")
    ),
    "an animation out of order": chunk(b"acTL", struct.pack(">II", 2, 0))
    + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 9, 90, 90, 5, 5, 0, 0, 0, 0)),
    "an animation that starts small": chunk(b"acTL", struct.pack(">II", 1, 0))
    + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 4, 4, 2, 2, 0, 0, 0, 0)),
}


@pytest.mark.parametrize("name", IRRELEVANT)
def test_chunks_that_the_pixels_do_not_need(name: str) -> None:
    for data in (
        png(RAMP, 8, GREY, before=IRRELEVANT[name]),
        png(RAMP, 8, GREY, after=IRRELEVANT[name]),
    ):
        assert np.array_equal(pixels(data)[..., 0], RAMP)
        assert code_of(data) == "ok"


def test_chunks_between_the_pixels() -> None:
    start = PLAIN.index(b"IDAT") - 4
    packed = PLAIN[start + 8 : PLAIN.index(b"IEND") - 8]
    halves = chunk(b"IDAT", packed[:20]) + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", packed[20:])
    data = PLAIN[:start] + halves + chunk(b"IEND", b"")
    assert np.array_equal(pixels(data)[..., 0], RAMP)


def test_a_file_without_such_chunks_is_pillows() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert np.array_equal(pixels(buffer.getvalue()), np.asarray(image))


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("form", ["eXIf", "zTXt", "tEXt", "iTXt", "packed iTXt"])
def test_orientation_survives(form: str, place: str) -> None:
    exif = Image.Exif()
    exif[274] = 3
    raw = exif.tobytes()
    text = b"\nexif\n%8d\n" % len(raw) + raw.hex().encode()
    xmp = b'<x xmlns:tiff="t" tiff:Orientation="3"/>'
    extra = {
        "eXIf": chunk(b"eXIf", raw.removeprefix(b"Exif\0\0")),
        "zTXt": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
        "tEXt": chunk(b"tEXt", b"Raw profile type exif\0" + text),
        "iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        "packed iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
    }[form]
    data = png(RAMP, 8, GREY, **{place: extra})
    assert np.array_equal(pixels(data)[..., 0], RAMP[::-1, ::-1])


def trns(*values: int) -> bytes:
    return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey(depth: int) -> None:
    """Every level in turn; of 16 bits two that share a byte. Bits above the depth do not count."""
    top = (1 << depth) - 1
    levels = [0x1234, 0x1235, 0x3334] if depth == 16 else range(min(top + 1, 16))
    shown = np.array([[v >> 8 if depth == 16 else v * 255 // top for v in levels]])
    for column, key in enumerate(levels):
        expected = shown.copy()
        expected[0, column] = 255
        for stored in {key, key | (1 << depth) & 0xFFFF}:
            data = png(np.array([levels]), depth, GREY, before=trns(stored))
            assert pixels(data)[..., 0].tolist() == expected.tolist(), (key, stored)
    unused = png(np.array([levels])[:, :1], depth, GREY, before=trns(levels[1]))
    assert pixels(unused)[0, 0, 0] == shown[0, 0]


def adam7(data: bytes) -> bytes:
    """The same picture of 1 x 1 pixels, interlaced: its only row lies in the first pass."""
    header = data[16:28] + b"\1"
    return data[:8] + chunk(b"IHDR", header) + data[33:]


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour(depth: int) -> None:
    colours = [(0x12, 0x56, 0x9A), (0x12, 0x56, 0x9B), (0, 0, 0)]
    if depth == 16:
        colours = [(0x1234, 0x5678, 0x9ABC), (0x1234, 0x5678, 0x9ABD), (0x1200, 0x5600, 0x9A00)]
    shown = np.array([colours]) >> (depth - 8)
    for column, key in enumerate(colours):
        expected = shown.copy()
        expected[0, column] = 255
        data = png(np.array([colours]), depth, RGB, before=trns(*key))
        assert pixels(data).tolist() == expected.tolist(), key
        alone = adam7(png(np.array([[key]]), depth, RGB, before=trns(*key)))
        assert pixels(alone).tolist() == [[[255] * 3]]


FLAT: dict[str, tuple[npt.NDArray[np.int64], int, int, bytes]] = {
    **{f"grey {d}": (np.full((9, 8), 1), d, GREY, trns(1)) for d in (1, 2, 4, 8, 16)},
    **{f"RGB {d}": (np.full((9, 8, 3), 7), d, RGB, trns(7, 7, 7)) for d in (8, 16)},
    **{
        f"palette {d}": (
            np.full((9, 8), 1),
            d,
            PALETTE,
            chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\xff\0"),
        )
        for d in (1, 2, 4, 8)
    },
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FLAT)
def test_transparency_in_every_mode(name: str, mode: DecodeMode) -> None:
    values, depth, colour, before = FLAT[name]
    assert mean_colour(png(values, depth, colour, before=before), mode) == [255] * 3


def test_a_turned_image_with_a_transparent_colour() -> None:
    exif = Image.Exif()
    exif[274] = 6
    turn = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    values = np.array([[(0x1234, 0, 0), (0x8000, 0x8000, 0x8000)]])
    image = decode_image(png(values, 16, RGB, before=trns(0x1234, 0, 0) + turn))
    assert np.asarray(image).tolist() == [[[255] * 3], [[128] * 3]]


def test_apples_dialect_is_named() -> None:
    data = PLAIN[:8] + chunk(b"CgBI", b"\x50\0\x20\x06") + PLAIN[8:]
    assert code_of(data) == "unsupported_format"


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"PLTE"])
def test_a_cut_is_still_told(kind: bytes) -> None:
    data = png(RAMP % 2, 8, PALETTE, before=chunk(b"PLTE", bytes(6)) + chunk(b"tEXt", b"a\0b"))
    assert code_of(data[: data.index(kind) + 6]) == "truncated"
