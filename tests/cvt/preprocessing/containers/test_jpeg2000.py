"""JPEG 2000: white stays white at every number of bits, and channels are what the file says."""

import struct
import time

import numpy as np
import numpy.typing as npt
import pytest

from cvt.preprocessing.processor import DecodeMode
from tests.support.pictures.jpeg2000 import WIDE, box, channels, codestream, jp2, palette
from tests.support.pictures.outcome import MODES, code_of, mean_colour, pixels

Shades = npt.NDArray[np.float64]
RAMP = np.linspace(0, 1, 32).reshape(4, 8, 1)
GREY, SRGB, SYCC, INKS = 17, 16, 18, 12


def shades(samples: int) -> Shades:
    return np.concatenate([RAMP if i % 2 == 0 else 1 - RAMP for i in range(samples)], axis=-1)


def seen(values: Shades) -> Shades:
    """Grey or colour of 0..1, with opacity if there is one sample more, on white."""
    colour = values[..., : 1 if values.shape[-1] < 3 else 3]
    if values.shape[-1] in (2, 4):
        colour = colour * values[..., -1:] + 1 - values[..., -1:]
    return 255 * np.broadcast_to(colour, (4, 8, 3))


@pytest.mark.parametrize("name", WIDE)
def test_more_than_8_bits(name: str) -> None:
    """Pillow alone rounds white up to black."""
    samples = {"RGB": 3, "RGBA": 4, "LA": 2}[name.split()[0]]
    space = GREY if samples == 2 else SRGB
    for data in (WIDE[name], jp2(WIDE[name], space=space), jp2(WIDE[name], space=b"\0" * 16 + (
            b"GRAY" if samples == 2 else b"RGB "))):  # fmt: skip
        assert np.abs(pixels(data) - seen(shades(samples))).max() < 2.6


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", range(1, 9))
def test_up_to_8_bits(bits: int, samples: int, signed: bool) -> None:
    """Pillow alone leaves white of fewer bits grey."""
    top = (1 << bits) - 1
    values = np.rint(shades(samples) * top)
    for data in (
        codestream(values, bits, signed=signed),
        jp2(codestream(values, bits, signed=signed), space=GREY if samples < 3 else SRGB),
    ):
        assert np.abs(pixels(data) - seen(values / top)).max() < 1.6


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["RGB 12", "LA 16 signed"])
def test_every_mode(name: str, mode: DecodeMode) -> None:
    expected = pixels(WIDE[name]).mean((0, 1))
    assert np.abs(mean_colour(WIDE[name], mode) - expected).max() < 12  # resized, and cut out
    white = jp2(codestream(np.full((9, 9, 3), 15), 4))
    assert mean_colour(white, mode) == [255] * 3


RGBA = np.rint(shades(4) * 255)


def test_channels_in_another_order() -> None:
    swapped = jp2(
        codestream(RGBA[..., [2, 1, 0]], 8), more=channels((0, 0, 3), (1, 0, 2), (2, 0, 1))
    )
    assert np.array_equal(pixels(swapped), RGBA[..., :3].astype(int))
    opacity_first = channels((0, 1, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3))
    data = jp2(codestream(RGBA[..., [3, 0, 1, 2]], 8), more=opacity_first)
    assert np.array_equal(pixels(data), pixels(codestream(RGBA, 8)))


