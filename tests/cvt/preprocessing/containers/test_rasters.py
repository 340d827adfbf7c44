"""Simple formats: opacity is opacity, and numbers are scaled as the header says."""

import struct
import time

import numpy as np
import numpy.typing as npt
import pytest

from cvt.preprocessing.processor import DecodeMode
from tests.support.pictures.outcome import MODES, code_of, mean_colour, pixels
from tests.support.pictures.rasters import bmp, fits, fits_compressed, psd, sgi, sun, tga, xpm

COLOURS = np.random.default_rng(0).integers(0, 256, (4, 8, 3))
SIZE = (8, 4)
GREY = COLOURS[..., 0]


def words(*channels: tuple[int, int]) -> bytes:
    """Numbers of 32 bits that hold channels of `COLOURS` at these shifts."""
    parts = [COLOURS[..., channel] << shift for channel, shift in channels]
    whole: npt.NDArray[np.int64] = np.sum(parts, axis=0)
    return whole.astype("<u4").tobytes()


@pytest.mark.parametrize("header", [40, 56, 108, 124])
@pytest.mark.parametrize("height", [4, -4])
def test_bmp_with_colours_anywhere(header: int, height: int) -> None:
    body = words((0, 8), (1, 0), (2, 16))
    rows = np.frombuffer(body, np.uint8).reshape(4, -1)
    stored = rows[::-1].tobytes() if height > 0 else body
    masks = (0xFF00, 0xFF, 0xFF0000) if header == 40 else (0xFF00, 0xFF, 0xFF0000, 0)
    data = bmp(stored, (8, height), 32, 3, masks=masks, header=header)
    assert np.array_equal(pixels(data), COLOURS)


def test_bmp_with_ten_bits() -> None:
    wide = COLOURS * 4 + 3
    body = (wide[..., 0] << 20 | wide[..., 1] << 10 | wide[..., 2]).astype("<u4").tobytes()
    data = bmp(body, (8, -4), 32, 3, masks=(0x3FF << 20, 0x3FF << 10, 0x3FF))
    assert np.array_equal(pixels(data), COLOURS)


@pytest.mark.parametrize("opacity", [0, 15, 5])
def test_bmp_with_opacity_of_four_bits(opacity: int) -> None:
    """All invisible means that the writer knew no opacity."""
    parts = COLOURS >> 4
    body = (parts[..., 0] << 8 | parts[..., 1] << 4 | parts[..., 2] | opacity << 12).astype("<u2")
    data = bmp(body.tobytes(), (8, -4), 16, 3, masks=(0xF00, 0xF0, 0xF, 0xF000), header=108)
    share = (opacity or 15) / 15
    assert np.abs(pixels(data) - (parts * 17 * share + 255 * (1 - share))).max() < 1.6


RUNS = b"\x03\1\x02\2\0\0" + b"\0\3\1\2\1\0\x02\2\0\0" + b"\0\1"
SKIPS = b"\2\2\0\2\1\1\2\1\0\1"


def test_bmp_run_lengths() -> None:
    palette = bytes([9, 8, 7, 0, 30, 20, 10, 0, 60, 50, 40, 0])
    shown = np.array([[7, 8, 9], [10, 20, 30], [40, 50, 60]])
    data = bmp(RUNS, (5, 2), 8, 1, palette=palette)
    assert np.array_equal(pixels(data), shown[[[1, 2, 1, 2, 2], [1, 1, 1, 2, 2]]])
    data = bmp(SKIPS, (5, 2), 8, 1, palette=palette)
    assert np.array_equal(pixels(data), shown[[[0, 0, 0, 1, 1], [2, 2, 0, 0, 0]]])
    nibbles = b"\5\x12\0\0" + b"\0\5\x12\x10\x20\0\0\1"
    data = bmp(nibbles, (5, 2), 4, 2, palette=palette)
    assert np.array_equal(pixels(data), shown[[[1, 2, 1, 0, 2], [1, 2, 1, 2, 1]]])


def test_bmp_run_lengths_that_end_early() -> None:
    palette = bytes(12)
    for cut in (6, 8, 14):
        assert code_of(bmp(RUNS, (5, 2), 8, 1, palette=palette)[:-cut]) == "truncated"


def test_bmp_skips_take_no_memory() -> None:
    """Pillow alone fills what is skipped: 255 rows of a billion pixels."""
    started = time.process_time()
    wide = bmp(b"\0\2\xff\xff" * 1000 + b"\0\1", (80_000_000, 1), 8, 1, palette=bytes(12))
    assert code_of(wide, max_pixels=1000) == "too_many_pixels"
    short = bmp(b"\0\2\xff\xff" * 1000 + b"\0\1", (80_000, 1), 8, 1, palette=bytes(12))
    assert code_of(short) == "ok"
    assert time.process_time() - started < 1


