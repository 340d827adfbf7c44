"""TIFF: what is refused before anything is decoded, and what costs no image."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures.jpeg import grey_in_scans
from tests.support.pictures.outcome import code_of, pixels
from tests.support.pictures.tiff import DEFLATE, RAW, RGB, WHITE_IS_ZERO, Tiff

RAMP = np.arange(256).reshape(16, 16, 1)
SENSOR = {256: (4, [128]), 257: (4, [96]), 258: (3, [16]), 262: (3, [32803])}
LARGER = {256: (4, [128]), 257: (4, [96]), 258: (3, [8]), 262: (3, [2])}
SMALLER = {256: (4, [8]), 257: (4, [8]), 258: (3, [8]), 262: (3, [1])}

HIDING = {
    "DNG": Tiff(more={50706: (1, [1, 4, 0, 0])}),
    "DNG, big-endian": Tiff(order=">", more={50706: (1, [1, 4, 0, 0])}),
    "reduced": Tiff(more={254: (4, [1])}),
    "reduced, in the old way": Tiff(more={255: (3, [2])}),
    "sensor below": Tiff(below=[SMALLER, SENSOR]),
    "sensor behind": Tiff(behind=[SENSOR], order=">"),
    "larger below": Tiff(below=[LARGER], big=True),
}
PLAIN = {
    "pyramid": Tiff(below=[SMALLER, SMALLER | {254: (4, [1])}]),
    "larger below, but reduced": Tiff(below=[LARGER | {254: (4, [1])}]),
    "larger page behind": Tiff(behind=[LARGER]),
    "a page of many": Tiff(more={254: (4, [2])}),
    "directories that are not there": Tiff(more={330: (4, [1 << 30, 7, 0])}),
}


@pytest.mark.parametrize("name", HIDING)
def test_a_thumbnail_in_front_is_refused(name: str) -> None:
    assert code_of(HIDING[name].encode(RAMP)) == "unsupported_format"


def test_makers_that_write_it_into_the_header() -> None:
    data = Tiff().encode(RAMP)
    for mark in (b"CR\2\0", b"IIII", b"MMMM"):
        assert code_of(data[:8] + mark + data[12:]) == "unsupported_format"


@pytest.mark.parametrize("name", PLAIN)
def test_other_directories_are_nobodys_business(name: str) -> None:
    assert np.array_equal(pixels(PLAIN[name].encode(RAMP))[..., 0], RAMP[..., 0])


BROKEN = {
    "resolution as a text": {296: (3, [3]), 282: (3, [1]), 283: (3, [1])},
    "a profile beyond the end": {34675: (1, [1] * 9)},
    "photoshop": {34377: (1, [56, 66, 73, 77, 0, 0])},
    "rows of no strip": {278: (4, [0xFFFFFFFF])},
    "software as numbers": {305: (16, [7])},
    "a sample type that is no type": {339: (3, [4])},
    "opacity of no sample": {338: (3, [2])},
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("bits", [8, 16])
def test_fields_that_the_pixels_do_not_need(name: str, bits: int) -> None:
    data = Tiff(bits=bits, more=BROKEN[name]).encode(RAMP * (1 if bits == 8 else 256))
    if "beyond" in name:
        data = data.replace(
            struct.pack("<HHI", 34675, 1, 9), struct.pack("<HHI", 34675, 1, 1 << 31)
        )
    if "text" in name:
        data = data.replace(struct.pack("<HHI", 282, 3, 1), struct.pack("<HHI", 282, 2, 1))
    assert np.array_equal(pixels(data)[..., 0], RAMP[..., 0])


def test_one_sample_is_planar_too() -> None:
    """Pillow then forgets that white is zero."""
    tiff = Tiff(photometric=WHITE_IS_ZERO, more={284: (3, [2])})
    assert np.array_equal(pixels(tiff.encode(RAMP))[..., 0], 255 - RAMP[..., 0])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("form", ["field", "XMP"])
def test_orientation(form: str, bits: int) -> None:
    xmp = b'<x xmlns:tiff="t" tiff:Orientation="6"/>'
    more = {"field": {274: (3, [6])}, "XMP": {700: (1, list(xmp))}}[form]
    data = Tiff(bits=bits, more=more).encode(RAMP[:9] * (1 if bits == 8 else 256))
    assert np.array_equal(pixels(data)[..., 0], np.rot90(RAMP[:9, :, 0], -1))


def test_colours_at_half_the_resolution() -> None:
    """Uncompressed YCbCr: four values of light, then one of each colour."""
    block = bytes([100, 110, 120, 130, 128, 128])
    more = {258: (3, [8, 8, 8]), 277: (3, [3]), 279: (4, [len(block) * 4]), 530: (3, [2, 2])}
    data = Tiff(photometric=6, more=more).encode(
        np.frombuffer(block * 4, np.uint8).reshape(4, 6, 1)
    )
    whole = data.replace(struct.pack("<HHII", 256, 4, 1, 6), struct.pack("<HHII", 256, 4, 1, 4))
    assert pixels(whole)[..., 0].tolist() == [[100, 110] * 2, [120, 130] * 2] * 2


def tile_of(side: int) -> bytes:
    """A file of 1 x 1 pixels whose only tile claims to be larger."""
    return Tiff(compression=DEFLATE, tile=(side, side)).wrap([bytes(50)], (1, 1, 1))


def test_a_tile_larger_than_the_limit_is_refused_at_once() -> None:
    started = time.process_time()
    assert code_of(tile_of(40_000)) == "too_many_pixels"
    assert code_of(tile_of(2048), max_pixels=10**6) == "too_many_pixels"
    assert time.process_time() - started < 1


def test_tiles_of_usual_sizes_always_fit() -> None:
    data = Tiff(compression=DEFLATE, tile=(512, 256)).encode(np.full((1, 1, 1), 9))
    assert code_of(data, max_pixels=1) == "ok"
    full = Tiff(tile=(128, 96)).encode(np.full((96, 128, 1), 9))
    assert code_of(full, max_pixels=96 * 128) == "ok"
    assert code_of(full, max_pixels=96 * 128 - 1) == "too_many_pixels"


def test_work_of_wide_samples_is_bounded() -> None:
    tiff = Tiff(bits=64, format=3, photometric=RGB, extra=(0, 0, 0), compression=DEFLATE)
    data = tiff.encode(np.zeros((256, 256, 6)))
    assert code_of(data, max_pixels=1 << 16) == "too_many_pixels"
    assert code_of(data) == "ok"


def test_strips_on_top_of_each_other() -> None:
    """Some programs store equal strips once; but not all of the file is every strip."""
    empty = zlib.compress(bytes(1000))
    offsets, shape = (4, [8] * 200), (200, 1000, 1)
    for size, code in ((len(empty), "ok"), (1_000_000, "corrupt")):
        more = {273: offsets, 279: (4, [size] * 200)}
        tiff = Tiff(compression=DEFLATE, rows=1, more=more)
        data = tiff.wrap([empty, bytes(1_000_000)], shape)
        assert code_of(data, max_pixels=1_000_000) == code


@pytest.mark.parametrize("compression", [RAW, DEFLATE])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_list_of_too_few_strips(bits: int, compression: int) -> None:
    tiff = Tiff(bits=bits, compression=compression, rows=8, more={273: (4, [8])})
    assert code_of(tiff.encode(RAMP)) == "corrupt"


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("compression", [RAW, DEFLATE])
def test_a_file_that_ends_early(bits: int, compression: int) -> None:
    """What our own program puts behind the file is not read as pixels."""
    noise = np.random.default_rng(0).integers(0, 1 << bits, (32, 32, 1))
    tiff = Tiff(bits=bits, compression=compression, rows=8, is_directory_first=True)
    data = tiff.encode(noise)
    assert code_of(data) == "ok"
    for cut in (20, 100, len(data) - 150, len(data) - 9):
        assert code_of(data[:-cut]) == "truncated"


def test_sizes_may_be_left_out() -> None:
    tiff = Tiff(bits=16, compression=DEFLATE, rows=8, more={279: (3, [])})
    assert np.array_equal(pixels(tiff.encode(RAMP * 257))[..., 0], RAMP[..., 0])


def test_strips_without_number_are_refused() -> None:
    count = 300_000
    more = {273: (4, [8] * count), 279: (4, [1] * count)}
    narrow = Tiff(rows=1, more=more).wrap([b"\7"], (count, 1, 1))
    assert code_of(narrow) == "unsupported_format"


def test_scans_of_jpeg_in_strips_are_bounded() -> None:
    tiff = Tiff(more={259: (3, [7])})
    for scans, code in ((10, "ok"), (3000, "unsupported_format")):
        data = tiff.wrap([grey_in_scans(512, scans)], (512, 512, 1))
        started = time.process_time()
        assert code_of(data) == code
        assert time.process_time() - started < 2
    strips = [grey_in_scans(32, 10)] * 16
    usual = Tiff(rows=32, more={259: (3, [7])}).wrap(strips, (512, 32, 1))
    assert code_of(usual, max_pixels=512 * 32) == "ok"


def test_what_pillow_writes_is_read_as_pillow_reads_it() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr"):
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, "TIFF")
        rgba = Image.open(buffer).convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        expected = Image.alpha_composite(white, rgba).convert("RGB")
        assert np.array_equal(pixels(buffer.getvalue()), np.asarray(expected)), mode