def test_opacity_that_is_none_or_already_applied() -> None:
    colours = ((0, 0, 1), (1, 0, 2), (2, 0, 3))
    ignored = jp2(codestream(RGBA, 8), more=channels(*colours, (3, 65535, 65535)))
    assert np.array_equal(pixels(ignored), RGBA[..., :3].astype(int))
    opacity = RGBA[..., 3:]
    dimmed = np.concatenate([RGBA[..., :3] * opacity // 255, opacity], axis=-1)
    premultiplied = jp2(codestream(dimmed, 8), more=channels(*colours, (3, 2, 0)))
    assert np.abs(pixels(premultiplied) - seen(RGBA / 255)).max() < 1.6


def test_other_colour_spaces() -> None:
    """YCbCr and CMYK, as arithmetic has them."""
    grey = np.concatenate([RGBA[..., :1], np.full((4, 8, 2), 128)], axis=-1)
    assert np.abs(pixels(jp2(codestream(grey, 8), space=SYCC)) - RGBA[..., :1]).max() <= 1
    inks = RGBA / 255
    expected = 255 * (1 - inks[..., :3]) * (1 - inks[..., 3:])
    assert np.abs(pixels(jp2(codestream(RGBA, 8), space=INKS)) - expected).max() < 1.6


@pytest.mark.parametrize("bits", [2, 8])
def test_palettes(bits: int) -> None:
    indices = np.arange(32).reshape(4, 8, 1) % 4
    rows = [[255, 0, 9], [0, 255, 8], [1, 2, 3], [200, 100, 50]]
    mapped = b"".join(bytes([0, 0, 1, column]) for column in range(3))
    data = jp2(codestream(indices, bits), more=palette(rows, [8, 8, 8], mapped))
    assert np.array_equal(pixels(data), np.array(rows)[indices[..., 0]])
    wide = [[value * 257 for value in row] for row in rows]
    data = jp2(codestream(indices, bits), more=palette(wide, [16, 16, 16], mapped))
    assert np.array_equal(pixels(data), np.array(rows)[indices[..., 0]])
    opacity = palette(
        [[*row, 255] for row in rows[:3]] + [[0, 0, 0, 0]], [8] * 4, mapped + b"\0\0\1\3"
    )
    data = jp2(codestream(indices, bits), more=opacity)
    assert np.array_equal(pixels(data), np.array([*rows[:3], [255] * 3])[indices[..., 0]])


PLAIN = codestream(RGBA[..., :3], 8)
LAB = bytes(16) + b"Lab " + bytes(100)


def with_five_components() -> bytes:
    head = bytearray(PLAIN[:51]) + bytes([7, 1, 1] * 2) + PLAIN[51:]
    head[4:6], head[40:42] = struct.pack(">H", 38 + 15), struct.pack(">H", 5)
    return bytes(head)


def lower_resolution(stream: bytes) -> bytes:
    data = bytearray(stream)
    data[46:48] = data[49:51] = b"\2\2"
    return bytes(data)


def with_blocks(exponents: bytes, side: int) -> bytes:
    """A file that claims a size and code blocks: 2 to the power of 2 + exponent."""
    data = bytearray(PLAIN)
    data[8:16] = data[24:32] = struct.pack(">II", side, side)
    at = data.index(b"\xff\x52") + 10
    data[at : at + 2] = exponents
    return bytes(data)


def with_layers(layers: int, tile: int) -> bytes:
    """A file that claims a number of layers, in tiles of a size."""
    data = bytearray(PLAIN)
    data[24:32] = struct.pack(">II", tile, tile)
    if tile == 1:
        data[8:16] = struct.pack(">II", 200, 200)
    at = data.index(b"\xff\x52") + 6
    data[at : at + 2] = struct.pack(">H", layers)
    return bytes(data)


FOREIGN = {
    "CIELab": jp2(PLAIN, space=14),
    "a Lab profile": jp2(PLAIN, space=LAB),
    "an ink profile": jp2(codestream(RGBA, 8), space=bytes(16) + b"CMYK" + bytes(100)),
    "17 bits": PLAIN[:42] + b"\x10" + PLAIN[43:],
    "five components": with_five_components(),
    "16 bits at a lower resolution": lower_resolution(WIDE["RGB 12"]),
    "tiny blocks": with_blocks(b"\0\0", 9000),
    "layers in many tiles": with_layers(65535, 1),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_has_no_known_meaning_is_refused(name: str) -> None:
    started = time.process_time()
    assert code_of(FOREIGN[name]) == "unsupported_format"
    assert time.process_time() - started < 1


def test_many_layers_are_no_hindrance() -> None:
    assert np.array_equal(pixels(with_layers(1000, 8)), pixels(PLAIN))


def test_broken_files() -> None:
    assert code_of(jp2(PLAIN, more=box(b"pclr", b"\1\0\3"))) == "corrupt"
    assert code_of(jp2(PLAIN)[:60]) == "truncated"
    assert code_of(PLAIN[:30]) == "truncated"
    assert code_of(with_blocks(b"\4\4", 9000)) in ("truncated", "corrupt")