def test_bmp_that_is_broken() -> None:
    body = words((0, 16), (1, 8), (2, 0))
    holes = bmp(body, SIZE, 32, 3, masks=(0xF0F0, 0xFF, 0xFF0000))
    assert code_of(holes) == "corrupt"
    sound = bmp(body, SIZE, 32, 3, masks=(0xFF0000, 0xFF00, 0xFF))
    assert code_of(sound) == "ok"
    assert code_of(sound[:-9]) == "truncated"
    assert code_of(bmp(body, (0, 4), 32, 3, masks=(0xFF0000, 0xFF00, 0xFF))) == "corrupt"
    assert code_of(bmp(body, SIZE, 32, 5)) == "unsupported_format"


@pytest.mark.parametrize("bits", [0, 8])
@pytest.mark.parametrize("opacity", [0, 255, 51])
def test_tga_with_a_fourth_byte(opacity: int, bits: int) -> None:
    """An image that is all invisible, and says that it has no opacity, has none."""
    bgra = np.dstack([COLOURS[..., ::-1], np.full((4, 8), opacity)]).astype(np.uint8)
    share = 1 if opacity == bits == 0 else opacity / 255
    expected = COLOURS * share + 255 * (1 - share)
    assert np.abs(pixels(tga(bgra.tobytes(), SIZE, 32, bits)) - expected).max() < 1.6


@pytest.mark.parametrize("top", [0, 1])
def test_tga_with_fifteen_bits(top: int) -> None:
    parts = COLOURS >> 3
    body = (parts[..., 0] << 10 | parts[..., 1] << 5 | parts[..., 2] | top << 15).astype("<u2")
    assert np.abs(pixels(tga(body.tobytes(), SIZE, 16, 0)) - parts * 255 / 31).max() <= 1


@pytest.mark.parametrize("kind", [1, 3])
def test_sun_with_an_unused_byte(kind: int) -> None:
    order = COLOURS if kind == 3 else COLOURS[..., ::-1]
    body = np.dstack([np.full((4, 8), 77), order]).astype(np.uint8).tobytes()
    assert np.array_equal(pixels(sun(body, SIZE, 32, kind)), COLOURS)


def test_sun_with_two_colours_is_refused() -> None:
    assert code_of(sun(bytes(8), SIZE, 1, 1, bytes(6))) == "unsupported_format"
    assert code_of(sun(bytes(8), SIZE, 1, 1)) == "ok"


@pytest.mark.parametrize("width", [8, 16])
def test_sgi(width: int) -> None:
    samples = (COLOURS.transpose(2, 0, 1) << width - 8)[:, ::-1].astype(f"u{width // 8}")
    assert np.array_equal(pixels(sgi(samples)), COLOURS)
    assert code_of(sgi(samples[:2])) == "unsupported_format"
    assert code_of(sgi(samples, colours=3)) == "unsupported_format"


RGB, INKS, MULTICHANNEL = 3, 4, 7
PLANES = COLOURS.transpose(2, 0, 1)


def test_psd_without_what_its_pixels_do_not_need() -> None:
    for data in (
        psd(PLANES, RGB, resources=b"8BIM" + bytes(7)),
        psd(PLANES, RGB, layers=b"\xff" * 9),
    ):
        assert np.array_equal(pixels(data), COLOURS)


@pytest.mark.parametrize(
    "data",
    [
        psd(PLANES, RGB, bits=16),
        psd(PLANES, RGB, bits=32),
        psd(PLANES, MULTICHANNEL),
        psd(PLANES, RGB, version=2),
        psd(PLANES, RGB, packing=2),
        psd(PLANES, RGB, packing=3),
    ],
    ids=["16 bits", "32 bits", "multichannel", "PSB", "zip", "zip with differences"],
)
def test_psd_of_other_kinds_is_named(data: bytes) -> None:
    assert code_of(data) == "unsupported_format"


def test_psd_that_ends_early() -> None:
    for cut in (3, 60, 120):
        assert code_of(psd(PLANES, RGB)[:-cut]) == "truncated"


def test_fits_with_a_zero_point() -> None:
    """16 bits without a sign are stored with one."""
    wide = (GREY * 257 - 32768).astype(np.int16)
    assert np.array_equal(pixels(fits(wide, BZERO=32768))[..., 0], GREY)
    huge = (GREY * 0x1010101 - (1 << 31)).astype(np.int32)
    assert np.array_equal(pixels(fits(huge, BZERO=float(1 << 31)))[..., 0], GREY)


def test_fits_with_a_sign() -> None:
    signed = np.array([[-100, 20, 100]], np.int16)
    assert pixels(fits(signed))[0, :, 0].tolist() == [0, 153, 255]
    bright = np.array([[0, 16384, 32767]], np.int16)
    assert pixels(fits(bright))[0, :, 0].tolist() == [0, 128, 255]


