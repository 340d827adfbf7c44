"""Icons: the largest picture by its own header, with its own transparency."""

import struct
import time

import numpy as np
import pytest

from cvt.preprocessing.processor import DecodeMode
from tests.support.pictures.animations import bitmap, icns, ico, still
from tests.support.pictures.jpeg2000 import codestream, jp2
from tests.support.pictures.outcome import MODES, code_of, mean_colour, pixels
from tests.support.pictures.png import GREY, chunk, png

SIZE = (8, 4)
COLOURS = np.random.default_rng(0).integers(0, 256, (4, 8, 3))
MASK = bytes([0b11110000, 0, 0, 0]) * 4  # the left half is invisible
HALF = COLOURS.copy()
HALF[:, :4] = 255


def bgra(opacity: int) -> bytes:
    four = np.dstack([COLOURS[::-1, :, ::-1], np.full((4, 8), opacity)])
    return four.astype(np.uint8).tobytes()


@pytest.mark.parametrize("kind", [1, 2], ids=["icon", "cursor"])
@pytest.mark.parametrize("told", [0, 32])
def test_opacity_of_a_bitmap(kind: int, told: int) -> None:
    """Whatever number of bits the directory tells."""
    for opacity in (255, 51):
        data = ico([(SIZE, told, bitmap(SIZE, 32, bgra(opacity), MASK))], kind=kind)
        expected = COLOURS * opacity / 255 + 255 - opacity
        assert np.abs(pixels(data) - expected).max() < 1.6


def test_opacity_that_was_left_0() -> None:
    """Then the mask counts, as in Windows; without one all is visible."""
    assert np.array_equal(pixels(ico([(SIZE, 32, bitmap(SIZE, 32, bgra(0), MASK))])), HALF)
    assert np.array_equal(pixels(ico([(SIZE, 32, bitmap(SIZE, 32, bgra(0), b""))])), COLOURS)


def test_masks() -> None:
    rows = COLOURS[::-1, :, ::-1].astype(np.uint8).tobytes()
    assert np.array_equal(pixels(ico([(SIZE, 24, bitmap(SIZE, 24, rows, MASK))])), HALF)
    palette = bytes([0, 0, 0, 0, 255, 0, 0, 0])
    one = bitmap(SIZE, 1, bytes([0b01010101, 0, 0, 0]) * 4, MASK, palette)
    assert pixels(ico([(SIZE, 1, one)]))[0].tolist() == [[255] * 3] * 4 + [[0] * 3, [0, 0, 255]] * 2


RED, GREEN = (255, 0, 0), (0, 255, 0)


def test_the_largest_by_its_own_header() -> None:
    small, large = still("PNG", (16, 16), RED), still("PNG", (40, 30), GREEN)
    data = ico([((64, 64), 32, small), ((8, 8), 32, large)])
    assert np.array_equal(pixels(data), np.tile(GREEN, (30, 40, 1)))


def test_of_equal_ones_that_with_the_most_colours() -> None:
    two = bitmap(SIZE, 1, bytes([255, 0, 0, 0]) * 4, bytes(16), bytes(8))
    many = bitmap(SIZE, 32, bgra(255), bytes(16))
    for pictures in ([(SIZE, 1, two), (SIZE, 32, many)], [(SIZE, 32, many), (SIZE, 1, two)]):
        assert np.array_equal(pixels(ico(pictures)), COLOURS)


def test_the_limit_is_asked_before_a_picture_is_decoded() -> None:
    claims = struct.pack(">IIBBBBB", 13_300, 13_300, 8, 6, 0, 0, 0)
    huge = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", claims) + chunk(b"IDAT", bytes(9))
    bits = bytearray(bitmap(SIZE, 32, bgra(255), MASK))
    bits[4:12] = struct.pack("<ii", 13_300, 26_600)
    stream = bytearray(codestream(COLOURS, 8))
    stream[8:16] = stream[24:32] = struct.pack(">II", 13_300, 13_300)
    started = time.process_time()
    for data in (
        ico([((16, 16), 32, huge)]),
        ico([((16, 16), 32, bytes(bits))]),
        icns([(b"ic07", huge)]),
        icns([(b"ic07", jp2(bytes(stream)))]),
    ):
        assert code_of(data) == "too_many_pixels"
    assert time.process_time() - started < 1


