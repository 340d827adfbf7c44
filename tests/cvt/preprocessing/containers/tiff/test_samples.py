"""TIFF: samples of every width, type, order and arrangement keep brightness and transparency."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cvt.preprocessing.processor import DecodeMode
from tests.support.pictures.outcome import MODES, code_of, mean_colour, pixels
from tests.support.pictures.tiff import (
    BLACK_IS_ZERO,
    CMYK,
    DEFLATE,
    FLOAT,
    PACKBITS,
    PALETTE,
    RGB,
    SIGNED,
    UNSIGNED,
    WHITE_IS_ZERO,
    Tiff,
)

Values = npt.NDArray[Any]
HEIGHT, WIDTH = 21, 37
TYPES = [*((bits, UNSIGNED) for bits in range(1, 33)), (8, SIGNED), (16, SIGNED), (32, SIGNED),
         (64, UNSIGNED), (64, SIGNED), (16, FLOAT), (32, FLOAT), (64, FLOAT)]  # fmt: skip
KINDS = {
    "grey": Tiff(photometric=BLACK_IS_ZERO),
    "white is zero": Tiff(photometric=WHITE_IS_ZERO),
    "colour": Tiff(photometric=RGB),
    "inks": Tiff(photometric=CMYK),
    "grey and nothing": Tiff(photometric=BLACK_IS_ZERO, extra=(0,)),
    "grey and opacity": Tiff(photometric=BLACK_IS_ZERO, extra=(2,)),
    "grey times opacity": Tiff(photometric=BLACK_IS_ZERO, extra=(1,)),
    "colour and nothing": Tiff(photometric=RGB, extra=(0,)),
    "colour and opacity": Tiff(photometric=RGB, extra=(2,)),
    "colour times opacity": Tiff(photometric=RGB, extra=(1,)),
    "inks and nothing": Tiff(photometric=CMYK, extra=(0,)),
    "colour, nothing, opacity": Tiff(photometric=RGB, extra=(0, 2)),
}
COLOURS = {BLACK_IS_ZERO: 1, WHITE_IS_ZERO: 1, RGB: 3, CMYK: 4}
ARRANGEMENTS: list[dict[str, Any]] = [
    {},
    {"order": ">", "rows": 5},
    {"planar": True, "rows": 4},
    {"order": ">", "planar": True, "compression": DEFLATE, "tile": (16, 16)},
    {"compression": DEFLATE, "tile": (16, 32), "big": True},
    {"order": ">", "compression": PACKBITS, "rows": 6, "big": True},
    {"fill_order": 2, "rows": 7},
    {"fill_order": 2, "compression": DEFLATE, "tile": (48, 16)},
    {"order": ">", "compression": DEFLATE, "predictor": 2, "rows": 6},
    {"planar": True, "compression": DEFLATE, "predictor": 2, "tile": (16, 16)},
    {"compression": DEFLATE, "predictor": 3, "rows": 6},
    {"order": ">", "planar": True, "compression": DEFLATE, "predictor": 3, "tile": (16, 16)},
]


def fits(tiff: Tiff) -> bool:
    """Whether the format knows, and we read, this arrangement of these samples."""
    if tiff.predictor == 3 and tiff.format != FLOAT:
        return False
    if tiff.predictor == 2 and tiff.bits not in (8, 16, 32, 64):
        return False
    if tiff.format == SIGNED and any(tiff.extra):
        return False
    return not (tiff.photometric == CMYK and tiff.format != UNSIGNED)


def shades(samples: int) -> Values:
    """Every second sample rises from 0 to 1, the others fall."""
    rising = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1)
    return np.concatenate([rising if i % 2 == 0 else 1 - rising for i in range(samples)], axis=-1)


def stored(shades: Values, tiff: Tiff) -> Values:
    """0 and 1 become the ends of what the type holds."""
    if tiff.format == FLOAT:
        return shades
    top = (1 << tiff.bits) - 1
    whole = np.array([min(round(value * top), top) for value in shades.ravel().tolist()], object)
    lowest = 1 << (tiff.bits - 1) if tiff.format == SIGNED else 0
    return (whole - lowest).reshape(shades.shape)


def seen(values: Values, tiff: Tiff) -> Values:
    """What a viewer shows of samples between 0 and 1: 0..255, on white."""
    if tiff.format == UNSIGNED and tiff.bits < 8:
        top = (1 << tiff.bits) - 1
        values = np.rint(values * top) / top
    colour, spare = np.split(values, [COLOURS[tiff.photometric]], axis=-1)
    if tiff.photometric == WHITE_IS_ZERO:
        colour = 1 - colour
    if tiff.photometric == CMYK:
        colour = (1 - colour[..., :3]) * (1 - colour[..., 3:])
    for kind, opacity in zip(tiff.extra, np.moveaxis(spare, -1, 0), strict=True):
        if kind == 1:
            colour = np.minimum(colour + 1 - opacity[..., None], 1)
        if kind == 2:
            colour = colour * opacity[..., None] + 1 - opacity[..., None]
    return np.broadcast_to(255 * colour, (HEIGHT, WIDTH, 3))


def variants(tiff: Tiff) -> Iterator[Tiff]:
    """Types and arrangements against each other: each type in four of them, each of them often."""
    for number, (bits, kind) in enumerate(TYPES):
        typed = replace(tiff, bits=bits, format=kind)
        possible = [v for more in ARRANGEMENTS if fits(v := replace(typed, **more))]
        yield from (
            possible[(number + 3 * i) % len(possible)] for i in range(min(4, len(possible)))
        )


@pytest.mark.parametrize("kind", KINDS)
def test_every_sample(kind: str) -> None:
    tested = 0
    for tiff in variants(KINDS[kind]):
        values = shades(COLOURS[tiff.photometric] + len(tiff.extra))
        difference = pixels(tiff.encode(stored(values, tiff))) - seen(values, tiff)
        assert np.abs(difference).max() < 2.6, tiff
        tested += 1
    assert tested > 100


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_mode(kind: str, mode: DecodeMode) -> None:
    for bits, form in ((4, UNSIGNED), (8, UNSIGNED), (12, UNSIGNED), (16, UNSIGNED), (32, FLOAT)):
        tiff = replace(KINDS[kind], bits=bits, format=form, planar=bits == 16, rows=9)
        if not fits(tiff):
            continue
        values = shades(COLOURS[tiff.photometric] + len(tiff.extra))
        values[...] = 0.6 if bits > 4 else 9 / 15
        flat = tiff.encode(stored(values, tiff))
        assert np.abs(np.subtract(mean_colour(flat, mode), seen(values, tiff)[0, 0])).max() < 2.6


@pytest.mark.parametrize("extra", [(), (2,)], ids=["opaque", "opacity"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_palettes(bits: int, extra: tuple[int, ...]) -> None:
    """Of 16-bit entries, and of entries that a program wrote with 8."""
    size = 1 << bits
    entries = np.random.default_rng(bits).integers(0, 256, (3, size))
    entries[0, 0] = 255
    indices = np.random.default_rng(0).integers(0, size, (HEIGHT, WIDTH, 1))
    opaque = np.full_like(indices, size - 1)
    expected = entries.T[indices[..., 0]]
    for factor in (257, 1):
        more = {320: (3, (entries * factor).ravel().tolist())}
        for planar in (False, True):
            tiff = Tiff(bits=bits, photometric=PALETTE, extra=extra, planar=planar, more=more)
            samples = np.concatenate([indices, *[opaque for _ in extra]], axis=-1)
            assert np.array_equal(pixels(tiff.encode(samples)), expected), (factor, planar)


def test_a_palette_whose_opacity_varies() -> None:
    more = {320: (3, [0] * 48)}
    tiff = Tiff(bits=4, photometric=PALETTE, extra=(2,), more=more)
    opacity = np.arange(16).reshape(1, 16, 1)
    shown = pixels(tiff.encode(np.concatenate([opacity * 0, opacity], axis=-1)))
    assert shown[0, :, 0].tolist() == [255 - 17 * level for level in range(16)]


@pytest.mark.parametrize(
    ("bits", "form", "values", "expected"),
    [
        (8, SIGNED, [0, 64, 127], [0, 128, 254]),
        (16, SIGNED, [0, 100, 255], [0, 100, 255]),
        (16, SIGNED, [0, 16384, 32767], [0, 128, 255]),
        (32, UNSIGNED, [0, 100, 255], [0, 100, 255]),
        (32, UNSIGNED, [0, 256, 65535], [0, 1, 255]),
        (32, UNSIGNED, [0xFFFFFFFF] * 3, [255] * 3),
        (64, UNSIGNED, [0xFFFFFFFFFFFFFFFF] * 3, [255] * 3),
        (64, SIGNED, [-1 << 63, 0, (1 << 63) - 1], [0, 128, 255]),
        (16, FLOAT, [0, 0.5, 1], [0, 128, 255]),
        (64, FLOAT, [-1e308, 0, 1e308], [0, 128, 255]),
        (32, FLOAT, [0, 5e-324, 1e-320], [0, 0, 0]),
    ],
)
def test_ranges(bits: int, form: int, values: list[float], expected: list[int]) -> None:
    samples = np.array(values, object).reshape(1, 3, 1)
    for order in "<>":
        shown = pixels(Tiff(bits=bits, format=form, order=order).encode(samples))
        assert shown[0, :, 0].tolist() == expected


def test_colour_has_one_range_for_all_channels() -> None:
    samples = np.array([[[0.0, 0.9, 2.0]]])
    shown = pixels(Tiff(bits=32, format=FLOAT, photometric=RGB).encode(samples))
    assert shown.tolist() == [[[0, 1, 2]]]


ONE = np.zeros((4, 4, 1), np.uint8)
FOREIGN = {
    "complex numbers": Tiff(bits=64, format=UNSIGNED, more={339: (3, [6])}).encode(ONE),
    "floats of 24 bits": Tiff(bits=24, more={339: (3, [FLOAT])}).encode(ONE),
    "signed inks": Tiff(photometric=CMYK, format=SIGNED).encode(ONE.repeat(4, 2)),
    "signed opacity": Tiff(format=SIGNED, extra=(2,)).encode(ONE.repeat(2, 2)),
    "different widths": Tiff(photometric=RGB, more={258: (3, [8, 8, 4])}).encode(ONE.repeat(3, 2)),
    "bands": Tiff(extra=(0,) * 7).encode(ONE.repeat(8, 2)),
    "two bands, unexplained": Tiff().encode(ONE.repeat(2, 2)),
    "inks of six colours": Tiff(photometric=CMYK, more={332: (3, [2])}).encode(ONE.repeat(6, 2)),
    "unknown predictor": Tiff(compression=DEFLATE, more={317: (3, [9])}).encode(ONE),
    "differences of 12 bits": replace(
        Tiff(bits=12, compression=DEFLATE), more={317: (3, [2])}
    ).encode(ONE),
    "16 bits of YCbCr": Tiff(bits=16, photometric=6).encode(ONE.repeat(3, 2)),
    "16 bits of LAB": Tiff(bits=16, photometric=8).encode(ONE.repeat(3, 2)),
    "12 bits of JPEG": Tiff(bits=12, more={259: (3, [7])}).encode(ONE),
    **{
        f"compression {number}": Tiff(more={259: (3, [number])}).encode(ONE)
        for number in (32766, 32909, 33003, 34661, 34676, 34712, 34887, 50001, 50002, 52546, 9)
    },
    **{
        f"photometric {number}": Tiff(more={262: (3, [number])}).encode(ONE)
        for number in (4, 9, 10, 32803, 32844, 34892)
    },
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_has_no_known_meaning_is_refused(name: str) -> None:
    assert code_of(FOREIGN[name]) == "unsupported_format"


def test_the_kind_of_pixels_may_be_left_out() -> None:
    """Then it is what libtiff takes it for: black is zero."""
    data = Tiff().encode(np.array([[[0], [200]]], np.uint8))
    without = data.replace(b"\x06\x01\x03\0\x01\0\0\0\x01\0", b"\x05\x01\x03\0\x01\0\0\0\x01\0")
    assert without != data
    assert pixels(without)[0, :, 0].tolist() == [0, 200]