def test_fits_with_a_scale() -> None:
    scaled = np.array([[0, 5, 10]], np.uint8)
    assert pixels(fits(scaled, BSCALE=0.1))[0, :, 0].tolist() == [0, 128, 255]
    assert pixels(fits(scaled))[0, :, 0].tolist() == [0, 5, 10]
    floats = np.array([[0, 0.5, 1]], np.float32)
    assert pixels(fits(floats))[0, :, 0].tolist() == [0, 128, 255]
    assert pixels(fits(floats, BSCALE=2.0, BZERO=-1.0))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("bits", [8, 16, -32])
def test_fits_that_is_compressed(bits: int) -> None:
    top = {8: 200, 16: 255, -32: 1}[bits]
    noise = np.random.default_rng(0).uniform(0, top, (20, 30))
    noise[0, :2] = 0, top
    values = noise.astype(">f4" if bits < 0 else ">i4")
    expected = np.rint(values.astype(float) * (200 if bits == 8 else 255) / top)
    assert np.abs(pixels(fits_compressed(values, bits))[..., 0] - expected).max() <= 1
    assert code_of(fits_compressed(values, bits)[:-40]) == "truncated"


@pytest.mark.parametrize("white", [1, 7, 100, 255, 256, 1000, 1023, 4095, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_ppm_of_any_white(white: int, plain: bool) -> None:
    values = np.array([[[0, white // 3, white]], [[white, white // 2, 0]]])
    shown = values / white * 255
    kind = ">u2" if white > 255 else "u1"
    for magic, samples, expected in (
        (b"6", values, shown),
        (b"5", values[..., 1:2], shown[..., 1:2]),
    ):
        if plain:
            body, magic = (
                " ".join(map(str, samples.ravel())).encode(),
                {b"6": b"3", b"5": b"2"}[magic],
            )
        else:
            body = samples.astype(kind).tobytes()
        head = b"P" + magic + b"\n# made by hand\n1 2\n" + b"%d\n" % white
        assert np.abs(pixels(head + body) - expected).max() <= 1
        if not plain:
            assert code_of(head + body[:-1]) == "truncated"


def test_ppm_of_16_bits_is_read_at_once() -> None:
    """Pillow alone takes 8 seconds for it."""
    started = time.process_time()
    assert code_of(b"P6 2000 2000 65535\n" + bytes(24_000_000)) == "ok"
    assert time.process_time() - started < 4


def test_xpm_colours_of_every_spelling() -> None:
    colours = {
        "a": "c #f08", "b": "c #ff0088", "c": "c #fff000888", "d": "c #ffff00008888", "e": "c Red",
        "f": "m white c gray50", "g": "m black", "h": "s none g #808080", " ": "c None",
    }  # fmt: skip
    shown = pixels(xpm(colours, ["abcdefgh "])).tolist()[0]
    pink, red, white = [255, 0, 136], [255, 0, 0], [255] * 3
    assert shown == [pink, pink, pink, pink, red, [127] * 3, [0] * 3, [128] * 3, white]


def test_xpm_with_long_keys_and_many_colours() -> None:
    keys = [f"{i:03x}" for i in range(600)]
    colours = {key: f"c #{i:06x}" for i, key in enumerate(keys)}
    shown = pixels(xpm(colours, ["".join(keys[::-1])]))
    assert (shown[0, :, 1] * 256 + shown[0, :, 2]).tolist() == [*range(600)][::-1]


def test_xpm_that_is_broken() -> None:
    sound = xpm({"a": "c red"}, ["aaaa", "aaaa"])
    assert code_of(sound) == "ok"
    assert code_of(sound.replace(b'"aaaa"\n', b'"aa"\n')) == "truncated"
    assert code_of(sound.replace(b"c red", b"c ultraviolet")) == "unsupported_format"
    assert code_of(sound.replace(b'"aaaa"\n', b'"aaba"\n')) == "corrupt"
    assert code_of(sound.replace(b"4 2 1 1", b"4 2 1")) == "corrupt"


def test_xbm_has_black_bits() -> None:
    data = b"#define p_width 8\n#define p_height 1\nstatic char p_bits[] = {\n0x05};\n"
    assert pixels(data)[0, :, 0].tolist() == [0, 255, 0, 255, 255, 255, 255, 255]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode: DecodeMode) -> None:
    flat = np.full((9, 9, 4), 51, np.uint8)
    grey = struct.pack("<H", 0x5AAA) * 81
    assert mean_colour(tga(flat.tobytes(), (9, 9), 32, 8), mode) == pytest.approx([214] * 3, abs=1)
    assert mean_colour(fits(np.full((9, 9), 0, np.int16), BZERO=32768), mode) == [128] * 3
    fields = bmp(grey + bytes(200), (9, -9), 16, 3, masks=(0xF00, 0xF0, 0xF, 0xF000), header=108)
    assert code_of(fields) == "ok"