def test_directories_that_lie() -> None:
    picture = (SIZE, 32, bitmap(SIZE, 32, bgra(255), MASK))
    assert code_of(ico([picture], count=60_000)) == "ok"
    many = ico([picture] * 50_000)
    started = time.process_time()
    assert code_of(many) == "ok"
    assert time.process_time() - started < 2


def test_text_in_an_icon_costs_nothing() -> None:
    wordy = png(np.full((9, 9), 80), 8, GREY, before=chunk(b"zTXt", b"a\0\7" + bytes(9)))
    assert pixels(ico([((9, 9), 32, wordy)])).tolist() == [[[80] * 3] * 9] * 9
    assert pixels(icns([(b"ic07", wordy)])).tolist() == [[[80] * 3] * 9] * 9


def test_mac_icons() -> None:
    """The largest, whatever the size that its kind is for; older kinds where there is no other."""
    small, large = still("PNG", (16, 16), RED), still("PNG", (40, 30), GREEN)
    old = [(b"is32", bytes([0x80 + 125, 9] * 2 * 3)), (b"s8mk", bytes([255] * 256))]
    data = icns([(b"TOC ", bytes(8)), *old, (b"ic10", small), (b"icp4", large)])
    assert np.array_equal(pixels(data), np.tile(GREEN, (30, 40, 1)))
    in_jpeg_2000 = jp2(codestream(COLOURS, 8))
    assert np.array_equal(pixels(icns([(b"ic08", in_jpeg_2000)])), COLOURS)
    assert pixels(icns(old)).tolist() == [[[9] * 3] * 16] * 16


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode: DecodeMode) -> None:
    half = ico([((9, 9), 32, still("PNG", (9, 9), (0, 0, 0, 51)))])
    assert mean_colour(half, mode) == [204] * 3
    assert mean_colour(icns([(b"ic07", still("PNG", (9, 9), RED))]), mode) == list(RED)


def test_an_icon_that_ends_early() -> None:
    data = ico([(SIZE, 32, bitmap(SIZE, 32, bgra(255), MASK))])
    for cut in (20, 100, len(data) - 15):
        assert code_of(data[:-cut]) == "truncated"


@pytest.mark.parametrize("bits", [1, 8, 24, 32])
def test_a_directory_that_tells_another_length(bits: int) -> None:
    """The header of the picture knows better; Pillow's own cursors tell their mask alone."""
    palette = bytes(4 << bits)[: 4 << 8] if bits <= 8 else b""
    stride = (8 * bits + 31) // 32 * 4
    rows = bytes([255] * stride * 4)
    palette = palette[:-4] + b"\xff\xff\0\0" if palette else b""
    picture = bitmap(SIZE, bits, rows, MASK, palette)
    for kind in (1, 2):
        whole = ico([(SIZE, bits, picture)], kind=kind)
        for length in (8, len(picture) - len(MASK) - 1, len(picture) - 5, len(picture) + 50):
            lies = whole[:14] + struct.pack("<I", length) + whole[18:] + bytes(60)
            assert np.array_equal(pixels(lies), pixels(whole))


@pytest.mark.parametrize("bits", [1, 24])
@pytest.mark.parametrize("left", [0, 7])
def test_a_cursor_that_ends_in_its_mask_is_whole_to_the_eye(bits: int, left: int) -> None:
    """Pillow reads its pixels alone. An icon that ends there is truncated for it, and here."""
    palette = b"\0\0\0\0\xff\0\0\0" if bits == 1 else b""
    rows = bytes([255] * ((8 * bits + 31) // 32 * 4 * 4))
    cut = bitmap(SIZE, bits, rows, MASK[:left], palette)
    cursor = ico([(SIZE, bits, cut)], kind=2)
    expected = (0, 0, 255) if bits == 1 else (255, 255, 255)
    assert np.array_equal(pixels(cursor), np.tile(expected, (4, 8, 1)))
    assert code_of(ico([(SIZE, bits, cut)])) == ("truncated" if left else "ok")
    assert code_of(cursor[: -left - 3]) == "truncated"
